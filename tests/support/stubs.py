"""Servers that do what Kinto never does, or that record their requests."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tests.support import waiting
from tests.support.faults import HOST, Answer


@dataclass(frozen=True)
class Request:
    """A request without a body."""

    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Stub:
    url: str
    seen: list[Request] = field(default_factory=list)


@contextlib.contextmanager
def stub(
    answer: Callable[[Request], Answer], context: ssl.SSLContext | None = None
) -> Iterator[Stub]:
    """A server whose responses are created by a function; with a ``context``, it uses HTTPS."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_GET(self) -> None:
            request = Request(self.path, self.headers)
            found.seen.append(request)
            made = answer(request)
            self.send_response(made.status)
            # A response may announce more than it has: then the connection breaks off.
            headers = {"Content-Length": str(len(made.body)), **made.headers}
            self.close_connection = headers["Content-Length"] != str(len(made.body))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(made.body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # Clients are expected to close early.

    with Server((HOST, 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(
                server.socket,
                server_side=True,
                do_handshake_on_connect=False,  # Not in the accepting thread.
            )
        found = Stub(f"http://{HOST}:{server.server_address[1]}/v1")
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join(waiting.SECONDS)


def listing(records: list[dict[str, object]], timestamp: int = 5) -> Answer:
    """The list of a collection's records."""
    return Answer(200, json.dumps({"data": records}).encode(), {"ETag": f'"{timestamp}"'})


def ranges_of(content: bytes) -> Callable[[Request], Answer]:
    """Serve a file, whole or in ranges."""

    def answer(request: Request) -> Answer:
        wanted = request.headers.get("Range")
        if wanted is None:
            return Answer(200, content)
        start, end = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
        part = content[start : end + 1]
        return Answer(206, part, {"Content-Range": f"bytes {start}-{end}/{len(content)}"})

    return answer
