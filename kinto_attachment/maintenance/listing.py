"""Listing a storage: its files one by one, and afterwards which keys were listed."""

from __future__ import annotations

from collections.abc import Iterator

from kinto_attachment.maintenance.digests import Digests
from kinto_attachment.maintenance.shards import Shard
from kinto_attachment.storage import FileStat, ListsFiles


class Listing:
    """The files of a storage in one shard.

    For each key, the first 8 bytes of its hash stay in memory.
    """

    def __init__(self, files: ListsFiles, shard: Shard) -> None:
        self.is_complete = False
        self._files = files
        self._shard = shard
        self._digests = Digests()

    def __iter__(self) -> Iterator[FileStat]:
        for file in self._files.list():
            if self._shard.has(file.key):
                self._digests.add(file.key)
                yield file
        self.is_complete = True

    def __contains__(self, key: str) -> bool:
        """Whether the key was listed."""
        return key in self._digests
