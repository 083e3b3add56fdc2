"""Removing the links below a deleted bucket or collection, if that is the only change.

Any backend of Kinto reads the links, deletes them by their ids, and enters their files in the
outbox. PostgreSQL needs one statement: see ``postgresql_removals.py``.
"""

from __future__ import annotations

from typing import Protocol

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from kinto_attachment.index.link import Link, State
from kinto_attachment.index.objects import Objects, batches
from kinto_attachment.index.outbox import Garbage, Outbox
from kinto_attachment.index.queries import ANY, LinkQueries
from kinto_attachment.kinto_types import StorageBackend

REMOVED: tuple[State, ...] = ("current", "kept")
# Rows with one of these fields are changed, refused or kept, one by one.
SPECIAL = ("hold", "readonly", "ended")


class Removals(Protocol):
    """Removes links, in the caller's transaction."""

    def remove_below(self, uri: str) -> list[Garbage]:
        """Delete sole links of current and kept files, and enter these files in the outbox.

        Links that are shared, held, of readonly files, or of lives that have ended, stay.
        """
        ...


class SeparateRemovals:
    """Removals in any Kinto storage backend."""

    def __init__(self, backend: StorageBackend, outbox: Outbox, page_size: int) -> None:
        self._outbox = outbox
        self._rows = Objects(backend, "attachment")
        self._queries = LinkQueries(backend, page_size)

    def remove_below(self, uri: str) -> list[Garbage]:
        files: list[Link] = []
        for page in self._queries.under(f"{uri}/"):
            for links in batches(filter(_is_removed, page)):
                gone = self._delete({link.id for link in links})
                files += [link for link in links if link.id in gone]
        return self._outbox.add_files(files)

    def _delete(self, ids: set[str]) -> set[str]:
        """Delete unchanged rows; returns their ids."""
        conditions = [
            Filter("id", ids, COMPARISON.IN),
            Filter("state", list(REMOVED), COMPARISON.IN),
            *(Filter(name, False, COMPARISON.HAS) for name in SPECIAL),
        ]
        return {row["id"] for row in self._rows.delete_all(ANY, *conditions)}


def _is_removed(link: Link) -> bool:
    special = any(getattr(link, name) for name in SPECIAL)
    return not (link.shared or special) and link.state in REMOVED
