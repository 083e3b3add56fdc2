"""A download that is timed repeatedly after its bytes have been verified."""

from __future__ import annotations

import hashlib
import statistics
import time
import urllib.request
from dataclasses import dataclass

from benchmarks.bodies import MIB, Payload
from benchmarks.client import AUTHORIZATION, BadAnswer, Client
from tests.support.faults import HOST


@dataclass(frozen=True)
class Download:
    """A payload or a ``part`` of it. Without ``authorization``, by a signed link."""

    port: int
    path: str
    payload: Payload
    part: range | None = None
    authorization: str = AUTHORIZATION

    @property
    def headers(self) -> dict[str, str]:
        return {"Range": f"bytes={self.part[0]}-{self.part[-1]}"} if self.part else {}

    @property
    def size(self) -> int:
        return len(self.part) if self.part else self.payload.size

    def time(self, count: int = 1) -> float:
        """The median of several downloads in a row on one connection, in seconds."""
        times = []
        status = 206 if self.part else 200
        with Client(self.port, authorization=self.authorization) as client:
            for _ in range(count):
                started = time.perf_counter()
                answer = client.expect(status, "GET", self.path, self.headers)
                times.append(time.perf_counter() - started)
                if answer.size != self.size:
                    raise BadAnswer(f"{self.path}: {answer.size} bytes instead of {self.size}")
        return statistics.median(times)

    def verify(self) -> None:
        """Raise ``BadAnswer`` unless the bytes are those that were uploaded."""
        headers = {**self.headers}
        if self.authorization:
            headers["Authorization"] = self.authorization
        request = urllib.request.Request(f"http://{HOST}:{self.port}{self.path}", headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        digest = hashlib.sha256()
        with opener.open(request) as answer:
            while chunk := answer.read(MIB):
                digest.update(chunk)
        if digest.hexdigest() != self._expected():
            raise BadAnswer(f"{self.path}: the bytes differ from those uploaded")

    def _expected(self) -> str:
        if not self.part:
            return self.payload.sha256
        with self.payload.file.open("rb") as file:
            file.seek(self.part[0])
            return hashlib.sha256(file.read(len(self.part))).hexdigest()
