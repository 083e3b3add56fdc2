"""Shards: parts of the work of a command that runs several times in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import transaction

from kinto_attachment.index.link import Link
from kinto_attachment.index.links import Links
from kinto_attachment.index.objects import digest_of
from kinto_attachment.index.spares import Spare, Spares

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count``, by the first two hexadecimal digits of a key's hash."""

    index: int = 1
    count: int = 1

    @property
    def prefixes(self) -> list[str]:
        return [f"{n:02x}" for n in range(256) if n % self.count == self.index - 1]

    def has(self, key: str) -> bool:
        return int(digest_of(key)[:2], 16) % self.count == self.index - 1

    def pages(self, links: Links, parents: str = "") -> Iterator[list[Link]]:
        """All links of files in this shard; each page has a separate transaction.

        ``parents`` is the prefix of the URIs of their records.
        """
        return self._pages(lambda prefix: links.under(parents, prefix))

    def spares(self, spares: Spares, storage: str) -> Iterator[list[Spare]]:
        """All spare copies of a storage in this shard, in the same way."""
        return self._pages(lambda prefix: spares.pages(storage, prefix))

    def _pages(self, below: Callable[[str], Iterator[list[T]]]) -> Iterator[list[T]]:
        for prefix in self.prefixes if self.count > 1 else [""]:
            pages = below(prefix)
            while True:
                with transaction.manager:
                    page = next(pages, None)
                if page is None:
                    break
                yield page


WHOLE = Shard()
