"""A piece of a file that is sent while its bytes arrive."""

from __future__ import annotations

import io
import threading
import time
import zlib
from base64 import b64encode

# Seconds. A client that stalls for longer holds no connection to the storage.
PATIENCE = 5.0


class GivenUp(OSError):
    """The bytes ended, or none arrived for a while."""


class ArrivingPiece(io.RawIOBase):
    """``size`` bytes, which one thread adds while another one reads.

    All of them stay in memory, so that they can be sent again. ``asked`` is as in a
    :class:`~kinto_attachment.storage.pieces.Block`; waiting for bytes is not the receiver's
    silence.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.asked = 0.0
        self._content = bytearray(size)
        self._arrived = 0
        self._position = 0
        self._crc32 = 0
        self._given_up = False
        self._changed = threading.Condition()

    @property
    def crc32(self) -> str:
        """As in HTTP headers: the four bytes, big-endian, in Base64."""
        return b64encode(self._crc32.to_bytes(4, "big")).decode("ascii")

    def add(self, data: bytes) -> bool:
        """Add bytes, unless this was given up; whether they were added."""
        end = self._arrived + len(data)
        memoryview(self._content)[self._arrived : end] = data
        self._crc32 = zlib.crc32(data, self._crc32)
        with self._changed:
            if self._given_up:
                return False
            self._arrived = end
            self._changed.notify_all()
        return True

    def give_up(self) -> None:
        """No more bytes are added: the next read fails, if some are missing."""
        with self._changed:
            self._given_up = True
            self._changed.notify_all()

    def wait(self) -> bool:
        """Wait until all bytes are here or this is given up; returns whether they are."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_full or self._given_up)
            return self._is_full

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = start + offset
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """:raises GivenUp: before the end, because a body that ends there would look complete."""
        if self._position >= self.size:
            self.asked = time.monotonic()
            return b""
        with self._changed:
            came = self._changed.wait_for(lambda: self._has_more or self._given_up, PATIENCE)
            self.asked = time.monotonic()
            if not came or not self._has_more:
                self._given_up = True
                self._changed.notify_all()
                raise GivenUp("The rest of the piece does not arrive.")
            end = self._arrived if size < 0 else min(self._arrived, self._position + size)
        data = bytes(memoryview(self._content)[self._position : end])
        self._position = end
        return data

    @property
    def _is_full(self) -> bool:
        return self._arrived == self.size

    @property
    def _has_more(self) -> bool:
        return self._arrived > self._position
