"""A storage that does not answer causes a 503 in time for every request; a slow one does not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from urllib3.connection import HTTPConnection

from tests.support import live, waiting
from tests.support.application import (
    ALICE,
    CONTENT,
    MEMORY,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    make_app,
    put,
    put_collection,
    put_raw,
    read,
    write_behind,
)
from tests.support.faults import HOST, FaultProxy
from tests.support.objects import impatient
from tests.support.sampling import every_case
from tests.support.services import S3, GoogleEmulator

URL = f"{RECORD}/attachment"
MIB = 1024 * 1024
LARGE = bytes(9 * MIB)  # Two parts.
TIMEOUT = 0.4  # Seconds, for storages that are not expected to answer.
PATIENT = 20  # Seconds, for the others: a busy machine may itself be silent for moments.
AUTH = ("alice", "secret")
BUSY = 10  # Seconds for a busy machine.

Broken = tuple[Any, FaultProxy]
Build = Callable[..., Broken]


@pytest.fixture(params=["seaweedfs", "gcs"])
def build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    """``build(timeout)`` is a server with its storage behind a proxy, and the proxy."""
    service: S3 | GoogleEmulator = request.getfixturevalue(request.param)
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(FaultProxy(service.address))
        storage = service.options(service.create_bucket())

        def builder(timeout: float = PATIENT, **options: str) -> Broken:
            if isinstance(service, S3):
                options = {"aws.endpoint_url": proxy.url, "aws.timeout": str(timeout), **options}
                options.setdefault("aws.num_retries", "2")
            else:
                monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
                options = {"gcloud.timeout": str(timeout), **options}
            app = make_app({**storage, "downloads": "proxy", **options}, MEMORY)
            stack.callback(app.app.registry.attachment_storages.default.files.close)
            put_collection(app)
            return app, proxy

        yield builder


def without_patience(
    app: Any, seconds: float = TIMEOUT
) -> contextlib.AbstractContextManager[None]:
    return impatient(app.app.registry.attachment_storages.default.files, seconds, last_try=TIMEOUT)


def unavailable(response: Any) -> None:
    assert response.json["errno"] == 201
    assert int(response.headers["Retry-After"]) > 0


class TestSilence:
    """With a small timeout, so that tests take moments instead of half a minute."""

    def test_after_the_connection(self, build: Build) -> None:
        app, proxy = build()
        attachment = attach(app).json
        proxy.hang()
        with without_patience(app):
            unavailable(attach(app, content=b"new", status=503))
            unavailable(attach(app, OTHER, content=LARGE, status=503))
            unavailable(app.get(URL, headers=ALICE, status=503))
        proxy.work()
        assert attachment_of(app) == attachment
        assert read(app) == CONTENT
        app.get(OTHER, headers=ALICE, status=404)

    def test_in_the_middle_of_an_upload(self, build: Build) -> None:
        app, proxy = build()
        put_raw(app, content=b"old")
        for sent in (MIB, 8 * MIB + 100_000):
            proxy.hang(sent=sent)
            with without_patience(app, 2):  # Part of it succeeds.
                unavailable(put_raw(app, content=LARGE, status=503))
            assert proxy.broken.is_set()
            proxy.work()
            assert read(app) == b"old"
        put_raw(app, content=LARGE)
        assert read(app) == LARGE

    def test_before_the_first_byte_of_a_download(self, build: Build) -> None:
        app, proxy = build()
        attach(app)
        proxy.hang(received=0)
        with without_patience(app):
            unavailable(app.get(URL, headers=ALICE, status=503))
        proxy.work()
        assert read(app) == CONTENT

    def test_where_a_file_is_deleted(self, build: Build) -> None:
        """The record has released the file, so the request succeeds; gc does the rest."""
        app, proxy = build()
        attach(app)
        proxy.hang()
        with without_patience(app):
            started = time.monotonic()
            app.delete(URL, headers=ALICE, status=204)
            assert time.monotonic() - started < PATIENT
        assert attachment_of(app) is None


class TestSlowness:
    def test_is_no_silence(self, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
        """A part may take longer than any timeout, as long as bytes are sent."""
        # Otherwise the kernel would take half of the part at once.
        small = (socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        options = [*HTTPConnection.default_socket_options, small]
        monkeypatch.setattr(HTTPConnection, "default_socket_options", options)
        app, proxy = build(timeout=2)
        proxy.slow(3 * MIB)
        started = time.monotonic()
        put_raw(app, content=LARGE)
        assert time.monotonic() - started > 2
        proxy.work()
        assert read(app) == LARGE


class SilentDownloads(BaseHTTPRequestHandler):
    """An S3 server that accepts everything, and returns headers but no content."""

    protocol_version = "HTTP/1.1"
    released = threading.Event()

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = self.command in ("GET", "HEAD")
        self.send_response(200)
        self.send_header("ETag", '"0"')
        self.send_header("Last-Modified", "Sat, 01 Nov 2025 00:00:00 GMT")
        self.send_header("Content-Length", "100000" if content else "0")
        self.end_headers()
        if self.command == "GET":
            self.released.wait(waiting.SECONDS)
            self.close_connection = True

    def do_PUT(self) -> None:
        self.answer()

    do_GET = do_HEAD = do_DELETE = do_PUT

    def log_message(self, *_: object) -> None:
        pass


def test_headers_without_content_are_an_outage_too() -> None:
    with ThreadingHTTPServer((HOST, 0), SilentDownloads) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        storage = S3(f"http://{HOST}:{server.server_address[1]}", "key", "secret")
        options = {**storage.options("b"), "downloads": "proxy", "aws.timeout": str(TIMEOUT)}
        app = make_app({**options, "base_url": "https://cdn.example.com/"}, MEMORY)
        put_collection(app)
        attachment = {
            "filename": "a.txt",
            "hash": "0" * 64,
            "location": "https://cdn.example.com/a.txt",
            "mimetype": "text/plain",
            "size": 100_000,
        }
        put(app, RECORD)
        write_behind(app, RECORD, {"attachment": attachment})
        unavailable(app.get(URL, headers=ALICE, status=503))
        SilentDownloads.released.set()
        app.app.registry.attachment_storages.default.files.close()
        server.shutdown()


# All requests wait at the same time. With the default settings, some take 25 seconds; a sample of
# the tests waits for a twentieth of that.

SETTINGS = {"resources.default.named.randomize": "false"}


def ask(server: live.Server, method: str, path: str, **kwargs: Any) -> tuple[Any, float]:
    """The response, and how long it took."""
    started = time.monotonic()
    answer = requests.request(method, f"{server.url}{path}", auth=AUTH, timeout=60, **kwargs)
    return answer, time.monotonic() - started


def test_a_storage_that_hangs_is_told_within_thirty_seconds(
    seaweedfs: S3, gcs: GoogleEmulator
) -> None:
    records = "/buckets/default/collections/c/records"
    new = {"params": {"filename": "a.txt"}, "data": b"new"}
    large = {"params": {"filename": "a.txt"}, "data": LARGE}
    with contextlib.ExitStack() as stack:
        asked = []
        proxies, servers = [], []
        pool = stack.enter_context(ThreadPoolExecutor(32))
        for service in (seaweedfs, gcs):
            proxy = stack.enter_context(FaultProxy(service.address))
            options = service.options(service.create_bucket())
            if not every_case():
                options["aws.timeout" if isinstance(service, S3) else "gcloud.timeout"] = "0.5"
            environ = {"STORAGE_EMULATOR_HOST": proxy.url}
            if isinstance(service, S3):
                options["aws.endpoint_url"] = proxy.url
            server = stack.enter_context(
                live.kinto({**options, **SETTINGS}, threads=16, environ=environ)
            )
            proxies.append(proxy)
            servers.append(server)
            for name in "abcdefghij":
                answer, _ = ask(server, "PUT", f"{records}/{name}/attachment", **new)
                assert answer.status_code == 201
            location = answer.json()["location"].removeprefix(server.url)
            proxy.hang()
            batch = [{"method": "DELETE", "path": f"/v1{records}/{x}/attachment"} for x in "efghi"]
            for expected, method, path, kwargs in (
                (503, "PUT", f"{records}/new/attachment", new),
                (503, "PUT", f"{records}/large/attachment", large),
                (503, "PUT", f"{records}/a/attachment", large),
                (503, "PUT", "/buckets/default/collections/named/records/a/attachment", new),
                (503, "GET", f"{records}/b/attachment", {}),
                (503, "HEAD", f"{records}/b/attachment", {}),
                (503, "GET", location, {}),
                (204, "DELETE", f"{records}/c/attachment", {}),
                (200, "DELETE", f"{records}/d", {}),
                (200, "POST", "/batch", {"json": {"requests": batch}}),
            ):
                job = pool.submit(ask, server, method, path, **kwargs)
                asked.append((expected, f"{method} {path}", job))
        for expected, told, job in asked:
            answer, seconds = job.result(waiting.SECONDS)
            assert answer.status_code == expected, (told, answer.text)
            assert seconds < 30 + BUSY, told
            if expected == 503:
                assert int(answer.headers["Retry-After"]) > 0, told
        for proxy, server in zip(proxies, servers, strict=True):
            proxy.work()
            for _ in range(20):  # More than the threads.
                assert ask(server, "GET", f"{records}/b/attachment")[0].content == b"new"
