"""Files to be uploaded: read once to be hashed, and again for each attempt."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Protocol, cast

from kinto_attachment.client.errors import MismatchError

BLOCK = 256 * 1024  # Bytes moved at once; the progress is reported after each block.


class Reads(Protocol):
    """Any object with ``read``, such as the body of a response."""

    def read(self, size: int, /) -> bytes: ...


Readable = str | os.PathLike[str] | IO[bytes] | Reads


@dataclass
class Source:
    """``size`` bytes of an open file from ``start`` on, with their SHA-256 in hex.

    No other code may read or seek in the file.
    """

    file: IO[bytes]
    start: int
    size: int
    sha256: str
    name: str | None = None

    @classmethod
    @contextlib.contextmanager
    def of(cls, file: Readable | Source) -> Iterator[Source]:
        """The source for a path, or for the rest of an open binary file.

        A file that cannot seek, such as a pipe, is copied to a temporary file first.
        """
        if isinstance(file, Source):
            yield file
            return
        with contextlib.ExitStack() as stack:
            if isinstance(file, (str, os.PathLike)):
                name: str | None = os.path.basename(os.fspath(file))
                file = stack.enter_context(open(file, "rb"))
            elif not hasattr(file, "read"):
                raise TypeError(f"Not a path or a file: {type(file).__name__}")
            else:
                name = name_of(file)
                if not _is_seekable(file):
                    file = stack.enter_context(_copied(file))
            seekable = cast(IO[bytes], file)
            start = seekable.tell()
            digest = hashlib.sha256()
            size = 0
            for chunk in iter(partial(seekable.read, BLOCK), b""):
                digest.update(chunk)
                size += len(chunk)
            source = cls(seekable, start, size, digest.hexdigest(), name)
            source.rewind()
            yield source

    def read(self, size: int) -> bytes:
        """The next bytes, up to ``size``.

        :raises MismatchError: the file has become shorter since it was hashed.
        """
        data = self.file.read(size)
        if not data:
            raise MismatchError(f"{self.name or 'The file'} changed while it was sent")
        return data

    def rewind(self) -> None:
        self.file.seek(self.start)


def _is_seekable(file: Reads) -> bool:
    seekable = getattr(file, "seekable", None)
    return seekable is not None and bool(seekable())


def name_of(file: Reads) -> str | None:
    """The filename of an open file, None if it has none (such as after ``open`` of a number)."""
    name = getattr(file, "name", None)
    return os.path.basename(name) if isinstance(name, str) else None


@contextlib.contextmanager
def _copied(file: Reads) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as copy:
        while chunk := file.read(BLOCK):
            copy.write(chunk)
        copy.seek(0, io.SEEK_SET)
        yield copy
