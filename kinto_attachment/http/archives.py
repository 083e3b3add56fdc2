"""ZIP archives that are made while they are sent: stored, not compressed, of any size (ZIP64).

The bytes of no file are kept. What the end of an archive lists, about a kilobyte for each entry,
stays in memory until then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zipstream import ZipStream


class WrongSize(Exception):
    """A file has another size than was announced; the archive ends without its directory."""


class Archive:
    """The parts of one archive, in the order in which they are sent."""

    def __init__(self) -> None:
        self._zip = ZipStream()

    def entry(self, name: str, chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
        """The bytes of an entry.

        :raises WrongSize: there are more or fewer bytes than ``size``.
        """
        self._zip.add(_exactly(size, chunks, name), name, size=size)
        yield from self._zip.all_files()

    def end(self) -> Iterator[bytes]:
        """The directory, without which nobody takes the archive for a whole one."""
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
