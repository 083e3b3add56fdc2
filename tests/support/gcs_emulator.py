"""The emulator of Google Cloud Storage, made stricter: it has to enforce what we rely on.

The package's emulator ignores ``ifGenerationMatch``, serves one connection at a time (so a slow
client blocks it), returns lists in one page, satisfies every range and forgets nothing. It parses
an upload like an e-mail, which takes ten times as long as everything else. This one refuses to
overwrite, uses threads, pages and 416, and grants tokens to any service account.

``python -m tests.support.gcs_emulator PORT``
"""

from __future__ import annotations

import functools
import io
import json
import sys
import threading
from email import message_from_bytes
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gcp_storage_emulator import server as package
from gcp_storage_emulator.server import RequestHandler, Router
from gcp_storage_emulator.storage import Storage

PAGE = 1000


class PreconditionFailed(Exception):
    pass


class StrictStorage(Storage):
    """Files in memory that are not overwritten if the request forbids it."""

    conditions = threading.local()

    def create_file(self, bucket_name: str, file_name: str, *args: Any, **kwargs: Any) -> None:
        must_be_new = getattr(self.conditions, "generation", None) == "0"
        if must_be_new and file_name in self.objects.get(bucket_name, {}):
            raise PreconditionFailed
        super().create_file(bucket_name, file_name, *args, **kwargs)

    def _write_config_to_file(self) -> None:
        pass  # It would write everything at every change.

    def _bucket_soft_delete_retention_seconds(self, bucket_name: str) -> int:
        return 0


class Handler(RequestHandler):
    lock = threading.Lock()

    def do(self) -> None:
        query = {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        if len(body) < size:  # The client has disconnected.
            return
        connection = self.rfile, self.wfile
        # Requests are read and answered concurrently, and processed one after the other.
        self.rfile, self.wfile = io.BytesIO(body), io.BytesIO()
        try:
            with self.lock:
                self.storage.conditions.generation = query.get("ifGenerationMatch")
                self.handle_request(query)
            answer = self.wfile.getvalue()
        finally:
            self.rfile, self.wfile = connection
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do

    def handle_request(self, query: dict[str, str]) -> None:
        path = urlsplit(self.path).path
        if path == "/token":
            return self.answer(
                200, {"access_token": "token", "expires_in": 3600, "token_type": "Bearer"}
            )
        try:
            Router(self).handle(self.command)
        except PreconditionFailed:
            message = "At least one of the pre-conditions you specified did not hold."
            self.wfile = io.BytesIO()
            return self.answer(412, {"error": {"code": 412, "message": message}})
        if self.command == "GET" and path.endswith("/o"):
            self.page(query)
        status, _, rest = self.wfile.getvalue().partition(b"\r\n")
        if b" 206 " in status and rest.endswith(b"\r\n\r\n"):
            self.wfile = io.BytesIO()
            self.answer(416, {"error": {"code": 416, "message": "The range is past the end."}})
        return None

    def page(self, query: dict[str, str]) -> None:
        head, _, body = self.wfile.getvalue().partition(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            return
        listing = json.loads(body)
        start = int(query.get("pageToken", 0))
        following = start + min(PAGE, int(query.get("maxResults", PAGE)))
        if following < len(listing["items"]):
            listing["nextPageToken"] = str(following)
        listing["items"] = listing["items"][start:following]
        self.wfile = io.BytesIO()
        self.answer(200, listing)

    def answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


read_other_data = package._read_data


def read_data(handler: Handler, query: dict[str, list[str]]) -> Any:
    """The body of a request, or the two parts of an upload's body: JSON and content."""
    if handler.headers.get_content_type() != "multipart/related":
        return read_other_data(handler, query)
    boundary = handler.headers.get_boundary()
    assert boundary is not None
    edge = f"\r\n--{boundary}".encode()
    body = b"\r\n" + package._decode_raw_data(package._read_raw_data(handler), handler)
    second = body.index(edge, len(edge))
    _, _, meta = body[:second].partition(b"\r\n\r\n")
    start = body.index(b"\r\n\r\n", second) + 4
    headers = message_from_bytes(body[second + len(edge) + 2 : start])
    return {
        "meta": json.loads(meta),
        "content": body[start : body.rindex(edge)],
        "content-type": headers.get_content_type(),
    }


class Server(ThreadingHTTPServer):
    request_queue_size = 64


def main(port: int) -> None:
    package._read_data = read_data
    storage = StrictStorage(use_memory_fs=True)
    with Server(("127.0.0.1", port), functools.partial(Handler, storage)) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
