"""Requests over sockets, whose bytes are sent at moments that a test chooses."""

from __future__ import annotations

import contextlib
import socket
from base64 import b64encode
from http.client import HTTPResponse

from tests.support import live, waiting
from tests.support.application import Part, form
from tests.support.faults import HOST

COLLECTION = "/v1/buckets/b/collections/c/records"
RECORD = f"{COLLECTION}/r"
DEFAULT = "/v1/buckets/default/collections/c/records/r"
ALICE = "Authorization: Basic " + b64encode(b"alice:secret").decode()
BOB = "Authorization: Basic " + b64encode(b"bob:secret").decode()
MIB = 1024 * 1024


class Connection:
    """One connection, on which a test controls each byte and when it is sent.

    It is replaced by a new one when the server announces that it closes it.
    """

    def __init__(self, server: live.Server) -> None:
        self.server = server
        self.connect()

    def connect(self) -> None:
        self.socket = socket.create_connection(self.server.address, timeout=waiting.SECONDS)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def head(self, method: str, path: str, *lines: str, user: str | None = ALICE) -> None:
        """Send a request's head."""
        fields = [f"{method} {path} HTTP/1.1", f"Host: {HOST}", *lines]
        self.send("\r\n".join([*fields, *([user] if user else []), "", ""]).encode())

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, method: str = "GET") -> tuple[HTTPResponse, bytes]:
        response = HTTPResponse(self.socket, method=method)
        with contextlib.closing(response):
            response.begin()
            content = response.read()
        if response.will_close:
            self.socket.close()
            self.connect()
        return response, content

    def ask(
        self, method: str, path: str, *lines: str, body: bytes = b"", user: str | None = ALICE
    ) -> tuple[HTTPResponse, bytes]:
        length = [f"Content-Length: {len(body)}"] if body or method in ("POST", "PUT") else []
        self.head(method, path, *length, *lines, user=user)
        self.send(body)
        return self.answer(method)

    def upload(
        self, content: bytes, record: str = RECORD, filename: str = "a.bin", *lines: str
    ) -> tuple[HTTPResponse, bytes]:
        body, content_type = form(Part("attachment", content, filename))
        return self.ask(
            "POST", f"{record}/attachment", f"Content-Type: {content_type}", *lines, body=body
        )


def threads_are_free(server: live.Server) -> bool:
    """Whether the server still answers as many requests at once as it has threads."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(Connection(server)) for _ in range(8)]
        for connection in connections:
            connection.head("GET", "/v1/", user=None)
        return all(connection.answer()[0].status == 200 for connection in connections)
