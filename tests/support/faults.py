"""Broken networks and broken servers, on real sockets."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOST = "127.0.0.1"
PIECE = 64 * 1024


def _close(*sockets: socket.socket, reset: bool = False) -> None:
    for sock in sockets:
        with contextlib.suppress(OSError):
            # Without a shutdown, a thread that reads from the socket would not wake up.
            if reset:  # With a linger of zero, close() sends RST: the peer fails at once.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.shutdown(socket.SHUT_RD)
            else:
                sock.shutdown(socket.SHUT_RDWR)
        sock.close()


class FaultProxy:
    """A TCP proxy to ``upstream`` (host and port) with faults that a test chooses.

    ``work()`` forwards. ``refuse()`` closes the port. ``hang()`` keeps connections open,
    including new ones, and never forwards their data. ``cut(sent=N)`` resets every connection,
    or with ``once`` only the one in use, after N more bytes in total went to the server;
    ``cut(received=N)`` after N more came from it. ``hang`` takes the same two limits. ``corrupt``
    changes bytes on their way to the server. ``slow`` limits the bytes a second to the server on
    each connection. Each applies at once and until the next call.
    """

    def __init__(self, upstream: tuple[str, int] = (HOST, 9)) -> None:
        self.upstream = upstream
        self._lock = threading.RLock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._released = threading.Event()
        self._listener: socket.socket | None = None
        self._limits: dict[str, int] = {}
        self._action = ""
        self._once = False
        self._corruption = (b"", b"")
        self._rate = 0
        self.port = 0
        self.broken = threading.Event()  # Set once a limit was reached.
        self.connections = 0
        self._listen()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def work(self) -> None:
        self._set("", {})

    def refuse(self) -> None:
        self._set("refuse", {})
        with self._lock:
            if self._listener is not None:
                _close(self._listener)
            self._listener = None
        self._drop()

    def hang(self, *, sent: int | None = None, received: int | None = None) -> None:
        self._set("hang", {"sent": sent, "received": received})

    def cut(
        self, *, sent: int | None = None, received: int | None = None, once: bool = False
    ) -> None:
        self._set("cut", {"sent": sent, "received": received}, once)
        if not self._limits:
            self._drop()

    def corrupt(self, original: bytes, replacement: bytes) -> None:
        assert len(original) == len(replacement)
        self._set("", {})
        self._corruption = (original, replacement)

    def slow(self, bytes_per_second: int) -> None:
        """Limit the speed of connections made from now on."""
        self._set("", {})
        self._rate = bytes_per_second
        assert self._listener is not None
        # Else the kernel would take megabytes at once. Accepted sockets inherit this.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)

    def close(self) -> None:
        self.refuse()
        self._released.set()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a connection of the proxy does not end"

    def _set(self, action: str, limits: dict[str, int | None], once: bool = False) -> None:
        with self._lock:
            self._action = action
            self._once = once
            self._corruption = (b"", b"")
            self._rate = 0
            self._limits = {name: value for name, value in limits.items() if value is not None}
            self.broken.clear()
            released, self._released = self._released, threading.Event()
            if self._listener is None and action != "refuse":
                self._listen()
        released.set()

    def _listen(self) -> None:
        self._listener = socket.create_server((HOST, self.port), backlog=64)
        self.port = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def _start(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _drop(self) -> None:
        with self._lock:
            sockets, self._open = self._open, set()
        _close(*sockets, reset=True)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.add(client)
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        if not self._pass("", 0):
            return self._end(client, reset=True)
        try:
            server = socket.create_connection(self.upstream, timeout=60)
        except OSError:
            return self._end(client, reset=True)
        server.settimeout(None)
        with self._lock:
            self._open.add(server)
        self._start(self._pump, "received", server, client)
        return self._pump("sent", client, server)

    def _pump(self, direction: str, source: socket.socket, target: socket.socket) -> None:
        rate = self._rate if direction == "sent" else 0
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                if rate:
                    time.sleep(len(piece) / rate)
                if not self._pass(direction, len(piece)):
                    self._end(source, target, reset=True)
                    return
                if direction == "sent" and self._corruption[0]:
                    piece = piece.replace(*self._corruption)
                target.sendall(piece)
        self._end(source, target)

    def _end(self, *sockets: socket.socket, reset: bool = False) -> None:
        # Only the first thread: after a reset, the connection must not be closed normally.
        with self._lock:
            mine = self._open.intersection(sockets)
            self._open -= mine
        _close(*mine, reset=reset)

    def _pass(self, direction: str, size: int) -> bool:
        """Whether to forward these bytes. What hangs waits for the next call, and then ends."""
        with self._lock:
            action, released = self._action, self._released
            if direction in self._limits:
                self._limits[direction] -= size
            reached = not self._limits or min(self._limits.values()) < 0
            if not action or not reached:
                return True
            self.broken.set()
            if self._once:
                self._action = ""
        if action == "hang":
            released.wait()
        return False


@dataclass
class Answer:
    """The response of :func:`answering` to every request."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that reads each request completely and gives all the same response.

    Yields its URL and a list to which it adds its requests (``"PUT /bucket/key"``).
    """
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do(self) -> None:
            seen.append(f"{self.command} {self.path}")
            self._drain()
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do

        def _drain(self) -> None:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    self.rfile.read(size + 2)
                while self.rfile.readline().strip():  # Trailers.
                    pass
            else:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: object) -> None:
            pass  # Clients are expected to give up.

    with Server((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_address[1]}", seen
        finally:
            server.shutdown()
            thread.join(10)
