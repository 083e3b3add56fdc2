"""The clients that people use: kinto-http in Python and kinto.js, against a live server."""

from __future__ import annotations

import json
import os
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kinto_http
import pytest
import requests

from tests.support import ROOT, live
from tests.support.application import sha256

ALICE = ("alice", "secret")
FIRST, SECOND = b"the first content", "the second content, тоже".encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Server]:
    folder = tmp_path_factory.mktemp("files")
    with live.kinto({"base_path": str(folder)}, engine="waitress") as server:
        yield server


def make_client(server: live.Server, user: str) -> kinto_http.Client:
    return kinto_http.Client(
        server_url=server.url, auth=(user, "secret"), bucket="py", collection="docs"
    )


@pytest.fixture
def client(server: live.Server) -> kinto_http.Client:
    client = make_client(server, "alice")
    client.create_bucket(if_not_exists=True)
    client.create_collection(if_not_exists=True)
    return client


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture one.png"
    path.write_bytes(FIRST)
    return path


def download(record: dict[str, Any]) -> bytes:
    location = record["data"]["attachment"]["location"]
    response = requests.get(location, auth=ALICE, timeout=90)
    assert response.status_code == 200
    return response.content


def test_python_adds_downloads_replaces_and_removes(
    client: kinto_http.Client, picture: Path, tmp_path: Path
) -> None:
    attachment = client.add_attachment(
        id="one",
        filepath=str(picture),
        data={"title": "a title"},
        permissions={"read": ["system.Everyone"]},
    )
    record = client.get_record(id="one")
    assert record["data"]["attachment"] == attachment
    assert record["data"]["title"] == "a title"
    assert record["permissions"]["read"] == ["system.Everyone"]
    assert (attachment["filename"], attachment["mimetype"]) == ("picture one.png", "image/png")
    assert (attachment["hash"], attachment["size"]) == (sha256(FIRST), len(FIRST))
    assert download(record) == FIRST

    picture.write_bytes(SECOND)
    client.add_attachment(id="one", filepath=str(picture), filename="two.bin", mimetype="a/b")
    record = client.get_record(id="one")
    assert record["data"]["title"] == "a title"
    assert record["data"]["attachment"]["filename"] == "two.bin"
    assert record["data"]["attachment"]["mimetype"] == "a/b"
    assert download(record) == SECOND

    client.remove_attachment(id="one")
    assert client.get_record(id="one")["data"]["attachment"] is None
    assert client.server_info()["capabilities"]["attachments"]["version"]


def test_python_downloads_with_its_own_method(
    client: kinto_http.Client, picture: Path, tmp_path: Path
) -> None:
    # That method sends no credentials.
    permissions = {"read": ["system.Everyone"]}
    client.add_attachment(id="own", filepath=str(picture), permissions=permissions)
    record = client.get_record(id="own")["data"]
    save_to = tmp_path / "copy"
    client.download_attachment(record, filepath=str(save_to))
    assert save_to.read_bytes() == FIRST


def test_python_is_told_what_was_wrong(
    server: live.Server, client: kinto_http.Client, picture: Path
) -> None:
    with pytest.raises(kinto_http.KintoException, match="404"):
        client.remove_attachment(id="nothing-here")
    with pytest.raises(kinto_http.KintoException, match="403"):
        make_client(server, "bob").add_attachment(id="x", filepath=str(picture))


def test_javascript_adds_downloads_replaces_and_removes(server: live.Server) -> None:
    authorization = "Basic " + b64encode(b":".join(part.encode() for part in ALICE)).decode()
    for path in ("buckets/js", "buckets/js/collections/docs"):
        assert requests.put(f"{server.url}/{path}", auth=ALICE, timeout=90).ok
    settings = {
        "url": server.url,
        "authorization": authorization,
        "files": [b64encode(content).decode() for content in (FIRST, SECOND)],
    }
    result = run_javascript(settings)

    assert result["capability"]["base_url"] == ""
    added = result["added"]["data"]
    assert added["title"] == "first"
    assert added["attachment"]["filename"] == "first.txt"
    assert added["attachment"]["mimetype"] == "text/plain"
    assert added["attachment"]["hash"] == sha256(FIRST)
    assert result["added"]["permissions"]["read"] == ["system.Everyone"]
    assert b64decode(result["downloaded"]) == FIRST

    assert (result["safeAgain"], result["stale"]) == (412, 412)
    replaced = result["replaced"]["data"]
    assert (replaced["title"], replaced["attachment"]["filename"]) == ("second", "second.txt")
    assert b64decode(result["downloadedAgain"]) == SECOND
    assert result["named"]["data"]["attachment"]["filename"] == "inside.txt"

    assert result["removed"]["data"]["attachment"] is None
    gone = requests.get(replaced["attachment"]["location"], auth=ALICE, timeout=90)
    assert gone.status_code == 404


def run_javascript(settings: dict[str, Any], script: str = "kinto_js.cjs") -> Any:
    """Run it with the system's node or, in "make tests", with the one that pip installed."""
    assert (ROOT / "node_modules" / "kinto").is_dir(), 'run "make node_modules/.installed" first'
    done = subprocess.run(
        ["node", str(ROOT / "tests" / "support" / script)],
        cwd=ROOT,
        input=json.dumps(settings),
        env={**os.environ, "NODE_NO_WARNINGS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
