"""Large uploads from a page of another origin in Chromium continue where they broke off."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import live, waiting
from tests.support.application import ALICE
from tests.support.browser import fetch, until
from tests.support.faults import FaultProxy
from tests.support.interruptions import broken_half_way
from tests.support.resuming import COLLECTION, MIB, STORAGES, two_workers, write_film

SIZE = 200 * MIB
CHUNK = 16 * MIB
TITLE = "Ein Füm"

# The ways of the module: HTTP's draft, tus if there are attributes, tus-js-client. The last one is
# tus-js-client without the module, as in its own documentation.
WAYS = ["draft", "tus", "module with tus-js-client", "tus-js-client"]

PREPARE = """
async ([server, headers, record, way]) => {
  const { AttachmentClient } = await import("/kinto-attachment.js");
  const data = way === "draft" ? undefined : { title: "Ein Füm" };
  window.before = async () => {}; // Each request.
  window.told = [];
  const onProgress = (sent) => told.push(sent);
  const fresh = async () => (await before(), headers);
  const client = (options) => new AttachmentClient(server, {
    headers: fresh, retries: 8, pause: 0.1, ...options,
    tus: way === "module with tus-js-client" ? tus : undefined,
  });
  const byModule = async (file, { chunkSize, ...options } = {}) =>
    (await client({ chunkSize }).upload(file, { record, data, onProgress, ...options })).created;
  const byTus = async (file, { chunkSize = Infinity } = {}) => new Promise((resolve, reject) => {
    const upload = new tus.Upload(file, {
      endpoint: `${server}${record}/attachment/uploads`,
      headers, chunkSize, onProgress,
      metadata: { filename: file.name, filetype: file.type, data: JSON.stringify(data) },
      retryDelays: Array(8).fill(200),
      removeFingerprintOnSuccess: true,
      onBeforeRequest: () => before(),
      onError: reject,
      onSuccess: () => resolve(true),
    });
    upload.findPreviousUploads().then(([previous]) => {
      if (previous) upload.resumeFromPreviousUpload(previous);
      upload.start();
    });
  });
  window.send = way === "tus-js-client" ? byTus : byModule;
}
"""


@pytest.fixture(scope="module", params=STORAGES)
def workers(request: pytest.FixtureRequest) -> Iterator[live.Server]:
    with two_workers(request) as server:
        yield server


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.bin", SIZE)


class Requests:
    """The requests of a page: methods, and the offsets of chunks."""

    def __init__(self, page: Any) -> None:
        self.seen: list[str] = []
        page.on("request", self._add)

    def _add(self, request: Any) -> None:
        if "/attachment" in request.url:
            offset = request.headers.get("upload-offset")
            self.seen.append(request.method if offset is None else f"{request.method} {offset}")

    def offsets(self) -> list[int]:
        return [int(each[6:]) for each in self.seen if each.startswith("PATCH")]

    def creations(self) -> int:
        return self.seen.count("POST") + self.seen.count("PUT")


def prepare(page: Any, url: str, record: str, way: str, film: Path) -> None:
    """Load the page's scripts, and choose the file as a user does."""
    page.add_script_tag(url="/tus.js")
    page.evaluate(PREPARE, [f"{url}/v1", ALICE, f"{COLLECTION}/records/{record}", way])
    page.evaluate("document.body.innerHTML = '<input type=file id=input>'")
    page.set_input_files("#input", film)


def is_there(server: live.Server, record: str, film: Path, way: str) -> None:
    with live.Client(server) as alice:
        data = alice.request("GET", f"{COLLECTION}/records/{record}")[2]["data"]
        stored = alice.request("GET", f"{COLLECTION}/records/{record}/attachment")[2]
    expected = hashlib.sha256(film.read_bytes()).hexdigest()
    assert data["attachment"]["hash"] == expected
    assert hashlib.sha256(stored).hexdigest() == expected
    assert data["attachment"]["filename"] == film.name
    assert data.get("title") == (None if way == "draft" else TITLE)


@pytest.mark.parametrize("how", ["connection", "worker"])
@pytest.mark.parametrize("way", WAYS)
def test_goes_on_after_a_break(
    page: Any, workers: live.Server, film: Path, way: str, how: str
) -> None:
    page.context.set_default_timeout(120_000)
    requests = Requests(page)
    record = f"{how}-{way.replace(' ', '-')}"
    with broken_half_way(workers, how, SIZE) as proxy:
        prepare(page, proxy.url, record, way, film)
        created = page.evaluate("send(input.files[0])")
    assert created is True
    is_there(workers, record, film, way)
    assert requests.creations() == 1, "it did not begin again"
    assert sum(offset == 0 for offset in requests.offsets()) == 1
    assert page.evaluate("told.at(-1)") == SIZE
    assert page.evaluate("localStorage.length") == 0


@pytest.mark.parametrize("way", WAYS)
def test_goes_on_after_a_reload(page: Any, workers: live.Server, film: Path, way: str) -> None:
    page.context.set_default_timeout(120_000)
    record = f"reload-{way.replace(' ', '-')}"
    with FaultProxy(workers.address) as proxy:
        prepare(page, proxy.url, record, way, film)
        proxy.hang(sent=SIZE // 2)
        page.evaluate("send(input.files[0]).catch(() => {}), null")
        assert proxy.broken.wait(waiting.SECONDS)
        page.reload()
        proxy.work()
        requests = Requests(page)
        prepare(page, proxy.url, record, way, film)
        page.evaluate("send(input.files[0])")
    is_there(workers, record, film, way)
    assert requests.creations() == 0
    # A whole file in one request is committed from time to time.
    assert requests.offsets()[0] >= SIZE // 2 - 3 * CHUNK
    assert page.evaluate("localStorage.length") == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_lost_last_answer_uploads_nothing_again(
    page: Any, workers: live.Server, tmp_path: Path, way: str
) -> None:
    record = f"lost-{way.replace(' ', '-')}"
    small = tmp_path / "small.bin"
    small.write_bytes(bytes(1000))
    requests = Requests(page)
    with FaultProxy(workers.address) as proxy:
        page.expose_function("lose", lambda: proxy.cut(received=0, once=True))
        prepare(page, proxy.url, record, way, small)
        # Before the third of three chunks, when all preflights have been answered.
        page.evaluate(
            """
            () => {
              let lost = false;
              window.before = async () => {
                if (told.at(-1) !== 800 || lost) return;
                lost = true;
                await lose();
              };
              return send(input.files[0], { chunkSize: 400, resumable: true });
            }
            """
        )
        assert proxy.broken.is_set()
    is_there(workers, record, small, way)
    assert requests.creations() == 1
    assert requests.offsets()[:3] == [0, 400, 800]
    assert requests.offsets()[3:] in ([], [1000])


@pytest.mark.parametrize("way", WAYS[:3])
def test_pauses(page: Any, workers: live.Server, film: Path, way: str) -> None:
    record = f"pause-{way.replace(' ', '-')}"
    prepare(page, workers.url.removesuffix("/v1"), record, way, film)
    requests = Requests(page)
    page.evaluate(
        """
        () => {
          const controller = new AbortController();
          window.before = async () => told.at(-1) > 50_000_000 && controller.abort();
          send(input.files[0], { signal: controller.signal })
            .catch((error) => { window.failure = error.name; });
        }
        """
    )
    until(page, "window.failure === 'AbortError'")
    page.evaluate("() => { told.length = 0; before = async () => {}; }")
    assert requests.creations() == 1
    page.evaluate("send(input.files[0])")
    is_there(workers, record, film, way)
    assert requests.creations() == 1
    assert page.evaluate("told[0]") > 50_000_000


OF_TUS = {
    "Tus-Resumable": "1.0.0",
    "Upload-Length": "3",
    "Upload-Metadata": "filename YS5iaW4=",
    "Upload-Checksum": "sha256 ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
    "Repr-Digest": "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:",
}
OF_DRAFT = {
    "Upload-Draft-Interop-Version": "8",
    "Upload-Complete": "?0",
    "Upload-Length": "3",
    "Content-Digest": "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:",
    "Content-Type": "text/plain",
}


def test_preflights_let_all_headers_pass(page: Any, workers: live.Server) -> None:
    record = f"{workers.url}{COLLECTION}/records/preflights/attachment"
    whole = {
        **OF_TUS,
        **ALICE,
        "If-None-Match": "*",
        "Content-Type": "application/offset+octet-stream",
    }
    made = fetch(page, f"{record}/uploads", method="POST", headers=whole, body="abc")
    assert made["status"] == 201, made
    assert made["headers"]["upload-offset"] == "3"
    location = f"{workers.url}{made['headers']['location'].partition('/v1')[2]}"
    told = fetch(page, location, method="HEAD", headers={**ALICE, "Tus-Resumable": "1.0.0"})
    assert (told["status"], told["headers"]["upload-length"]) == (200, "3")
    gone = fetch(page, location, method="DELETE", headers={**ALICE, "Tus-Resumable": "1.0.0"})
    assert gone["status"] == 204

    begun = fetch(
        page,
        f"{record}?filename=a.bin",
        method="PUT",
        headers={**OF_DRAFT, **ALICE, "If-Match": "*"},
    )
    assert begun["status"] == 201, begun
    assert begun["headers"]["upload-complete"] == "?0"
    location = f"{workers.url}{begun['headers']['location'].partition('/v1')[2]}"
    rest = {
        **OF_DRAFT,
        **ALICE,
        "Content-Type": "application/partial-upload",
        "Upload-Offset": "0",
        "Upload-Complete": "?1",
    }
    done = fetch(page, location, method="PATCH", headers=rest, body="abc")
    assert done["status"] == 200, done
    assert done["headers"]["etag"]
    assert done["headers"]["content-location"].endswith("/records/preflights/attachment")
