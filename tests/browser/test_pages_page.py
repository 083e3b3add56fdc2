"""The JavaScript in docs/pages.rst does what that page says, in Chromium."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import live, waiting
from tests.support.browser import (
    BLANK,
    PDF,
    Pages,
    fetch,
    has_viewer,
    png,
    serve_pages,
    show,
    until,
    upload,
    wav,
)
from tests.support.documents import code_blocks

PAGE = "docs/pages.rst"
ADDRESS = "http://127.0.0.1:8888/v1"
ELEMENTS = """<input type=file id=input><progress id=bar></progress>
<button id=cancel>Cancel</button><p id=message></p><script type=module src=/upload.js></script>"""
EXAMPLES = {
    "/upload.js": "input.onchange",
    "/large.js": "function start(",
    "/unfinished.js": "function cancelAll(",
    "/by-tus.js": "function sendByTus(",
    "/direct.js": "function sendDirectly(",
    "/show.js": "function show(element, attachment)",
    "/link.js": "client.link(",
    "/sw.js": "clients.claim",
    "/register.js": "serviceWorker.register",
    "/gallery.js": "function fill(",
    "/links.js": "function fillWithLinks(",
    "/offline.js": "function keepFiles(",
    "/again.js": "function replace(",
}


def paste(site: Pages, server: live.Server) -> None:
    """Put all examples on a site, with the server's address."""
    blocks = code_blocks(PAGE, "javascript")
    assert len(blocks) == len(EXAMPLES)
    for path, part in EXAMPLES.items():
        (block,) = [block for block in blocks if part in block]
        site.add(path, block.replace(ADDRESS, server.url))
    site.add("/upload.html", BLANK + ELEMENTS)


@pytest.fixture
def site(server: live.Server) -> Iterator[Pages]:
    with serve_pages() as site:
        paste(site, server)
        yield site


@pytest.fixture
def reader(context: Any, site: Pages) -> Any:
    """A page of that site."""
    page = context.new_page()
    page.goto(f"{site.origin}/page.html")
    return page


def record(server: live.Server, path: str) -> Any:
    with live.Client(server) as alice:
        uri = f"/buckets/default/collections/{path.replace('/', '/records/')}"
        return alice.request("GET", uri)[2]["data"]


def test_upload(reader: Any, site: Pages, server: live.Server, tmp_path: Path) -> None:
    (tmp_path / "тест.txt").write_bytes(b"Hello!\n")
    reader.goto(f"{site.origin}/upload.html")
    reader.set_input_files("#input", tmp_path / "тест.txt")
    until(reader, "message.textContent === 'тест.txt has 7 bytes.' && bar.value === 1")
    assert record(server, "docs/hello")["title"] == "A greeting"


def test_upload_is_cancelled(
    reader: Any, site: Pages, server: live.Server, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(b"Hello!\n")
    reader.goto(f"{site.origin}/upload.html")
    reader.click("#cancel")
    reader.set_input_files("#input", tmp_path / "a.txt")
    until(reader, "message.textContent === 'Cancelled'")


@pytest.mark.parametrize("way", ["large", "by-tus"])
def test_a_large_file_goes_on_after_a_reload(
    reader: Any, server: live.Server, tmp_path: Path, way: str
) -> None:
    size = 65 * 1024 * 1024
    with (tmp_path / f"{way}.bin").open("wb") as file:
        file.truncate(size)
    seen: list[str] = []
    reader.on("request", lambda request: seen.append(request.method))
    open_again(reader, tmp_path / f"{way}.bin", way)
    reader.evaluate("send((sent) => { told = sent; }).catch((error) => { why = error.name; }), 0")
    until(reader, "told > 40_000_000")
    if way == "large":
        reader.evaluate("pause()")
        until(reader, "why === 'AbortError'")
    open_again(reader, tmp_path / f"{way}.bin", way)
    seen.clear()
    first = reader.evaluate(
        """
        async () => {
          let first;
          await send((sent) => { first ??= sent; });
          return first;
        }
        """
    )
    assert first >= 2 * 16 * 1024 * 1024
    assert "POST" not in seen
    stored = record(server, "films/holiday")
    assert (stored["title"], stored["attachment"]["filename"]) == ("A film", f"{way}.bin")
    assert stored["attachment"]["size"] == size


def open_again(page: Any, path: Path, way: str) -> None:
    """Reload a page, and choose a file in it."""
    page.reload()
    page.add_script_tag(url="/tus.js")
    page.evaluate(
        """
        async (way) => {
          const { start, pause, sendByTus } = await import(`/${way}.js`);
          document.body.innerHTML = "<input type=file id=input>";
          const send = (onProgress) => (start ?? sendByTus)(input.files[0], "A film", onProgress);
          Object.assign(window, { send, pause, told: 0, why: "" });
        }
        """,
        way,
    )
    page.set_input_files("#input", path)


def test_upload_to_the_storage_itself(reader: Any, server: live.Server) -> None:
    told = reader.evaluate(
        """
        async () => {
          const { sendDirectly } = await import("/direct.js");
          let told;
          const file = new File(["Hello!\\n"], "a.txt", { type: "text/plain" });
          await sendDirectly(file, "A film", (...sizes) => { told = sizes; });
          return told;
        }
        """
    )
    assert told == [7, 7]
    assert record(server, "films/direct")["title"] == "A film"


def test_show_a_picture(reader: Any, server: live.Server) -> None:
    attachment = upload(server, "docs/picture", png(width=6), "a.png")
    assert show(reader, attachment["location"]) == 0
    shown = reader.evaluate(
        """
        async (attachment) => {
          const { show } = await import("/show.js");
          const image = document.body.appendChild(new Image());
          await show(image, attachment);
          await image.decode();
          return image.naturalWidth;
        }
        """,
        attachment,
    )
    assert shown == 6


def test_show_a_picture_by_a_link(reader: Any, server: live.Server) -> None:
    upload(server, "docs/linked", png(width=5), "a.png")
    shown = reader.evaluate(
        """
        async (record) => {
          const { show } = await import("/link.js");
          const image = document.body.appendChild(new Image());
          await show(image, record);
          await image.decode();
          return image.naturalWidth;
        }
        """,
        "/buckets/default/collections/docs/records/linked",
    )
    assert shown == 5


def test_show_a_pdf(reader: Any, server: live.Server) -> None:
    attachment = upload(server, "docs/paper", PDF, "a.pdf")
    reader.evaluate(
        """
        async (attachment) => {
          const { show } = await import("/show.js");
          await show(document.body.appendChild(document.createElement("iframe")), attachment);
        }
        """,
        attachment,
    )
    has_viewer(reader, "blob:")


def test_the_service_worker_shows_pictures(reader: Any, server: live.Server) -> None:
    attachment = upload(server, "docs/worked", png(width=7), "a.png")
    reader.evaluate("import('/register.js')")
    for url in (attachment["location"], attachment["url"]):
        assert show(reader, url) == 7
    # The page's own requests are sent unchanged.
    assert fetch(reader, attachment["url"], headers={"Authorization": "Basic eDp5"})["status"] in (
        403,
        404,
    )
    reader.evaluate("caches.delete('credentials')")
    assert fetch(reader, attachment["url"], cache="no-store")["status"] == 401


def test_the_service_worker_lets_users_seek(reader: Any, server: live.Server) -> None:
    attachment = upload(server, "docs/song", wav(seconds=600), "a.wav")
    reader.evaluate("import('/register.js')")
    seeked = reader.evaluate(
        """
        (url) => new Promise((resolve, reject) => {
          const media = document.body.appendChild(document.createElement("video"));
          media.onerror = () => reject(new Error(media.error.message));
          media.onseeked = () => {
            const { currentTime, readyState, buffered } = media;
            const part = (_, n) => buffered.end(n) - buffered.start(n);
            const seconds = Array.from(Array(buffered.length), part);
            resolve([currentTime, readyState >= 2, seconds.reduce((a, b) => a + b)]);
          };
          media.onloadedmetadata = () => { media.currentTime = 500; };
          media.preload = "metadata";
          media.src = url;
        })
        """,
        attachment["location"],
    )
    position, can_play, loaded = seeked
    assert (position, can_play) == (500, True)
    assert loaded < 300  # Of 600 seconds.


PICTURES = 500
FILLED = f"""
async () => {{
  const {{ fill }} = await import("/gallery.js");
  document.body.style.width = "600px";
  await fill(document.body);
  for (const image of document.images) image.loading = "eager";
  await Promise.all(Array.from(document.images, (image) => image.decode()));
  return document.images.length === {PICTURES};
}}
"""


class Visits:
    """Counts the methods and statuses of requests for pictures."""

    def __init__(self, server: live.Server) -> None:
        self.server = server
        self.before = self._all()

    def next(self, **expected: int) -> None:
        """Compare the requests since the last call."""
        # The server writes its log after it has responded.
        waiting.until(lambda: self._new() == expected, self._new)
        self.before += Counter(expected)

    def _new(self) -> Counter[str]:
        return self._all() - self.before

    def _all(self) -> Counter[str]:
        lines = re.findall(r"^seen (\w+) \S+\.png (\d+)$", self.server.log(), re.M)
        return Counter(f"{method}_{status}" for method, status in lines)


def test_a_gallery_of_private_pictures(
    context: Any, reader: Any, site: Pages, server: live.Server
) -> None:
    fill_collection(server)
    reader.evaluate("import('/register.js')")
    visits = Visits(server)
    assert reader.evaluate(FILLED)
    visits.next(OPTIONS_200=PICTURES, GET_200=PICTURES)
    second = context.new_page()
    second.goto(f"{site.origin}/page.html")
    assert second.evaluate(FILLED)
    visits.next(GET_304=PICTURES)


def test_a_gallery_by_links(reader: Any, server: live.Server) -> None:
    upload(server, "photos/linked", png(width=7, grey=1), "a.png")
    width = reader.evaluate(
        """
        async () => {
          const { fillWithLinks } = await import("/links.js");
          await fillWithLinks(document.body);
          const images = Array.from(document.images);
          images[0].loading = "eager";
          await images[0].decode();
          return images[0].naturalWidth;
        }
        """
    )
    assert width == 7  # The newest one comes first.


def test_a_gallery_of_public_pictures(context: Any, public_server: live.Server) -> None:
    fill_collection(public_server)
    visits = Visits(public_server)
    with serve_pages() as site:
        paste(site, public_server)
        for expected in ({"GET_200": PICTURES}, {}):
            page = context.new_page()
            page.goto(f"{site.origin}/page.html")
            assert page.evaluate(FILLED)
            visits.next(**expected)


def fill_collection(server: live.Server) -> None:
    for number in range(PICTURES):
        upload(server, f"photos/p{number}", png(width=2, grey=number % 256), "a.png")


def test_files_offline(context: Any, reader: Any, site: Pages, server: live.Server) -> None:
    first = upload(server, "offline/one", b"first", "a.txt")
    upload(server, "offline/two", b"first", "b.txt")
    reader.add_script_tag(url="/kinto.js")
    reader.evaluate(
        """
        async (remote) => {
          const { keepFiles, openFile } = await import("/offline.js");
          const headers = { Authorization: `Basic ${btoa("alice:secret")}` };
          const kinto = new Kinto.default({ remote, headers, bucket: "default" });
          const collection = kinto.collection("offline");
          window.sync = async () => {
            const { ok } = await collection.sync();
            const { data } = await collection.list();
            await keepFiles(data);
            return ok && (await (await caches.open("files")).keys()).length;
          };
          window.read = async (id) => {
            const { data } = await collection.get(id);
            return (await openFile(data.attachment))?.text();
          };
        }
        """,
        server.url,
    )
    assert reader.evaluate("sync()") == 1  # Both records have the same content.
    context.set_offline(True)
    assert reader.evaluate("read('two')") == "first"
    assert "Failed to fetch" in fetch(reader, first["location"])
    context.set_offline(False)
    upload(server, "offline/one", b"second", "a.txt")
    assert reader.evaluate("sync()") == 2
    with live.Client(server) as alice:
        alice.request("DELETE", "/buckets/default/collections/offline/records/two")
    assert reader.evaluate("sync()") == 1
    context.set_offline(True)
    assert reader.evaluate("read('one')") == "second"


def test_uploads_again(reader: Any, server: live.Server) -> None:
    statuses = reader.evaluate(
        """
        async () => {
          const { add, replace } = await import("/again.js");
          const id = crypto.randomUUID();
          const file = new File(["Hello!\\n"], "a.txt", { type: "text/plain" });
          const made = await add(file, id);
          const again = await add(file, id).catch((error) => error);
          const old = { id, last_modified: made.lastModified };
          const replaced = await replace(file, old);
          const late = await replace(file, old).catch((error) => error);
          return [made.created, again.status, replaced.created, late.status];
        }
        """
    )
    assert statuses == [True, 412, False, 412]


def test_unfinished_uploads(reader: Any, server: live.Server) -> None:
    before, size, after, cancelled = reader.evaluate(
        """
        async (server) => {
          const { AttachmentClient } = await import("/kinto-attachment.js");
          const { list, goOn, cancelAll } = await import("/unfinished.js");
          const headers = { Authorization: `Basic ${btoa("alice:secret")}` };
          const client = new AttachmentClient(server, { headers, chunkSize: 1000 });
          const record = "/buckets/default/collections/docs/records/unfinished";
          const file = new File([new Uint8Array(3000)], "a.bin", { lastModified: 1 });
          const begin = async () => {
            const controller = new AbortController();
            const { signal } = controller;
            const onProgress = (sent) => sent > 1000 && controller.abort();
            const options = { record, resumable: true, signal, onProgress };
            await client.upload(file, options).catch(() => {});
            return list();
          };
          const before = await begin();
          const { attachment } = await goOn(file);
          const after = await list();
          const again = await begin();
          await cancelAll();
          return [before, attachment.size, after, [again.length, await list()]];
        }
        """,
        server.url,
    )
    assert len(before) == 1
    assert re.fullmatch(r"a.bin: [12]000 of 3000 bytes", before[0])
    assert (size, after, cancelled) == (3000, [], [1, []])
