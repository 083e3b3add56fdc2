"""Locks of files, for transactions that share or unshare them."""

from __future__ import annotations

from kinto_attachment.index.objects import Objects, digest_of
from kinto_attachment.kinto_types import StorageBackend

LOCK = "lock"


class FileLocks:
    """A row for each locked file: the database locks it until the end of the transaction."""

    def __init__(self, backend: StorageBackend) -> None:
        self._rows = Objects(backend, "attachment-lock")

    def lock(self, key: str) -> None:
        """Lock a file against other transactions that lock it, until the commit."""
        self._rows.put(lock_parent(key), LOCK, {})

    def clear(self, key: str) -> None:
        """Delete the row of a lock; the file stays locked until the commit."""
        self._rows.delete(lock_parent(key), LOCK)


def lock_parent(key: str) -> str:
    return f"attachments-lock:{digest_of(key)}"
