"""Uploads that are repeated because their answer was lost, as described in docs/pages.rst."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support import live
from tests.support.application import ALICE, RECORD, sha256
from tests.support.faults import FaultProxy

COLLECTION = RECORD.rpartition("/records/")[0]
BUCKET = COLLECTION.rpartition("/collections/")[0]
CONTENT = b"Hello!\n"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Server]:
    folder = tmp_path_factory.mktemp("files")
    with live.kinto({"base_path": str(folder)}) as server:
        yield server


@pytest.fixture
def files(running: live.Server) -> Iterator[Path]:
    """The folder of the files of an empty collection."""
    with live.Client(running) as alice:
        for parent in (BUCKET, COLLECTION):
            alice.put(parent)
        yield Path(running.ini.read_text().split("kinto.attachment.base_path = ")[1].split()[0])
        alice.request("DELETE", BUCKET)


class Uploader:
    """A client whose first answer to an upload is lost."""

    def __init__(self, proxy: FaultProxy, method: str) -> None:
        self.proxy, self.method = proxy, method
        self.url = f"{proxy.url}/v1{RECORD}"

    def upload(self, content: bytes = CONTENT, **headers: str) -> requests.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        body: dict[str, Any] = {"files": {"attachment": ("a.txt", content)}}
        if self.method == "PUT":
            body = {"data": content, "params": {"filename": "a.txt"}}
        return requests.request(
            self.method, f"{self.url}/attachment", headers={**ALICE, **names}, timeout=90, **body
        )

    def lose(self, content: bytes = CONTENT, **headers: str) -> None:
        self.proxy.cut(received=0, once=True)
        with pytest.raises(requests.ConnectionError):
            self.upload(content, **headers)

    def record(self) -> Any:
        return requests.get(self.url, headers=ALICE, timeout=90).json()["data"]


@pytest.fixture(params=["PUT", "POST"])
def client(running: live.Server, request: pytest.FixtureRequest) -> Iterator[Uploader]:
    with FaultProxy(running.address) as proxy:
        yield Uploader(proxy, request.param)


def stored(files: Path) -> int:
    return sum(path.is_file() for path in files.rglob("*.txt"))


def test_a_new_record(client: Uploader, files: Path) -> None:
    client.lose(If_None_Match="*")
    before = client.record()
    again = client.upload(If_None_Match="*")
    assert (again.status_code, again.json()["details"]["existing"]) == (412, before)
    assert (client.record(), stored(files)) == (before, 1)


def test_a_replacement(client: Uploader, files: Path) -> None:
    etag = client.upload(b"old").headers["ETag"]
    client.lose(If_Match=etag)
    before = client.record()
    again = client.upload(If_Match=etag)
    assert again.status_code == 412
    assert again.json()["details"]["existing"]["attachment"]["hash"] == sha256(CONTENT)
    assert (client.record(), stored(files)) == (before, 1)


@pytest.mark.parametrize("headers", [{"If_None_Match": "*"}, {}], ids=["new", "any"])
def test_what_did_not_arrive(client: Uploader, files: Path, headers: dict[str, str]) -> None:
    client.proxy.cut(sent=0, once=True)
    with pytest.raises(requests.ConnectionError):
        client.upload(**headers)
    assert client.upload(**headers).status_code == 201
    assert stored(files) == 1


def test_without_preconditions(client: Uploader, files: Path) -> None:
    client.lose()
    assert client.upload().status_code == 200
    assert client.record()["attachment"]["hash"] == sha256(CONTENT)
    assert stored(files) == 1


@pytest.mark.parametrize("precondition", ["If-None-Match", "If-Match"])
def test_while_the_first_attempt_is_still_running(
    running: live.Server, client: Uploader, files: Path, precondition: str
) -> None:
    value = "*" if precondition == "If-None-Match" else client.upload(b"old").headers["ETag"]
    connection = http.client.HTTPConnection(*running.address, timeout=90)
    with contextlib.closing(connection):
        connection.putrequest("PUT", f"/v1{RECORD}/attachment?filename=a.txt")
        for name, text in {**ALICE, precondition: value, "Content-Length": "100000"}.items():
            connection.putheader(name, text)
        connection.endheaders(b"x" * 50_000)
        again = client.upload(**{precondition: value})
        assert again.status_code in (200, 201)
        connection.send(b"x" * 50_000)
        late = connection.getresponse()
        assert late.status == 412
        late.read()
    assert client.record()["attachment"]["hash"] == sha256(CONTENT)
    assert stored(files) == 1
