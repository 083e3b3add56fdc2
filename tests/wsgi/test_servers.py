"""Uploads and downloads over real sockets, on the servers that people run Kinto on."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from tests.support import ROOT, forking, live, waiting
from tests.support.application import Part, form, sha256
from tests.support.connections import (
    ALICE,
    BOB,
    COLLECTION,
    DEFAULT,
    MIB,
    RECORD,
    Connection,
    threads_are_free,
)
from tests.support.owned import stored_paths

MAX_SIZE = 32 * MIB
CONTENT = bytes(range(256)) * 4096 * 3 + b"the end"


@pytest.fixture(scope="module", params=["gunicorn", "waitress"])
def engine(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def folder(engine: live.Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(engine)


@pytest.fixture(scope="module")
def server(engine: live.Engine, folder: Path) -> Iterator[live.Server]:
    settings = {"base_path": str(folder), "max_size": str(MAX_SIZE)}
    # Each server is started by Python itself, with the server's command.
    with (
        live.kinto(
            settings,
            engine=engine,
            includes=["kinto.plugins.default_bucket", "tests.support.patient_server"],
            environ={"PYTHONPATH": str(ROOT)},
            fork=False,
        ) as server,
        Connection(server) as connection,
    ):
        for path in ("/v1/buckets/b", "/v1/buckets/b/collections/c"):
            body = b'{"permissions": {"read": ["system.Everyone"]}}'
            response, _ = connection.ask("PUT", path, "Content-Type: application/json", body=body)
            assert response.status == 201
        yield server


@pytest.fixture
def connection(server: live.Server) -> Iterator[Connection]:
    with Connection(server) as connection:
        yield connection


@pytest.fixture
def files(folder: Path, connection: Connection) -> Callable[[], list[Path]]:
    """All stored files, including drafts; there are none at first."""

    def listed() -> list[Path]:
        return stored_paths(folder)

    connection.ask("DELETE", COLLECTION)
    connection.ask("DELETE", "/v1/buckets/default/collections/c/records")
    assert not listed()
    return listed


Files = Callable[[], list[Path]]


# Uploads.


@pytest.mark.parametrize("record", [RECORD, DEFAULT], ids=["named", "default"])
def test_a_form_is_stored_and_comes_back(
    connection: Connection, files: Files, record: str
) -> None:
    response, _ = connection.upload(CONTENT, record)
    assert response.status == 201
    [file] = files()
    assert file.read_bytes() == CONTENT
    response, content = connection.ask("GET", f"{record}/attachment")
    assert (response.status, content) == (200, CONTENT)


@pytest.mark.parametrize("record", [RECORD, DEFAULT], ids=["named", "default"])
def test_raw_bytes_are_stored_and_come_back(
    connection: Connection, files: Files, record: str
) -> None:
    response, _ = connection.ask("PUT", f"{record}/attachment?filename=a.bin", body=CONTENT)
    assert response.status == 201
    _, content = connection.ask("GET", f"{record}/attachment")
    assert content == CONTENT


@pytest.mark.parametrize("record", [RECORD, DEFAULT], ids=["named", "default"])
@pytest.mark.parametrize("sizes", [[1] * 100, [65536, 1, 300_000], []], ids=["1", "mix", "none"])
def test_chunks_are_stored_and_come_back(
    connection: Connection, files: Files, record: str, sizes: list[int]
) -> None:
    connection.head("PUT", f"{record}/attachment?filename=a.bin", "Transfer-Encoding: chunked")
    content = b""
    for size in sizes:
        piece = os.urandom(size)
        connection.send(b"%x\r\n%s\r\n" % (size, piece))
        content += piece
    connection.send(b"0\r\n\r\n")
    response, _ = connection.answer()
    assert response.status == 201
    assert connection.ask("GET", f"{record}/attachment")[1] == content


def test_a_client_that_waits_to_be_told_to_continue_is_told(
    connection: Connection, files: Files
) -> None:
    length = f"Content-Length: {len(CONTENT)}"
    path = f"{RECORD}/attachment?filename=a.bin"
    connection.head("PUT", path, length, "Expect: 100-continue")
    told = connection.socket.recv(len(b"HTTP/1.1 100 Continue\r\n\r\n"), socket.MSG_WAITALL)
    assert told.startswith(b"HTTP/1.1 100 ")
    assert told.endswith(b"\r\n\r\n")
    connection.send(CONTENT)
    assert connection.answer()[0].status == 201


def send_half_of_a_form(connection: Connection) -> None:
    body, content_type = form(Part("attachment", CONTENT, "a.bin"))
    fields = [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    connection.head("POST", f"{RECORD}/attachment", *fields)
    connection.send(body[: len(body) // 2])


def send_half_of_the_bytes(connection: Connection) -> None:
    length = f"Content-Length: {len(CONTENT)}"
    connection.head("PUT", f"{RECORD}/attachment?filename=a.bin", length)
    connection.send(CONTENT[: len(CONTENT) // 2])


def send_half_of_the_chunks(connection: Connection) -> None:
    chunked = "Transfer-Encoding: chunked"
    connection.head("PUT", f"{RECORD}/attachment?filename=a.bin", chunked)
    connection.send(b"100000\r\n" + bytes(MIB) + b"\r\n100000\r\n" + bytes(1000))


HALVES = pytest.mark.parametrize(
    "send_half", [send_half_of_a_form, send_half_of_the_bytes, send_half_of_the_chunks]
)


@HALVES
@pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])
def test_a_client_that_goes_away_leaves_nothing_and_loses_nothing(
    server: live.Server,
    connection: Connection,
    files: Files,
    send_half: Callable[[Connection], None],
    reset: bool,
) -> None:
    connection.upload(b"the old file")
    before = files()
    with Connection(server) as leaving:
        send_half(leaving)
        if server_reads_bodies_as_they_come(server):
            waiting.until(lambda: len(files()) == 2)
        if reset:  # With a linger of zero, close() sends RST.
            linger = bytes([1, 0, 0, 0, 0, 0, 0, 0])
            leaving.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    waiting.until(lambda: files() == before)
    assert connection.ask("GET", f"{RECORD}/attachment")[1] == b"the old file"
    assert threads_are_free(server)


@HALVES
def test_a_body_that_is_too_short_is_refused_or_dropped(
    server: live.Server, files: Files, send_half: Callable[[Connection], None]
) -> None:
    with Connection(server) as connection:
        send_half(connection)
        connection.socket.shutdown(socket.SHUT_WR)
        if server_reads_bodies_as_they_come(server):
            response, content = connection.answer()
            assert response.status == 400
            assert b'"errno":107' in content
        else:  # Waitress drops an incomplete request.
            assert connection.socket.recv(1) == b""
    assert not files()


def server_reads_bodies_as_they_come(server: live.Server) -> bool:
    """Waitress does not: it buffers them in its own file until they are complete."""
    return "gunicorn" in server.process.args  # type: ignore[operator]


# Refusals.

REFUSALS = {
    401: ([], None),
    403: ([], BOB),
    412: (['If-Match: "1"'], ALICE),
}


@pytest.mark.parametrize(
    ("status", "record"),
    [(401, RECORD), (403, RECORD), (412, RECORD), (401, DEFAULT), (412, DEFAULT)],
)
def test_a_refusal_reaches_a_client_that_sends_all_before_it_looks(
    server: live.Server, connection: Connection, files: Files, status: int, record: str
) -> None:
    connection.upload(b"the old file", record)
    lines, user = REFUSALS[status]
    with Connection(server) as sending:
        body = bytes(3 * MIB)
        path = f"{record}/attachment?filename=a.bin"
        response, content = sending.ask("PUT", path, *lines, body=body, user=user)
        assert response.status == status
        assert b'"errno":' in content
    assert len(files()) == 1


@pytest.mark.parametrize("status", [*REFUSALS, 413])
def test_a_refusal_reaches_a_client_before_it_has_sent_all(
    server: live.Server, connection: Connection, files: Files, status: int
) -> None:
    connection.upload(b"the old file")
    lines, user = REFUSALS.get(status, ([], ALICE))
    size = MAX_SIZE + 1
    with Connection(server) as sending:
        path = f"{RECORD}/attachment?filename=a.bin"
        sending.head("PUT", path, f"Content-Length: {size}", *lines, user=user)
        sent = send_until_answered(sending, size)
        assert sending.answer()[0].status == status
    if server_reads_bodies_as_they_come(server):
        assert sent < 16 * MIB
    assert len(files()) == 1
    assert threads_are_free(server)


def send_until_answered(connection: Connection, size: int) -> int:
    sent, piece = 0, bytes(64 * 1024)
    while sent < size:
        readable, writable, _ = select.select([connection.socket], [connection.socket], [], 20)
        if readable:
            break
        assert writable, "the server neither reads nor answers"
        sent += connection.socket.send(piece[: size - sent])
    return sent


def test_a_file_that_turns_out_too_large_is_refused_as_soon_as_it_is(
    server: live.Server, files: Files
) -> None:
    with Connection(server) as sending:
        path = f"{RECORD}/attachment?filename=a.bin"
        sending.head("PUT", path, "Transfer-Encoding: chunked")
        with contextlib.suppress(ConnectionError):
            for _ in range(MAX_SIZE // MIB + 2):
                sending.send(b"100000\r\n" + bytes(MIB) + b"\r\n")
            sending.send(b"0\r\n\r\n")
        assert sending.answer()[0].status == 413
    assert not files()


def test_a_connection_stays_usable_after_errors(connection: Connection, files: Files) -> None:
    path = f"{RECORD}/attachment?filename=a.bin"
    form_type = "Content-Type: multipart/form-data; boundary=b"
    for method, target, lines, user, body, status in (
        ("PUT", path, [], None, bytes(MIB // 16), 401),
        ("PUT", path, [], BOB, bytes(MIB), 403),
        ("POST", path, ["Content-Type: text/plain"], ALICE, bytes(MIB), 415),
        ("POST", path, [form_type], ALICE, b"x" * MIB, 400),
        ("PUT", path, ['If-Match: "1"'], ALICE, bytes(MIB), 412),
        ("PUT", f"{RECORD}/attachment", [], ALICE, bytes(MIB), 400),
        ("GET", f"{RECORD}/attachment", [], ALICE, b"", 404),
        ("PUT", path, [], ALICE, CONTENT, 201),
        ("GET", f"{RECORD}/attachment", ["Range: bytes=9999999-"], ALICE, b"", 416),
        ("GET", f"{RECORD}/attachment", ['If-Match: "other"'], ALICE, b"", 412),
        ("HEAD", f"{RECORD}/attachment", [], ALICE, b"", 200),
        ("DELETE", f"{RECORD}/attachment", [], ALICE, b"{}", 204),
    ):
        response, _ = connection.ask(method, target, *lines, body=body, user=user)
        assert response.status == status, (method, target, lines)
        # Waitress closes the connection after a 204, which has no Content-Length.
        assert status < 400 or not response.will_close
    assert connection.ask("GET", "/v1/")[0].status == 200
    assert not files()


# DownloadMode.


def test_a_file_of_any_name_is_handed_over(engine: live.Engine, tmp_path: Path) -> None:
    settings = {
        "base_path": str(tmp_path / "ф"),
        "downloads": "x-sendfile",
        "randomize": "false",
    }
    with live.kinto(settings, engine=engine) as server, Connection(server) as connection:
        for name in ("a.txt", "é.txt", "тест.txt", "日本.txt"):
            path = f"{DEFAULT}/attachment"
            response, _ = connection.ask("PUT", f"{path}?filename={quote(name)}", body=b"x")
            assert response.status in (200, 201)
            response, body = connection.ask("GET", path)
            assert (response.status, body) == (200, b"")
            header = response.headers["X-Sendfile"].encode("latin-1").decode()
            assert header == f"{tmp_path}/ф/{name}"


SIZE = len(CONTENT)
RANGES = [
    (0, 0),
    (0, SIZE - 1),
    (1, 1),
    (SIZE - 1, SIZE - 1),
    (255, 256),
    (65_535, 65_537),
    (256 * 1024 - 1, 256 * 1024),
    (1, SIZE - 2),
    (1_000_000, 2_000_000),
]


@pytest.fixture
def stored(connection: Connection, files: Files) -> str:
    """The path of a file in the server."""
    response, body = connection.upload(CONTENT)
    assert response.status == 201, body
    return f"{RECORD}/attachment"


def test_ranges_are_exact_to_the_byte(connection: Connection, stored: str) -> None:
    for first, last in RANGES:
        response, content = connection.ask("GET", stored, f"Range: bytes={first}-{last}")
        assert response.status == 206
        assert response.headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
        assert content == CONTENT[first : last + 1]
    for last in (1, 2, 65_536, SIZE, SIZE + 1):
        response, content = connection.ask("GET", stored, f"Range: bytes=-{last}")
        assert (response.status, content) == (206, CONTENT[-last:])
    response, content = connection.ask("GET", stored, f"Range: bytes={SIZE - 3}-")
    assert (response.status, content) == (206, b"end")


def test_a_condition_decides_about_a_range(connection: Connection, stored: str) -> None:
    etag = f'"{sha256(CONTENT)}"'
    some = "Range: bytes=0-9"
    assert connection.ask("GET", stored, some, f"If-Range: {etag}")[1] == CONTENT[:10]
    assert connection.ask("GET", stored, some, 'If-Range: "other"')[1] == CONTENT
    response, content = connection.ask("GET", stored, some, f"If-None-Match: {etag}")
    assert (response.status, content) == (304, b"")
    assert connection.ask("GET", stored)[1] == CONTENT


def test_head_says_what_get_would_send(connection: Connection, stored: str) -> None:
    response, content = connection.ask("HEAD", stored)
    assert (response.status, content) == (200, b"")
    assert response.headers["Content-Length"] == str(SIZE)
    assert connection.ask("GET", stored)[1] == CONTENT


def test_an_empty_file_can_be_downloaded(connection: Connection, files: Files) -> None:
    connection.upload(b"")
    response, content = connection.ask("GET", f"{RECORD}/attachment")
    assert (response.status, response.headers["Content-Length"], content) == (200, "0", b"")
    assert connection.ask("GET", "/v1/")[0].status == 200


@pytest.mark.parametrize(
    ("filename", "content"),
    [
        ("page.html", b"<script>alert(1)</script>"),
        ("image.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>x()</script></svg>"),
        ("page.xhtml", b"<html xmlns='http://www.w3.org/1999/xhtml'></html>"),
    ],
)
def test_content_that_could_run_is_not_shown_in_place(
    connection: Connection, files: Files, filename: str, content: bytes
) -> None:
    connection.upload(content, RECORD, filename)
    response, _ = connection.ask("GET", f"{RECORD}/attachment")
    assert response.headers["Content-Disposition"].startswith("attachment")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response.headers["Content-Security-Policy"]


def test_clients_that_stop_downloading_cost_nothing(
    server: live.Server, folder: Path, connection: Connection, files: Files
) -> None:
    path = f"{RECORD}/attachment"
    connection.ask("PUT", f"{path}?filename=a.bin", body=bytes(16 * MIB))
    for _ in range(20):
        with Connection(server) as leaving:
            leaving.head("GET", path)
            assert leaving.socket.recv(1000)
    assert threads_are_free(server)
    waiting.until(lambda: not open_files(server, folder))


def open_files(server: live.Server, folder: Path) -> list[str]:
    paths = [file.path for worker in server.workers() for file in worker.open_files()]
    return [path for path in paths if path.startswith(str(folder))]


def test_slow_downloads_hold_no_thread_of_others(
    server: live.Server, connection: Connection, stored: str
) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            slow = stack.enter_context(Connection(server))
            slow.head("GET", stored)
            assert slow.socket.recv(10)
        assert connection.ask("GET", "/v1/")[0].status == 200
        assert connection.ask("GET", stored)[1] == CONTENT


def test_a_server_ends_when_the_run_of_the_tests_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from tests.support import live\n"
        "with live.kinto({'base_path': sys.argv[1]}) as server:\n"
        "    print(server.process.pid, flush=True); sys.stdin.read()"
    )
    with forking.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        server = psutil.Process(int(waiting.line_of(run)))
        run.kill()
    _, alive = psutil.wait_procs([server], timeout=90)
    for process in alive:
        process.kill()
    assert not alive
