"""What a storage lists: its files one by one, and afterwards which keys there were."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator

from kinto_attachment.index.objects import digest_of
from kinto_attachment.maintenance.shards import Shard
from kinto_attachment.storage import FileStat, ListsFiles


class Listing:
    """The files of a storage in one shard.

    Of each key, the first 8 bytes of its hash stay in memory.
    """

    def __init__(self, files: ListsFiles, shard: Shard) -> None:
        self.is_complete = False
        self._files = files
        self._shard = shard
        self._digests = array("Q")

    def __iter__(self) -> Iterator[FileStat]:
        for file in self._files.list():
            if self._shard.has(file.key):
                self._digests.append(_digest(file.key))
                yield file
        self._digests = array("Q", sorted(self._digests))
        self.is_complete = True

    def __contains__(self, key: str) -> bool:
        """Whether there was such a key; may be wrong once in a very long time."""
        digest = _digest(key)
        position = bisect_left(self._digests, digest)
        return position < len(self._digests) and self._digests[position] == digest


def _digest(key: str) -> int:
    return int(digest_of(key)[:16], 16)
