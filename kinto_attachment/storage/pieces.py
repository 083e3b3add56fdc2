"""Files cut into pieces that fit into memory, for storages that receive files in parts."""

from __future__ import annotations

import io
import time
import zlib
from base64 import b64encode
from collections.abc import Iterable, Iterator

from kinto_attachment.options import PIECE_SIZE as PIECE_SIZE

from . import CHUNK_SIZE, Reader


class Block(io.BytesIO):
    """Bytes to send; ``asked`` is when the last read began, by ``time.monotonic()``."""

    asked = 0.0

    def read(self, size: int | None = -1, /) -> bytes:
        self.asked = time.monotonic()
        return super().read(size)


class Piece(Block):
    """Up to ``size_limit`` bytes in a buffer, which can be sent several times."""

    def __init__(self, size_limit: int = PIECE_SIZE) -> None:
        super().__init__()
        self.size = 0
        self._size_limit = size_limit
        self._crc32 = 0

    @property
    def is_full(self) -> bool:
        return self.size == self._size_limit

    @property
    def crc32(self) -> str:
        """As in HTTP headers: the four bytes, big-endian, in Base64."""
        return b64encode(self._crc32.to_bytes(4, "big")).decode("ascii")

    @classmethod
    def of(cls, chunks: Iterable[bytes]) -> Piece:
        """A piece of chunks that are in memory."""
        piece = cls()
        for chunk in chunks:
            piece._add(chunk)
        piece.seek(0)
        return piece

    def fill(self, reader: Reader) -> None:
        while not self.is_full:
            chunk = reader.read(min(CHUNK_SIZE, self._size_limit - self.size))
            if not chunk:
                break
            self._add(chunk)
        self.seek(0)

    def _add(self, chunk: bytes) -> None:
        self.write(chunk)
        self.size += len(chunk)
        self._crc32 = zlib.crc32(chunk, self._crc32)


def pieces(reader: Reader, size: int = PIECE_SIZE) -> Iterator[Piece]:
    """All pieces of a file, read one at a time; an empty file is one empty piece."""
    piece = Piece(size)
    piece.fill(reader)
    full = piece.is_full
    yield piece
    while full:
        # Drop the last piece before the next one is read: it may have been sent by now.
        piece = Piece(size)
        piece.fill(reader)
        full = piece.is_full
        if piece.size:
            yield piece
