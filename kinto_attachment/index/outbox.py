"""The outbox: files that lost their last link, to be deleted after the commit."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON, msec_time

from kinto_attachment.index.objects import Objects, batches
from kinto_attachment.index.queries import in_storage_filter
from kinto_attachment.kinto_types import StorageBackend

PARENT = "attachments-garbage:"  # The parent of an entry, followed by the entry's id.


@dataclass(frozen=True)
class Garbage:
    """An entry of the outbox: files of one storage to delete.

    ``since`` is when it was written; ``due`` is when lingering files are to be deleted, or 0.
    Both are in ms since the epoch. ``storage`` is a name; empty, it is the default storage.
    """

    id: str
    keys: list[str]
    since: int
    due: int = 0
    storage: str = ""

    @property
    def parent(self) -> str:
        return f"{PARENT}{self.id}"

    @classmethod
    def of(cls, keys: list[str], due: int = 0, storage: str = "") -> Garbage:
        """A new entry."""
        return cls(str(uuid.uuid4()), keys, msec_time(), due, storage)

    @classmethod
    def load(cls, row: dict[str, Any]) -> Garbage:
        """An entry from its row in Kinto's storage."""
        optional = {name: row[name] for name in ("due", "storage") if name in row}
        return cls(row["id"], row["keys"], row["since"], **optional)

    def dump(self) -> dict[str, Any]:
        """The row in Kinto's storage."""
        row: dict[str, Any] = {"keys": self.keys, "since": self.since}
        if self.due:
            row["due"] = self.due
        if self.storage:
            row["storage"] = self.storage
        return row

    def without(self, key: str) -> Garbage:
        """The other files, in an entry with a new id: others may have read this entry."""
        keys = [each for each in self.keys if each != key]
        return replace(self, id=str(uuid.uuid4()), keys=keys)


class File(Protocol):
    """A file in one of the storages: that of a link, or a new one."""

    @property
    def key(self) -> str: ...

    @property
    def storage(self) -> str: ...


@dataclass(frozen=True)
class StoredFile:
    """A file without other data."""

    storage: str
    key: str


def keys_by_storage(files: Iterable[File]) -> dict[str, list[str]]:
    """The keys of files, by the names of their storages."""
    keys: dict[str, list[str]] = {}
    for file in files:
        keys.setdefault(file.storage, []).append(file.key)
    return keys


class Outbox:
    """Entries become valid with the commit, and are removed when their files are deleted."""

    def __init__(self, backend: StorageBackend) -> None:
        self._rows = Objects(backend, "attachment-garbage")

    def add(self, keys: Iterable[str], due: int = 0, storage: str = "") -> list[Garbage]:
        """Enter files of a storage that have no link, or only links that linger until ``due``."""
        entries = [Garbage.of(batch, due, storage) for batch in batches(keys)]
        for entry in entries:
            self.put(entry)
        return entries

    def add_files(self, files: Iterable[File], due: int = 0) -> list[Garbage]:
        """The same for files of all storages."""
        return [
            entry
            for storage, keys in keys_by_storage(files).items()
            for entry in self.add(keys, due, storage)
        ]

    def entries(self, key: str = "", *, storage: str | None = None) -> list[Garbage]:
        """A page of entries: all, those of a storage, or those that have a given key."""
        filters = [Filter("keys", [key], COMPARISON.CONTAINS)] if key else []
        if storage is not None:
            filters.append(in_storage_filter(storage))
        rows = self._rows.list(f"{PARENT}*", *filters)
        return [Garbage.load(row) for row in rows]

    def take(self, entry: Garbage, *, is_alone: bool = False) -> bool:
        """Remove an entry; False if another transaction has. It stays locked until the commit.

        ``is_alone`` says that the transaction changes nothing else. Then a crash of the database
        may undo its commit.
        """
        return self._rows.delete(entry.parent, entry.id)

    def put(self, entry: Garbage) -> None:
        """Write an entry, also one that was taken."""
        self._rows.put(entry.parent, entry.id, entry.dump())
