"""Removing the links below a bucket or a collection that was deleted, where nothing else is to do.

Any backend of Kinto reads the links, and then deletes them by their ids. PostgreSQL does both in
one statement: see ``postgresql_removals.py``.
"""

from __future__ import annotations

from typing import Protocol

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from kinto_attachment.index.link import Link, State
from kinto_attachment.index.objects import Objects, batches
from kinto_attachment.index.outbox import StoredFile
from kinto_attachment.index.queries import ANY, LinkQueries
from kinto_attachment.kinto_types import StorageBackend

REMOVED: tuple[State, ...] = ("current", "kept")
# Rows with one of these fields are changed, refused or left alone, one by one.
SPECIAL = ("hold", "readonly", "ended")


class Removals(Protocol):
    """Removes links, in the caller's transaction."""

    def remove_below(self, uri: str) -> list[StoredFile]:
        """Delete sole links of current and kept files; returns these files, which are garbage.

        Links stay that are shared, held, of readonly files, or of lives that have ended.
        """
        ...


class SeparateRemovals:
    """Removals in any Kinto storage backend."""

    def __init__(self, backend: StorageBackend, page_size: int) -> None:
        self._rows = Objects(backend, "attachment")
        self._queries = LinkQueries(backend, page_size)

    def remove_below(self, uri: str) -> list[StoredFile]:
        files = []
        for page in self._queries.under(f"{uri}/"):
            for links in batches(filter(_is_removed, page)):
                gone = self._delete({link.id for link in links})
                files += [StoredFile(each.storage, each.key) for each in links if each.id in gone]
        return files

    def _delete(self, ids: set[str]) -> set[str]:
        """Delete rows that are still the same; returns the ids of these."""
        conditions = [
            Filter("id", ids, COMPARISON.IN),
            Filter("state", list(REMOVED), COMPARISON.IN),
            *(Filter(name, False, COMPARISON.HAS) for name in SPECIAL),
        ]
        return {row["id"] for row in self._rows.delete_all(ANY, *conditions)}


def _is_removed(link: Link) -> bool:
    special = any(getattr(link, name) for name in SPECIAL)
    return not (link.shared or special) and link.state in REMOVED
