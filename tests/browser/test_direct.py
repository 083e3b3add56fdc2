"""Direct uploads from Chromium: a page of another origin than Kinto's and the storage's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import live
from tests.support.application import ALICE, sha256
from tests.support.browser import APP, Pages, put_rules, wait
from tests.support.resuming import MIB, write_film
from tests.support.services import S3

RECORD = "/buckets/default/collections/direct/records"
SIZE = 12 * MIB  # Three parts.
PREPARE = """
async ([server, headers, record]) => {
  const { AttachmentClient } = await import("/kinto-attachment.js");
  const client = new AttachmentClient(server, { headers, pause: 0.01 });
  document.body.innerHTML = "<input type=file id=input>";
  window.told = [];
  const onProgress = (sent) => told.push(sent);
  window.send = () => client.upload(input.files[0], { record, direct: true, onProgress }).then(
    ({ created, attachment }) => ({ created, size: attachment.size }),
    (error) => ({ ...error, name: error.name, message: error.message }),
  );
}
"""


@pytest.fixture(scope="module")
def bucket(seaweedfs: S3) -> str:
    return seaweedfs.create_bucket()


@pytest.fixture(scope="module")
def s3_server(seaweedfs: S3, bucket: str) -> Iterator[live.Server]:
    options = {"direct.part_size": "5M", "downloads": "proxy"}
    with live.kinto({**seaweedfs.options(bucket), **options}, threads=16) as server:
        yield server


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.bin", SIZE)


class Visit:
    """A page, with the parts that it sends and the errors in the browser's console."""

    def __init__(self, page: Any, server: live.Server, record: str, film: Path) -> None:
        self.page = page
        self.server = server
        self.record = f"{RECORD}/{record}"
        self.film = film
        self.sent: list[int] = []
        self.arrived: list[int] = []
        self.headers: set[str] = set()
        self.complaints: list[str] = []
        page.on("request", self._note)
        page.on("requestfinished", lambda request: self.arrived.extend(self._number(request)))
        page.on("console", lambda message: self.complaints.append(message.text))
        self.choose()

    def choose(self) -> None:
        self.page.evaluate(PREPARE, [self.server.url, ALICE, self.record])
        self.page.set_input_files("#input", self.film)

    def send(self) -> Any:
        return self.page.evaluate("send()")

    def is_there(self) -> None:
        with live.Client(self.server) as alice:
            content = alice.request("GET", f"{self.record}/attachment")[2]
        assert sha256(content) == sha256(self.film.read_bytes())

    def _note(self, request: Any) -> None:
        if number := self._number(request):
            self.sent += number
            self.headers |= request.headers.keys()

    def _number(self, request: Any) -> list[int]:
        """The number of the part that a request sends."""
        found = re.search(r"[?&]partNumber=(\d+)|[?&]token=", request.url)
        return [int(found[1] or 1)] if found and request.method == "PUT" else []


@pytest.fixture
def ruled(seaweedfs: S3, bucket: str, pages: Pages) -> None:
    put_rules(seaweedfs, bucket, pages.origin)


@pytest.mark.parametrize("storage", ["local", "s3"])
def test_parts_arrive(page: Any, request: pytest.FixtureRequest, film: Path, storage: str) -> None:
    if storage == "s3":
        request.getfixturevalue("ruled")
    server = request.getfixturevalue("s3_server" if storage == "s3" else "server")
    visit = Visit(page, server, f"parts-{storage}", film)
    assert visit.send() == {"created": True, "size": SIZE}
    assert sorted(visit.sent) == ([1, 2, 3] if storage == "s3" else [1])
    assert "authorization" not in visit.headers
    told = page.evaluate("told")
    assert told == sorted(told)
    assert len(set(told)) >= (3 if storage == "s3" else 1)
    assert told[-1] == SIZE
    assert visit.complaints == []
    visit.is_there()


def test_goes_on_after_a_reload(
    page: Any, ruled: None, s3_server: live.Server, film: Path
) -> None:
    visit = Visit(page, s3_server, "reload", film)
    held: list[Any] = []
    page.route("**/*partNumber=3&*", lambda route: held.append(route))
    page.evaluate("send(), 0")
    wait(page, lambda: sorted(visit.arrived) == [1, 2] and held, lambda: visit.arrived)
    page.reload()
    page.unroute("**/*partNumber=3&*")  # A held request would be sent if it still existed.
    visit.sent.clear()
    visit.choose()
    assert visit.send() == {"created": True, "size": SIZE}
    assert visit.sent == [3]
    assert page.evaluate("told[0]") == 10 * MIB
    visit.is_there()


def test_a_rule_for_another_origin_refuses(
    page: Any, pages: Pages, seaweedfs: S3, bucket: str, s3_server: live.Server, film: Path
) -> None:
    put_rules(seaweedfs, bucket, APP)
    visit = Visit(page, s3_server, "refused", film)
    error = visit.send()
    assert (error["name"], error["status"]) == ("AttachmentError", 0)
    assert error["fromStorage"] is True
    assert "CORS" in error["message"]
    assert visit.arrived == []
    assert any("CORS policy" in text for text in visit.complaints)
    put_rules(seaweedfs, bucket, pages.origin)
    assert visit.send() == {"created": True, "size": SIZE}
    visit.is_there()
