"""Files cut into pieces that fit into memory, for storages that take them one by one."""

from __future__ import annotations

import io
import itertools
import zlib
from base64 import b64encode
from collections.abc import Iterator

from . import CHUNK_SIZE, Reader

PIECE_SIZE = 8 * 1024 * 1024


class Piece(io.BytesIO):
    """The next bytes of a file, at most :data:`PIECE_SIZE`, in a buffer that can be sent again."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0
        self._crc32 = 0

    @classmethod
    def read_from(cls, reader: Reader) -> Piece:
        """Short only at the reader's end, and empty beyond it."""
        piece = cls()
        while piece.size < PIECE_SIZE:
            chunk = reader.read(min(CHUNK_SIZE, PIECE_SIZE - piece.size))
            if not chunk:
                break
            piece.write(chunk)
            piece.size += len(chunk)
            piece._crc32 = zlib.crc32(chunk, piece._crc32)
        piece.seek(0)
        return piece

    @property
    def crc32(self) -> str:
        """As HTTP headers have it: the four bytes, big-endian, in base 64."""
        return b64encode(self._crc32.to_bytes(4, "big")).decode("ascii")


def pieces(reader: Reader) -> tuple[Piece, Iterator[Piece]]:
    """The first piece (an empty one, of an empty file) and the others, still unread.

    Whether there are others is known: one more piece than the first is read at once.
    """
    first = Piece.read_from(reader)
    if first.size < PIECE_SIZE:
        return first, iter(())
    second = Piece.read_from(reader)
    if not second.size:
        return first, iter(())
    rest = iter(lambda: Piece.read_from(reader), None)
    return first, itertools.chain([second], itertools.takewhile(lambda piece: piece.size, rest))
