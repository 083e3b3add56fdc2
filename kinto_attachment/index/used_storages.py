"""The storages that have files, to notice when one is no longer configured."""

from __future__ import annotations

from collections.abc import Container, Iterable

import transaction

from kinto_attachment.index.objects import Objects
from kinto_attachment.kinto_types import StorageBackend

PARENT = "attachments-storages"


class UsedStorages:
    """A row for each named storage in which a file was ever linked, until gc deletes the row.

    A process caches the rows, so that requests do not query the database each time.
    """

    def __init__(self, backend: StorageBackend) -> None:
        self._rows = Objects(backend, "attachment-storage")
        self._noted: set[str] = set()
        self._read: set[str] | None = None

    def names(self) -> set[str]:
        self._read = {row["id"] for row in self._rows.list(PARENT)}
        return self._read

    def are_among(self, configured: Container[str]) -> bool:
        """Whether all are configured, as far as this process knows."""
        names = self.names() if self._read is None else self._read
        return all(name in configured for name in names)

    def note(self, name: str) -> None:
        """Write a row for a storage in the current transaction."""
        if name in self._noted:
            return
        if name not in self.names():
            self._rows.create(PARENT, name, {})

        def remember(committed: bool) -> None:
            if committed:
                self._noted.add(name)

        transaction.get().addAfterCommitHook(remember)

    def put_back(self, names: Iterable[str]) -> None:
        """Write the rows again after a flush, because processes still rely on them."""
        for name in names:
            self._rows.create(PARENT, name, {})

    def forget(self, name: str) -> None:
        self._noted.discard(name)
        self._rows.delete(PARENT, name)
