"""The page in examples/upload, in Chromium, from another origin than Kinto's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT, live, waiting
from tests.support.browser import MODULE, Pages, png, put_rules, serve_pages, until, wait
from tests.support.faults import FaultProxy
from tests.support.resuming import MIB, write_film
from tests.support.services import S3

FOLDER = "/examples/upload/"
ADDRESS = "http://127.0.0.1:8888/v1"
UPLOADS, SMALL = "/buckets/default/collections/uploads", "/buckets/default/collections/small"
FULL, LOCKED = "/buckets/default/collections/full", "/buckets/default/collections/locked"
LIMITS = {
    "resources.default.small.max_size": "1000",
    "resources.default.small.min_size": "2",
    "resources.default.small.extensions": "png+txt",
    "resources.default.full.quota_bytes": "1000",
    "resources.default.locked.locked": "true",
}
SIZE = 40 * MIB  # Three requests.
CHUNK = 16 * MIB
HALF = 24 * MIB


@pytest.fixture(scope="module")
def bucket(seaweedfs: S3) -> str:
    return seaweedfs.create_bucket()


@pytest.fixture(scope="module", params=["local", pytest.param("s3", marks=pytest.mark.seaweedfs)])
def kinto(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[live.Server]:
    """Kinto with private files."""
    if request.param == "s3":
        seaweedfs: S3 = request.getfixturevalue("seaweedfs")
        bucket = request.getfixturevalue("bucket")
        options = {**seaweedfs.options(bucket), "direct.part_size": "5M"}
    else:
        options = {"base_path": str(tmp_path_factory.mktemp("files"))}
    with live.kinto({**options, **LIMITS}, threads=16) as server:
        yield server


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.bin", SIZE)


@dataclass
class Visit:
    """A visitor of the page; ``seen`` are the requests for uploads, with their offsets."""

    page: Any
    site: Pages
    proxy: FaultProxy
    server: live.Server
    seen: list[str]
    direct: bool = False

    def open(self, collection: str = UPLOADS, *, is_new: bool = False) -> None:
        paste(self.site, f"{self.proxy.url}/v1", collection, direct=self.direct)
        with live.Client(self.server) as alice:
            if not is_new:
                alice.request("GET", collection)  # The first request creates it.
        self.page.goto(f"{self.site.origin}{FOLDER}index.html")

    def choose(self, *files: Path) -> None:
        self.page.get_by_label("Choose files").set_input_files(files)

    def until(self, state: str) -> None:
        """Wait until the only upload in the list is in this state."""
        until(self.page, f"document.querySelector('#uploads li')?.dataset.state === '{state}'")

    def until_sent(self, size: int) -> None:
        until(self.page, f"document.querySelector('progress')?.value >= {size}")

    def until_held(self, held: list[Any], number: int) -> None:
        """Wait until so many requests hang, and all others have ended."""
        wait(self.page, lambda: len(held) >= number, lambda: held)
        self.until_sent(SIZE - 5 * MIB if "partNumber" in held[-1].request.url else 0)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).press("Enter")

    def news(self) -> str:
        return str(self.page.get_by_role("status").text_content())

    def status(self) -> str:
        return str(self.page.locator(".status").text_content())

    def stored(self) -> list[dict[str, Any]]:
        """The attachments of the collection."""
        with live.Client(self.server) as alice:
            records = alice.request("GET", f"{UPLOADS}/records")[2]["data"]
        return [record["attachment"] for record in records if record.get("attachment")]

    def unfinished(self) -> list[Any]:
        with live.Client(self.server) as alice:
            found: list[Any] = alice.request("GET", f"{UPLOADS}/attachments/uploads")[2]["data"]
        return found


def paste(site: Pages, url: str, collection: str, *, direct: bool = False) -> None:
    """Put the page on a site, as a user would copy it."""
    for path in (ROOT / "examples" / "upload").iterdir():
        text = path.read_text("utf-8").replace(ADDRESS, url).replace(UPLOADS, collection)
        if direct:
            text = text.replace("direct = false", "direct = true")
        site.add(f"{FOLDER}{path.name}", text)
    site.add("/js/kinto-attachment.js", MODULE.read_bytes())


@pytest.fixture
def visit(context: Any, kinto: live.Server) -> Iterator[Visit]:
    seen: list[str] = []
    errors: list[str] = []

    def note(request: Any) -> None:
        if "/attachment" in request.url and request.method in ("POST", "PUT", "PATCH", "DELETE"):
            seen.append(f"{request.method} {request.headers.get('upload-offset', '')}".strip())

    with serve_pages() as site, FaultProxy(kinto.address) as proxy:
        with live.Client(kinto) as alice:
            alice.request("DELETE", f"{UPLOADS}/records")
        page = context.new_page()
        page.on("request", note)
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(f"Uncaught {error}"))
        yield Visit(page, site, proxy, kinto, seen)
        page.close()
    forbidden = [text for text in errors if re.search("Content Security Policy|Uncaught", text)]
    assert forbidden == []


def test_a_chosen_picture_is_shown_by_a_link(visit: Visit, tmp_path: Path) -> None:
    picture = tmp_path / "тест.png"
    picture.write_bytes(png(width=7, height=5))
    visit.open()
    visit.choose(picture)
    until(visit.page, "document.querySelector('.picture img')?.naturalWidth === 7")
    assert visit.news() == "тест.png is uploaded."
    assert visit.status() == f"{picture.stat().st_size} bytes, uploaded"
    link = visit.page.get_by_role("link", name="Open тест.png").get_attribute("href")
    assert "Signature=" in link or "token=" in link
    assert visit.stored()[0]["filename"] == "тест.png"
    # Nothing is left to continue.
    visit.page.reload()
    until(visit.page, "document.querySelectorAll('#uploads li').length === 0")
    assert visit.page.evaluate("localStorage.length") == 0


def test_dropped_files_arrive(visit: Visit) -> None:
    visit.open()
    visit.page.evaluate(
        """
        () => {
          const dataTransfer = new DataTransfer();
          for (const name of ["a.txt", "b.txt", "c.txt"]) {
            dataTransfer.items.add(new File([name], name, { type: "text/plain" }));
          }
          for (const type of ["dragover", "drop"]) {
            const event = new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true });
            document.querySelector("#drop").dispatchEvent(event);
          }
        }
        """
    )
    until(visit.page, "document.querySelectorAll('li[data-state=done]').length === 3")
    assert sorted(each["filename"] for each in visit.stored()) == ["a.txt", "b.txt", "c.txt"]
    assert visit.page.locator("#drop.over").count() == 0


def test_pauses_and_continues_by_keyboard(visit: Visit, film: Path) -> None:
    visit.open()
    visit.proxy.hang(sent=HALF)
    visit.choose(film)
    visit.until_sent(CHUNK)
    bar = visit.page.get_by_role("progressbar", name=film.name)
    assert float(bar.get_attribute("max")) == SIZE
    assert visit.proxy.broken.wait(waiting.SECONDS)
    visit.press("Pause film.bin")
    visit.until("paused")
    assert visit.news() == "film.bin is paused."
    assert re.fullmatch(r"Paused at [\d.]+ MB of 41.9 MB", visit.status())
    visit.proxy.work()
    visit.seen.clear()
    visit.press("Continue film.bin")
    visit.until("done")
    assert visit.seen[0].startswith("PATCH")
    assert int(visit.seen[0].split()[1]) >= CHUNK
    assert [each["size"] for each in visit.stored()] == [SIZE]


def test_continues_after_a_reload(visit: Visit, film: Path) -> None:
    visit.open()
    visit.proxy.hang(sent=HALF)
    visit.choose(film)
    assert visit.proxy.broken.wait(waiting.SECONDS)
    visit.page.reload()
    visit.proxy.work()
    visit.page.reload()
    visit.until("missing")
    assert re.fullmatch(
        r"\d+(.\d)? MB of 41.9 MB have arrived. Choose the same file again to continue.",
        visit.status(),
    )
    visit.seen.clear()
    with visit.page.expect_file_chooser() as chooser:
        visit.press("Choose film.bin")
    chooser.value.set_files(film)
    visit.until("done")
    assert visit.page.locator("#uploads li").count() == 1
    assert int(visit.seen[0].removeprefix("PATCH ")) >= CHUNK
    assert [each["size"] for each in visit.stored()] == [SIZE]


def test_goes_on_by_itself_after_a_break(visit: Visit, film: Path) -> None:
    visit.open()
    visit.proxy.cut(sent=HALF, once=True)
    visit.choose(film)
    visit.until("done")
    assert visit.proxy.connections > 1
    assert visit.seen.count("PUT") == 1


def test_removes_an_upload_from_the_server(visit: Visit, film: Path) -> None:
    visit.open()
    visit.proxy.hang(sent=HALF)
    visit.choose(film)
    assert visit.proxy.broken.wait(waiting.SECONDS)
    visit.press("Pause film.bin")
    visit.until("paused")
    visit.proxy.work()
    assert len(visit.unfinished()) == 1
    visit.press("Remove film.bin")
    until(visit.page, "document.querySelectorAll('#uploads li').length === 0")
    assert visit.page.evaluate("document.activeElement.id") == "input"
    assert visit.unfinished() == []
    visit.page.reload()
    until(visit.page, "document.readyState === 'complete'")
    assert visit.page.evaluate("localStorage.length") == 0


def test_what_the_rules_refuse_is_not_sent(visit: Visit, tmp_path: Path) -> None:
    files = {"large.png": bytes(1001), "empty.txt": b"", "film.mp4": b"xyz", "ok.txt.gz": b"xy"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    visit.open(SMALL)
    until(visit.page, "document.querySelector('#limits').textContent === 'Up to 1 kB: png, txt'")
    visit.choose(*(tmp_path / name for name in files))
    until(visit.page, "document.querySelectorAll('li[data-state=done]').length === 1")
    rows = visit.page.locator("li[data-state=refused]")
    assert rows.locator(".status").all_text_contents() == [
        "The file is larger than 1 kB.",
        "The file is smaller than 2 bytes.",
        "Only these are allowed: png, txt.",
    ]
    assert visit.seen[0] == "PUT"
    assert visit.seen.count("PUT") == 1
    visit.press("Remove large.png")
    until(visit.page, "document.querySelectorAll('#uploads li').length === 3")


@pytest.mark.parametrize(
    ("collection", "message"),
    [
        (FULL, "There is room for 1 kB only."),
        (LOCKED, "The files of this collection are locked."),
    ],
)
def test_what_cannot_be_stored_is_not_sent(
    visit: Visit, tmp_path: Path, collection: str, message: str
) -> None:
    (tmp_path / "large.png").write_bytes(bytes(1001))
    visit.open(collection)
    visit.choose(tmp_path / "large.png")
    visit.until("refused")
    assert visit.status() == message
    assert visit.seen == []


def test_the_first_file_of_a_collection_goes_to_the_storage(
    visit: Visit, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "a.txt").write_bytes(b"Hello!\n")
    if "s3" in request.node.name:
        bucket = request.getfixturevalue("bucket")
        put_rules(request.getfixturevalue("seaweedfs"), bucket, visit.site.origin)
    visit.direct = True
    visit.open("/buckets/default/collections/new", is_new=True)
    visit.choose(tmp_path / "a.txt")
    visit.until("done")
    assert visit.seen[0] == "POST"  # The PUT of a part is not seen if it goes to a bucket.


def test_a_server_that_is_away_is_told(visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"Hello!\n")
    visit.open()
    visit.proxy.refuse()
    visit.choose(tmp_path / "a.txt")
    alert = "document.querySelector('[role=alert]').textContent"
    until(visit.page, f"{alert} === 'The server cannot be reached.'")
    visit.proxy.work()
    visit.until("done")
    assert [each["filename"] for each in visit.stored()] == ["a.txt"]


def test_direct_uploads_pause_and_continue_after_a_reload(
    visit: Visit, film: Path, request: pytest.FixtureRequest
) -> None:
    """With a local folder, the page sends the file to the server, in one request."""
    visit.direct = True
    last = "token="
    if "s3" in request.node.name:
        bucket = request.getfixturevalue("bucket")
        put_rules(request.getfixturevalue("seaweedfs"), bucket, visit.site.origin)
        last = "partNumber=8&"
    sent: list[str] = []
    held: list[Any] = []

    def note(request: Any) -> None:
        if request.method == "PUT":
            sent.append(request.url)

    def hold(route: Any) -> None:
        if route.request.method == "PUT":
            held.append(route)
        else:
            route.continue_()

    visit.page.on("request", note)
    visit.open()
    visit.page.route(re.compile(last), hold)
    visit.choose(film)
    visit.until_held(held, 1)
    visit.press("Pause film.bin")
    visit.until("paused")
    visit.press("Continue film.bin")
    visit.until_held(held, 2)
    visit.page.reload()
    visit.page.unroute(re.compile(last))  # A held request would be sent if it still existed.
    visit.until("missing")
    sent.clear()
    visit.choose(film)
    visit.until("done")
    assert [last in url for url in sent] == [True]
    assert [each["size"] for each in visit.stored()] == [SIZE]
