"""An HTTP client with so little overhead that the server is what is timed."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.faults import HOST

AUTHORIZATION = "Basic " + base64.b64encode(b"bench:bench").decode()
KEPT = 1 << 20  # Longer bodies are counted and dropped.
CHUNK = 1 << 20
TIMEOUT = 300.0
STEPS = 10


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    size: int
    body: bytes  # Empty when the body is longer than ``KEPT``.

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Slice:
    """A part of a file."""

    path: Path
    start: int
    size: int


class BadAnswer(Exception):
    """The server's answer is not the one that the benchmark expects."""


class Client:
    """One connection, kept open between requests as long as the server allows it.

    Files are sent by ``sendfile``, and long answers are dropped inside the kernel. The bytes of
    a file do not pass through this process.
    """

    def __init__(self, port: int, *, authorization: str = AUTHORIZATION) -> None:
        self._port = port
        self._credentials = {"Authorization": authorization} if authorization else {}
        self._connect()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def expect(self, statuses: int | tuple[int, ...], *request: Any, **options: Any) -> Answer:
        """Return the answer to a request. Raise ``BadAnswer`` if it has another status."""
        answer = self.request(*request, **options)
        if answer.status not in (statuses if isinstance(statuses, tuple) else (statuses,)):
            raise BadAnswer(f"{request[:2]}: {answer.status} {answer.body[:300]!r}")
        return answer

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Path | Slice = b"",
        seconds: float = 0.0,
    ) -> Answer:
        """``seconds`` is the time that a small body takes to arrive, as over a slow network."""
        if isinstance(body, Path):
            body = Slice(body, 0, body.stat().st_size)
        size = len(body) if isinstance(body, bytes) else body.size
        lines = {"Host": HOST, **self._credentials, "Content-Length": str(size)}
        fields = "".join(f"{k}: {v}\r\n" for k, v in {**lines, **(headers or {})}.items())
        head = f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode()
        if self._closed:
            self._socket.close()
            self._connect()
        if isinstance(body, bytes) and seconds:
            self._send_slowly(head, body, seconds)
        elif isinstance(body, bytes):
            self._socket.sendall(head + body)
        else:
            self._socket.sendall(head)
            with body.path.open("rb", buffering=0) as file:
                if body.size:
                    self._socket.sendfile(file, body.start, body.size)
        return self._answer(bodiless=method == "HEAD")

    def _connect(self) -> None:
        self._closed = False
        self._socket = socket.create_connection((HOST, self._port), TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _send_slowly(self, head: bytes, body: bytes, seconds: float) -> None:
        self._socket.sendall(head)
        step = -(-len(body) // STEPS)
        for start in range(0, len(body), step):
            time.sleep(seconds / STEPS)
            self._socket.sendall(body[start : start + step])

    def _answer(self, *, bodiless: bool) -> Answer:
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        status = int(status_line.split()[1])
        fields = (line.split(":", 1) for line in lines)
        headers = {name.lower(): value.strip() for name, value in fields}
        self._closed = headers.get("connection", "").lower() == "close"
        if bodiless or status in (204, 304):
            return Answer(status, headers, 0, b"")
        if "content-length" not in headers:
            raise BadAnswer(f"no Content-Length in {headers}")
        size = int(headers["content-length"])
        if size > KEPT:
            self._drop(size - len(body))
            return Answer(status, headers, size, b"")
        while len(body) < size:
            body += self._receive(size - len(body))
        return Answer(status, headers, size, body)

    def _receive(self, size: int) -> bytes:
        data = self._socket.recv(size)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data

    def _drop(self, size: int) -> None:
        buffer = bytearray(CHUNK)
        while size > 0:
            # On TCP the flag discards the bytes without copying them (tcp(7)).
            count = self._socket.recv_into(buffer, min(size, CHUNK), socket.MSG_TRUNC)
            if not count:
                raise ConnectionError("the server closed the connection")
            size -= count
