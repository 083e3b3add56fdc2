"""Spare copies: files in another storage than that in the index, while they are moved.

The row of a copy is committed before its first byte is written. The row of the copy that is left
behind is written in the transaction that changes the links. So a process that dies leaves no
unknown copies. A row is deleted with its copy, or when the links say that the copy is the file.

The rows of a file are changed under the lock of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from kinto_attachment.index.objects import Objects, batches, digest_of
from kinto_attachment.kinto_types import StorageBackend

PREFIX = "attachments-spare:"
OPTIONAL = ("storage", "due", "writer", "readonly")


@dataclass(frozen=True)
class Spare:
    """A copy of a file in a storage, which is given by its name in the index.

    ``since`` is when the row was last written, ``due`` when the copy may be deleted at the
    earliest (ms since the epoch; 0: at once). ``writer`` is the token of the run that is writing
    the copy; without one, a move has left the copy behind. A ``readonly`` copy belongs to others
    and is never deleted.
    """

    key: str
    since: int
    storage: str = ""
    due: int = 0
    writer: str = ""
    readonly: bool = False

    def dump(self) -> dict[str, Any]:
        """The row, without values that are not set."""
        row = {name: getattr(self, name) for name in OPTIONAL}
        known = {name: value for name, value in row.items() if value}
        return {"key": self.key, "since": self.since, **known}


class Spares:
    """The rows, in the caller's transaction."""

    def __init__(self, backend: StorageBackend, page_size: int) -> None:
        self._rows = Objects(backend, "attachment-spare")
        self._page_size = page_size

    def get(self, storage: str, key: str) -> Spare | None:
        row = self._rows.get(_parent(storage), digest_of(key))
        return None if row is None else _load(row)

    def of_keys(self, storage: str, keys: Iterable[str]) -> dict[str, Spare]:
        """The copies in a storage of some files, by their keys."""
        found = {}
        for batch in batches({digest_of(key) for key in keys}):
            for row in self._rows.list(_parent(storage), Filter("id", batch, COMPARISON.IN)):
                found[row["key"]] = _load(row)
        return found

    def pages(self, storage: str, within: str = "") -> Iterator[list[Spare]]:
        """All copies in a storage, a page at a time, as :meth:`LinkQueries.under` has links."""
        rows = self._rows.list(
            _parent(storage),
            Filter("id", within, COMPARISON.MIN),
            Filter("id", f"{within}g", COMPARISON.LT),
        )
        if len(rows) >= self._page_size:
            for digit in "0123456789abcdef":
                yield from self.pages(storage, within + digit)
        elif rows:
            yield [_load(row) for row in rows]

    def all(self) -> list[Spare]:
        """The copies in all storages, up to Kinto's ``storage_max_fetch_size``."""
        return [_load(row) for row in self._rows.list(f"{PREFIX}*")]

    def put(self, spare: Spare) -> None:
        self._rows.put(_parent(spare.storage), digest_of(spare.key), spare.dump())

    def delete(self, storage: str, keys: Iterable[str]) -> None:
        for batch in batches({digest_of(key) for key in keys}):
            self._rows.delete_all(_parent(storage), Filter("id", batch, COMPARISON.IN))


def _parent(storage: str) -> str:
    return f"{PREFIX}{storage}"


def _load(row: Mapping[str, Any]) -> Spare:
    optional = {name: row[name] for name in OPTIONAL if name in row}
    return Spare(key=row["key"], since=row["since"], **optional)
