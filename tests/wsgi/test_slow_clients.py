"""Clients that wait, drip or stop in the middle of an upload do not hold up others."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle, product
from pathlib import Path
from typing import Any

import pytest

from tests.support import live, waiting
from tests.support.application import Part, form
from tests.support.connections import (
    ALICE,
    BOB,
    DEFAULT,
    MIB,
    RECORD,
    Connection,
    threads_are_free,
)
from tests.support.owned import stored_paths

THREADS = 16
TIMEOUT = 3.0  # Seconds: `body_timeout`; the rate is measured over twice the time.
MIN_RATE = 1024
LONG = 120.0  # Seconds: `body_timeout` of a server that refuses, and how long clients drip.
SOON = 50.0  # Seconds: less than that, even if the machine is busy.
URL = f"{RECORD}/attachment?filename=a.bin"
DEFAULT_URL = f"{DEFAULT}/attachment?filename=a.bin"
NEW_URL = f"{RECORD.rpartition('/records/')[0]}/attachments"
LENGTH = f"Content-Length: {MIB}"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture(scope="module", params=["gunicorn", "waitress"])
def engine(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def folder(engine: live.Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(engine)


@contextlib.contextmanager
def serving(engine: live.Engine, folder: Path, **settings: str) -> Iterator[live.Server]:
    settings = {"base_path": str(folder), "max_size": str(16 * MIB), **settings}
    with live.kinto(settings, engine=engine, threads=THREADS) as server:
        with Connection(server) as connection:
            for path in ("/v1/buckets/b", "/v1/buckets/b/collections/c"):
                connection.ask("PUT", path)
            for record in (RECORD, DEFAULT):
                response, _ = connection.upload(b"the old file", record)
                assert response.status == 201
        yield server


@pytest.fixture(scope="module")
def server(engine: live.Engine, folder: Path) -> Iterator[live.Server]:
    """A server with a short timeout."""
    limits = {"body_timeout": f"{TIMEOUT}s", "body_min_rate": str(MIN_RATE)}
    with serving(engine, folder, **limits) as server:
        yield server


@pytest.fixture(scope="module")
def refusing(
    engine: live.Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[live.Server]:
    """A server that waits for bodies for longer than any of these tests takes."""
    limits = {"body_timeout": f"{LONG}s"}
    with serving(engine, tmp_path_factory.mktemp(engine), **limits) as server:
        yield server


# Waitress calls no application before it has the whole body.
AS_IT_COMES = pytest.mark.parametrize("engine", ["gunicorn"], indirect=True)


@contextlib.contextmanager
def dripping(connection: Connection, data: bytes = b"x", every: float = 0.1) -> Iterator[None]:
    """Send a little repeatedly, until the server ends the connection or the block ends."""
    stop = threading.Event()
    target = connection.socket

    def drip() -> None:
        until = time.monotonic() + LONG
        with contextlib.suppress(OSError):
            while time.monotonic() < until and not stop.wait(every):
                target.sendall(data)

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        waiting.join(thread)


def seconds_to(do: Callable[[], Any]) -> float:
    before = time.monotonic()
    do()
    return time.monotonic() - before


def answer_of(connection: Connection) -> tuple[int, dict[str, Any], float]:
    """Status, JSON, and the seconds that it took."""
    before = time.monotonic()
    response, content = connection.answer()
    return response.status, json.loads(content), time.monotonic() - before


def is_closed(target: socket.socket) -> bool:
    """Whether the server sends nothing more, and closes the connection."""
    try:
        return target.recv(1000) == b""
    except ConnectionError:
        return True


# Refusals.

FORM = "Content-Type: multipart/form-data; boundary=b"
REFUSALS = {
    "nobody": (401, "PUT", URL, [LENGTH], None),
    "nobody, form": (401, "POST", URL, [LENGTH, FORM], None),
    "nobody, chunks": (401, "PUT", URL, [CHUNKED], None),
    "nobody, default bucket": (401, "PUT", DEFAULT_URL, [LENGTH], None),
    "nobody, and told to continue": (401, "PUT", URL, [LENGTH, "Expect: 100-continue"], None),
    "nobody, HTTP closes": (401, "PUT", URL, [LENGTH, "Connection: close"], None),
    "a stranger": (403, "PUT", URL, [LENGTH], BOB),
    "unknown bucket": (404, "PUT", URL.replace("/b/", "/ghost/", 1), [LENGTH], ALICE),
    "precondition": (412, "PUT", URL, [LENGTH, 'If-Match: "1"'], ALICE),
    "default bucket": (412, "PUT", DEFAULT_URL, [LENGTH, 'If-Match: "1"'], ALICE),
    "too large": (413, "PUT", URL, [f"Content-Length: {17 * MIB}"], ALICE),
    "no name": (400, "PUT", URL.partition("?")[0], [LENGTH], ALICE),
    "no form": (415, "POST", URL, [LENGTH, "Content-Type: text/plain"], ALICE),
    "new record, nobody": (401, "POST", NEW_URL, [LENGTH, FORM], None),
    "new record, a stranger": (403, "POST", NEW_URL, [CHUNKED, FORM], BOB),
    "encoding": (415, "PUT", URL, [LENGTH, "Content-Encoding: gzip"], ALICE),
    "no such record": (404, "DELETE", URL.replace("/r/", "/ghost/"), [LENGTH], ALICE),
}


@contextlib.contextmanager
def refused(server: live.Server, name: str) -> Iterator[Connection]:
    """A connection whose request is refused, while the server expects more of its body."""
    _, method, path, lines, user = REFUSALS[name]
    with Connection(server) as connection:
        connection.head(method, path, *lines, user=user)
        connection.send(b"100000\r\nx" if CHUNKED in lines else b"x")
        yield connection


@AS_IT_COMES
@pytest.mark.parametrize("name", REFUSALS)
def test_a_client_that_waits_is_refused_at_once(refusing: live.Server, name: str) -> None:
    with refused(refusing, name) as connection:
        status, content, seconds = answer_of(connection)
    assert (status, content["code"]) == (REFUSALS[name][0], REFUSALS[name][0])
    assert seconds < SOON


@AS_IT_COMES
def test_a_client_that_is_redirected_is_not_waited_for(refusing: live.Server) -> None:
    """Kinto redirects a path with a trailing slash before the body is read."""
    with Connection(refusing) as connection:
        connection.head("PUT", f"{RECORD}/attachment/?filename=a.bin", LENGTH, user=None)
        connection.send(b"x")
        started = time.monotonic()
        head = connection.socket.recv(65536)
        assert head.startswith((b"HTTP/1.1 307", b"HTTP/1.0 307")), head
        assert time.monotonic() - started < SOON
        with dripping(connection), contextlib.suppress(OSError):
            while connection.socket.recv(65536):
                pass
        assert time.monotonic() - started < 2 * SOON


@AS_IT_COMES
def test_a_client_that_drips_is_refused_at_once_and_dropped(refusing: live.Server) -> None:
    """All of them run at the same time, because they wait."""

    def drip(name: str) -> tuple[int, float, float]:
        with (
            refused(refusing, name) as connection,
            connection.socket.dup() as target,
            dripping(connection),
        ):
            status, _, seconds = answer_of(connection)
            return status, seconds, seconds_to(lambda: is_closed(target))

    with ThreadPoolExecutor(len(REFUSALS)) as pool:
        jobs = {name: pool.submit(drip, name) for name in REFUSALS}
        for name, job in jobs.items():
            status, seconds, until_closed = job.result(waiting.SECONDS)
            assert status == REFUSALS[name][0], name
            assert seconds < SOON, name
            assert until_closed < SOON, name


@AS_IT_COMES
def test_what_a_refused_client_goes_on_to_send_is_no_request(server: live.Server) -> None:
    request = b"GET /v1/ HTTP/1.1\r\nHost: x\r\n\r\n"

    def send(lines: str, user: str | None) -> tuple[int, bool]:
        with Connection(server) as connection, connection.socket.dup() as target:
            connection.head("PUT", URL, lines, user=user)
            connection.send(b"100000\r\nx" if lines == CHUNKED else b"x")
            status = connection.answer()[0].status
            with dripping(connection, request):
                return status, is_closed(target)

    cases = [*product((LENGTH, CHUNKED), (None, BOB))]
    with ThreadPoolExecutor(len(cases)) as pool:
        jobs = [pool.submit(send, *case) for case in cases]
        for (lines, user), job in zip(cases, jobs, strict=True):
            expected = (403 if user else 401, True)
            assert job.result(waiting.SECONDS) == expected, (lines, user)


def test_requests_behind_a_refused_one_are_answered(server: live.Server) -> None:
    """The body of the refused request has arrived completely."""
    with Connection(server) as connection:
        for length in ("Content-Length: 5", CHUNKED):
            body = b"5\r\nhello\r\n0\r\n\r\n" if length == CHUNKED else b"hello"
            for user, status in ((None, 401), (BOB, 403)):
                head = f"PUT {URL} HTTP/1.1\r\nHost: x\r\n{length}\r\n"
                head += f"{user}\r\n\r\n" if user else "\r\n"
                connection.send(head.encode() + body + b"GET /v1/ HTTP/1.1\r\nHost: x\r\n\r\n")
                with contextlib.closing(connection.socket.makefile("rb")) as answers:
                    assert b" %d " % status in answers.readline()
                    rest = iter(answers.readline, b"HTTP/1.1 200 OK\r\n")
                    assert any(b"errno" in line for line in rest)
                    length_line = next(x for x in answers if x.startswith(b"Content-Length"))
                    next(line for line in answers if line == b"\r\n")
                    assert b"kinto" in answers.read(int(length_line.split()[1])).lower()


class Crowd:
    """Clients that drip into refused uploads, and reconnect as soon as they are dropped."""

    def __init__(self, server: live.Server, size: int, user: str | None) -> None:
        self.server, self.user = server, user
        self.clients = [self.client() for _ in range(size)]
        self.refused = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self) -> Crowd:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        waiting.join(self.thread)
        for client in self.clients:
            client.close()

    def client(self) -> socket.socket:
        connection = Connection(self.server)
        connection.head("PUT", URL, LENGTH, user=self.user)
        return connection.socket

    def run(self) -> None:
        while not self.stop.wait(0.05):
            readable, _, _ = select.select(self.clients, [], [], 0)
            for index, client in enumerate(self.clients):
                try:
                    client.send(b"x")
                    if client not in readable:
                        continue
                    if b" 40" in client.recv(65536):
                        self.refused += 1
                        continue
                except OSError:
                    pass
                client.close()
                self.clients[index] = self.client()


@pytest.mark.parametrize("user", [None, BOB], ids=["nobody", "stranger"])
def test_a_crowd_that_drips_into_refused_uploads_does_not_hold_up_others(
    refusing: live.Server, engine: live.Engine, user: str | None
) -> None:
    with Crowd(refusing, 3 * THREADS, user) as crowd, Connection(refusing) as other:
        if engine == "gunicorn":  # All were refused, and some again.
            waiting.until(lambda: crowd.refused > 2 * len(crowd.clients))
        for _ in range(10):
            seconds = seconds_to(lambda: other.ask("GET", "/v1/"))
            seconds += seconds_to(lambda: other.ask("GET", f"{RECORD}/attachment"))
            assert seconds < SOON


# Uploads that are accepted.


KINDS = ("bytes", "form", "chunks", "default bucket", "new record")


def upload_begins(connection: Connection, kind: str) -> None:
    body, content_type = form(Part("attachment", bytes(2 * MIB), "a.bin"))
    url = DEFAULT_URL if kind == "default bucket" else URL
    if kind in ("form", "new record"):
        length = f"Content-Length: {len(body)}"
        url = URL if kind == "form" else NEW_URL
        connection.head("POST", url, length, f"Content-Type: {content_type}")
    elif kind == "chunks":
        connection.head("PUT", url, CHUNKED)
        body = b"200000\r\n" + bytes(2 * MIB)
    else:
        connection.head("PUT", url, f"Content-Length: {2 * MIB}")
        body = bytes(2 * MIB)
    connection.send(body[:MIB])


@pytest.fixture
def slow_upload(server: live.Server) -> Iterator[Future[int]]:
    """The status of an upload that is fast at first, and then slow.

    So the server requests many bytes at a time.
    """
    piece = bytes(2048)
    slowly = 5 * TIMEOUT  # Seconds: more than two windows.
    size = 3 * MIB // 2 + int(slowly / 0.1) * len(piece)
    record = "/v1/buckets/b/collections/c/records/slow"

    def upload() -> int:
        with Connection(server) as connection:
            path = f"{record}/attachment?filename=a.bin"
            connection.head("PUT", path, f"Content-Length: {size}")
            connection.send(bytes(3 * MIB // 2))
            for _ in range(int(slowly / 0.1)):
                time.sleep(0.1)
                connection.send(piece)
            status = connection.answer()[0].status
            assert connection.ask("DELETE", record)[0].status == 200
            return status

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(upload)


def nothing_has_changed(server: live.Server, folder: Path) -> bool:
    with Connection(server) as connection:
        for record in (RECORD, DEFAULT):
            assert connection.ask("GET", f"{record}/attachment")[1] == b"the old file"
    return len(stored_paths(folder)) == 2


@AS_IT_COMES
def test_uploads_that_stop_or_drip_are_given_up_and_their_threads_are_free(
    server: live.Server, folder: Path, slow_upload: Future[int]
) -> None:
    """Uploads that are slow, but not too slow, succeed meanwhile."""
    with contextlib.ExitStack() as stack:
        stopped, dripped = (
            [stack.enter_context(Connection(server)) for _ in range((THREADS - 1) // 2)]
            for _ in range(2)
        )
        for uploads in (stopped, dripped):
            for connection, kind in zip(uploads, cycle(KINDS), strict=False):
                upload_begins(connection, kind)
        for connection in dripped:
            stack.enter_context(dripping(connection, b"GET / HTTP/1.1\r\n\r\n"))
        for uploads, message in (
            (stopped, "Request body stopped arriving."),
            (dripped, "Request body arrives too slowly."),
        ):
            for connection in uploads:
                with connection.socket.dup() as target:
                    status, content, seconds = answer_of(connection)
                    assert (status, content["errno"], content["message"]) == (408, 107, message)
                    assert seconds < SOON
                    assert is_closed(target)
        assert slow_upload.result(waiting.SECONDS) == 201
        assert threads_are_free(server)
    assert nothing_has_changed(server, folder)


def test_an_upload_may_pause(server: live.Server) -> None:
    record = "/v1/buckets/b/collections/c/records/pause"
    with Connection(server) as connection:
        path = f"{record}/attachment?filename=a.bin"
        connection.head("PUT", path, "Content-Length: 30000")
        for _ in range(3):
            time.sleep(TIMEOUT / 3)
            connection.send(bytes(10000))
        assert connection.answer()[0].status == 201
        assert connection.ask("DELETE", record)[0].status == 200
