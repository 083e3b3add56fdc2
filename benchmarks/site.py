"""A collection on a server, and requests for the records in it."""

from __future__ import annotations

import base64
import statistics
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.bodies import Body, Payload
from benchmarks.client import Client, Slice
from benchmarks.servers import Kinto

BUCKET, COLLECTION = "/buckets/bench", "/buckets/bench/collections/files"
STORED = (200, 201)
TUS = {"Tus-Resumable": "1.0.0"}


@dataclass(frozen=True)
class Site:
    """A server with a collection to upload to."""

    server: Kinto
    bucket: str = BUCKET
    collection: str = COLLECTION

    def create(self) -> Site:
        with self.server.client() as client:
            client.expect(STORED, "PUT", f"/v1{self.bucket}")
            client.expect(STORED, "PUT", f"/v1{self.collection}")
        return self

    def record(self) -> str:
        """The path of a record that does not exist yet."""
        return f"/v1{self.collection}/records/{uuid.uuid4()}"

    def upload(self, client: Client, body: Body, record: str) -> None:
        target = f"{record}/attachment"
        client.expect(STORED, body.method, target, body.headers, body.content)

    def uploaded(self, body: Body) -> str:
        """Upload the file to a new record, and return the record's path."""
        record = self.record()
        with self.server.client() as client:
            self.upload(client, body, record)
        return record

    def location(self, record: str) -> str:
        """The path in the record's ``location``."""
        with self.server.client() as client:
            attachment = client.expect(200, "GET", record).json()["data"]["attachment"]
        return str(urlsplit(attachment["location"]).path)

    # The timed operations. Each method returns seconds.

    def time_large(self, body: Body) -> float:
        """One upload. The file is removed afterwards."""
        record = self.record()
        with self.server.client() as client:
            started = time.perf_counter()
            self.upload(client, body, record)
            elapsed = time.perf_counter() - started
            client.expect((200, 204), "DELETE", f"{record}/attachment")
        return elapsed

    def time_in_chunks(self, payload: Payload, size: int) -> float:
        """One upload by tus, in chunks of ``size`` bytes. The file is removed afterwards."""
        record = self.record()
        name = base64.b64encode(b"picture.jpg").decode()
        created = {"Upload-Length": str(payload.size), "Upload-Metadata": f"filename {name}"}
        chunk = {**TUS, "Content-Type": "application/offset+octet-stream"}
        with self.server.client() as client:
            started = time.perf_counter()
            answer = client.expect(201, "POST", f"{record}/attachment/uploads", {**TUS, **created})
            upload = str(urlsplit(answer.headers["location"]).path)
            for start in range(0, payload.size, size):
                part = Slice(payload.file, start, min(size, payload.size - start))
                client.expect(204, "PATCH", upload, {**chunk, "Upload-Offset": str(start)}, part)
            elapsed = time.perf_counter() - started
            client.expect((200, 204), "DELETE", f"{record}/attachment")
        return elapsed

    def time_received(self, body: Body) -> float:
        """Send the body to a URL that does not exist, to time a server that reads it all first."""
        with self.server.client() as client:
            started = time.perf_counter()
            client.expect(404, body.method, "/v1/nothing", body.headers, body.content)
            return time.perf_counter() - started

    def time_uploads(self, body: Body, count: int) -> float:
        return self._each(count, lambda client, record: self.upload(client, body, record))

    def time_replaces(self, body: Body, count: int) -> float:
        record = self.uploaded(body)
        return self._each(count, lambda client, _: self.upload(client, body, record))

    def time_deletes(self, body: Body, count: int) -> float:
        records = [self.uploaded(body) for _ in range(count)]

        def delete(client: Client, _: str) -> None:
            client.expect((200, 204), "DELETE", f"{records.pop()}/attachment")

        return self._each(count, delete)

    def time_records(self, count: int) -> float:
        """Plain records, as Kinto alone writes them."""
        headers = {"Content-Type": "application/json"}
        body = b'{"data": {"title": "a plain record"}}'

        def put(client: Client, record: str) -> None:
            client.expect(STORED, "PUT", record, headers, body)

        return self._each(count, put)

    def _each(self, count: int, work: Callable[[Client, str], None]) -> float:
        """The median of several requests in a row on one connection."""
        times = []
        with self.server.client() as client:
            for _ in range(count):
                record = self.record()
                started = time.perf_counter()
                work(client, record)
                times.append(time.perf_counter() - started)
        return statistics.median(times)


class Crowd:
    """Several clients that upload at the same time and count errors."""

    def __init__(
        self, site: Site, body: Body, clients: int, uploads: int, seconds: float = 0.0
    ) -> None:
        self.attempts = 0
        self.errors = 0
        self._site, self._body = site, body
        self._clients, self._uploads = clients, uploads
        self._seconds = seconds  # The time that each body takes to arrive.

    def time(self) -> float:
        """The seconds per successful upload, over all clients."""
        start = threading.Barrier(self._clients + 1)
        done: list[int] = []
        threads = [
            threading.Thread(target=self._client, args=(start, done), daemon=True)
            for _ in range(self._clients)
        ]
        for thread in threads:
            thread.start()
        start.wait()
        started = time.perf_counter()
        for thread in threads:
            thread.join()
        elapsed = time.perf_counter() - started
        attempts = self._clients * self._uploads
        self.attempts += attempts
        self.errors += attempts - sum(done)
        return elapsed / sum(done)

    def _client(self, start: threading.Barrier, done: list[int]) -> None:
        stored = 0
        start.wait()
        for _ in range(self._uploads):
            target = f"{self._site.record()}/attachment"
            # A connection for each upload, as from browsers. One worker cannot keep all of them.
            with self._site.server.client() as client:
                answer = client.request(
                    self._body.method,
                    target,
                    self._body.headers,
                    self._body.content,
                    self._seconds,
                )
            stored += answer.status in STORED
        done.append(stored)
