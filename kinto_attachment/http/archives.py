"""ZIP archives that are made while they are sent: stored, not compressed, of any size (ZIP64).

The bytes of files are not kept. The directory at the end needs about a kilobyte of memory for each
entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zipstream import ZipStream


class WrongSize(Exception):
    """A file does not have the announced size; the archive ends without its directory."""


class Archive:
    """The parts of one archive, in the order in which they are sent."""

    def __init__(self) -> None:
        self._zip = ZipStream()

    def entry(self, name: str, chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
        """The bytes of an entry.

        :raises WrongSize: the file does not have ``size`` bytes.
        """
        self._zip.add(_exactly(size, chunks, name), name, size=size)
        yield from self._zip.all_files()

    def end(self) -> Iterator[bytes]:
        """The directory, without which an archive is recognizably incomplete."""
        yield from self._zip.footer()


def _exactly(size: int, chunks: Iterable[bytes], name: str) -> Iterator[bytes]:
    left = size
    for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            break
        yield chunk
    if left != 0:
        raise WrongSize(name)
