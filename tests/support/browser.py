"""Chromium, and pages of several origins for it to open.

``pages`` is one origin, ``other_pages`` another one. Both are on one site, so that they share the
browser's cache. ``page`` is a page of ``pages``, in a separate profile.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import struct
import threading
import wave
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.support import ROOT, live, waiting
from tests.support.documents import code_blocks
from tests.support.faults import HOST
from tests.support.services import S3

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
BLANK = "<!doctype html><meta charset=utf-8><link rel=icon href=data:,><title>A page</title>"
KINTO_JS = ROOT / "node_modules" / "kinto" / "dist" / "kinto.min.js"
TUS_JS = ROOT / "node_modules" / "tus-js-client" / "dist" / "tus.min.js"
APP = "https://app.example.com"  # The pages in docs/storage.rst.
MODULE = ROOT / "js" / "kinto-attachment.js"
TYPES = {"js": "text/javascript", "html": "text/html", "css": "text/css"}
TIMEOUT = 60_000  # Milliseconds, for anything that a page does.


@dataclass
class Pages:
    """The files of one origin, by path; files can be added while a browser uses it."""

    origin: str
    files: dict[str, tuple[bytes, dict[str, str]]] = field(default_factory=dict)

    def add(self, path: str, content: str | bytes, **headers: str) -> str:
        """The URL of a file; ``Service_Worker_Allowed`` is a header."""
        kind = TYPES[path.rpartition(".")[2]]
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = content.encode() if isinstance(content, str) else content
        self.files[path] = data, {"Content-Type": kind, **named}
        return f"{self.origin}{path}"


@contextlib.contextmanager
def serve_pages() -> Iterator[Pages]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = pages.files.get(self.path)
            content, headers = found or (b"", {})
            self.send_response(200 if found else 404)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Handler)
    server.daemon_threads = True
    pages = Pages(f"http://{HOST}:{server.server_port}")
    pages.add("/page.html", BLANK)
    pages.add("/kinto-attachment.js", MODULE.read_bytes())
    if KINTO_JS.is_file():
        pages.add("/kinto.js", KINTO_JS.read_bytes())
    if TUS_JS.is_file():
        pages.add("/tus.js", TUS_JS.read_bytes())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield pages
    finally:
        server.shutdown()
        waiting.join(thread)
        server.server_close()


def program() -> str:
    """:raises RuntimeError: there is no Chromium; ``make tests-browser`` finds this out before."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        raise RuntimeError("These tests need Chromium.")
    return found


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    # From the extra "browser", which "make tests" does not need.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # A container has no namespaces for Chromium's sandbox; all pages are from the tests.
        browser = playwright.chromium.launch(executable_path=program(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session", name="pages")
def pages_fixture() -> Iterator[Pages]:
    with serve_pages() as pages:
        yield pages


@pytest.fixture(scope="session")
def other_pages() -> Iterator[Pages]:
    with serve_pages() as pages:
        yield pages


@pytest.fixture
def context(chromium: Any) -> Iterator[Any]:
    """A separate profile: cache, service workers, storage."""
    context = chromium.new_context()
    context.set_default_timeout(TIMEOUT)
    yield context
    context.close()


@pytest.fixture
def page(context: Any, pages: Pages) -> Any:
    page = context.new_page()
    page.goto(f"{pages.origin}/page.html")
    return page


class Traffic:
    """The responses that came over the network, not from the browser's cache.

    ``page.on`` reports 200 for responses that were only revalidated.
    """

    def __init__(self, page: Any) -> None:
        self._page = page
        self._urls: dict[str, str] = {}
        self._answers: list[tuple[str, int]] = []
        session = page.context.new_cdp_session(page)
        session.on("Network.requestWillBeSent", self._on_request)
        session.on("Network.responseReceivedExtraInfo", self._on_answer)
        session.send("Network.enable")

    def are(self, start: str, *expected: int) -> None:
        """Check the statuses of the responses for URLs that begin with ``start``."""
        # The browser reports them later than the page, and in any order.
        wait(
            self._page,
            lambda: self._statuses(start) == list(expected),
            lambda: self._statuses(start),
        )

    def _statuses(self, start: str) -> list[int]:
        return [status for id, status in self._answers if self._urls.get(id, "").startswith(start)]

    def _on_request(self, event: Any) -> None:
        self._urls[event["requestId"]] = event["request"]["url"]

    def _on_answer(self, event: Any) -> None:
        self._answers.append((event["requestId"], event["statusCode"]))


# Files that a browser can display.


def png(width: int = 1, height: int = 1, grey: int = 0) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = (b"\0" + bytes([grey]) * width) * height
    end = chunk(b"IEND", b"")
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + end
    )


def wav(seconds: int, rate: int = 44_100) -> bytes:
    """Silence: 88,200 bytes for each second."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, rate, 0, "NONE", ""))
        writer.writeframes(bytes(2 * rate * seconds))
    return file.getvalue()


PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]>>endobj\n"
    b"trailer<</Root 1 0 R>>\n"
)


# Actions of pages, as JavaScript functions.

IMAGE = """
(address) => new Promise((resolve) => {
  const image = new Image();
  image.onload = () => resolve(image.naturalWidth);
  image.onerror = () => resolve(0);
  image.src = address;
  document.body.append(image);
})
"""
"""The width of the picture at an address; 0 if it is not shown."""

FETCH = """
([address, options]) => fetch(address, options).then(
  async (response) => ({
    status: response.status,
    headers: Object.fromEntries(response.headers),
    text: await response.text(),
  }),
  (error) => String(error),
)
"""
"""What a script can read of a response, or the error."""


def wait(
    page: Any, condition: Callable[[], object], told: Callable[[], object] | None = None
) -> None:
    """Wait for a condition, while the page's events are handled."""
    waiting.until(condition, told, sleep=lambda seconds: page.wait_for_timeout(1000 * seconds))


def until(page: Any, condition: str) -> None:
    """Wait for a condition in JavaScript, also in pages that may not run scripts."""
    wait(page, lambda: page.evaluate(condition), lambda: condition)


def has_viewer(page: Any, url: str) -> None:
    """Wait for Chromium's PDF viewer, which is an extension with a frame for the file."""
    wait(
        page,
        lambda: (
            any(frame.url.startswith("chrome-extension://") for frame in page.frames)
            and page.frames[-1].url.startswith(url)
        ),
        lambda: page.frames,
    )


def show(page: Any, url: str) -> int:
    return int(page.evaluate(IMAGE, url))


def fetch(page: Any, url: str, **options: Any) -> Any:
    return page.evaluate(FETCH, [url, options])


def put_rules(server: S3, bucket: str, app: str = APP, **changes: Any) -> None:
    """Give a bucket the CORS rules of docs/storage.rst, for the pages of one origin."""
    (text,) = [code for code in code_blocks("docs/storage.rst", "json") if "CORSRules" in code]
    assert APP in text
    rules = json.loads(text.replace(APP, app))["CORSRules"]
    configuration = {"CORSRules": [{**rule, **changes} for rule in rules]}
    server.client().put_bucket_cors(Bucket=bucket, CORSConfiguration=configuration)


def upload(
    server: live.Server, path: str, content: bytes, filename: str, **headers: str
) -> dict[str, Any]:
    """The attachment of the record at the end (``path``) of the default bucket's URL."""
    record = f"/buckets/default/collections/{path.replace('/', '/records/')}"
    with live.Client(server) as alice:
        status, _, attachment = alice.attach(record, content, filename, **headers)
    assert status in (200, 201), attachment
    return {**attachment, "url": f"{server.url}{record}/attachment"}
