"""The end of an unfinished file, which is too small for a part of a multipart upload."""

from __future__ import annotations

import secrets
from collections import deque
from typing import Any

from kinto_attachment.errors import FileNotFound, StorageUnavailable

from .pieces import Piece
from .s3_bucket import S3Bucket


class Tail:
    """Bytes in memory and, when they are durable, in spill objects below ``folder``.

    Each object is smaller than half of the previous one: when bytes are added, the last objects
    are rewritten together with them. So a part of tiny pieces needs few objects at a time, and
    each byte is written once per doubling of the size.

    ``asides`` are pairs of the objects' names and sizes, ``garbage`` the names of objects that are
    no longer needed after their replacement was kept.
    """

    def __init__(
        self,
        bucket: S3Bucket,
        folder: str,
        headers: dict[str, Any],
        asides: list[list[Any]],
        garbage: list[str],
    ) -> None:
        self.asides = [list(aside) for aside in asides]
        self.garbage = [*garbage]
        self._bucket = bucket
        self._folder = folder
        self._headers = headers
        self._start = self.durable  # Of the bytes that are in memory.
        self._chunks: deque[bytes] = deque()
        self.size = self._start

    @property
    def durable(self) -> int:
        return sum(size for _, size in self.asides)

    def add(self, data: bytes) -> None:
        self._chunks.append(data)
        self.size += len(data)

    @property
    def in_memory(self) -> list[bytes]:
        """The last bytes; all bytes, if there are no spill objects."""
        return list(self._chunks)

    def drop(self) -> None:
        """Begin a new tail. The bytes, which are all in memory, are stored elsewhere."""
        self._chunks, self._start, self.size = deque(), 0, 0

    def take(self) -> Piece:
        """Return all bytes, and begin a new tail."""
        while self.asides:
            self._drop_last()
        piece = Piece.of(self._chunks)
        self.drop()
        return piece

    def store(self) -> None:
        """Make all bytes durable."""
        position = self.durable
        if position == self.size:
            return
        while self.asides and self.asides[-1][1] <= 2 * (self.size - position):
            position -= self.asides[-1][1]
            self._drop_last()
        fresh = b"".join(self._chunks)[position - self._start :]
        name = secrets.token_hex(8)
        self._bucket.put(self._folder + name, Piece.of([fresh]), **self._headers)
        self.asides.append([name, len(fresh)])

    def empty_garbage(self) -> None:
        if self.garbage:
            objects = [{"Key": self._folder + name} for name in self.garbage]
            self._bucket.call("delete_objects", Delete={"Objects": objects, "Quiet": True})
            self.garbage = []

    def _drop_last(self) -> None:
        end = self.durable
        name, size = self.asides.pop()
        self.garbage.append(name)
        if end <= self._start:  # It is not in memory.
            self._chunks.appendleft(self._load(name, size))
            self._start -= size

    def _load(self, name: str, size: int) -> bytes:
        try:
            content = self._bucket.get(self._folder + name)
        except FileNotFound as error:
            raise StorageUnavailable() from error
        if len(content) != size:
            raise StorageUnavailable() from OSError(f"{len(content)} of {size} bytes: {name}")
        return content
