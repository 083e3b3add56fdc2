"""Marks that gc leaves in the database and then in the storages: see the site."""

from __future__ import annotations

import secrets
from typing import Any

from kinto.core.storage import Sort
from kinto.core.utils import msec_time

from kinto_attachment.index.objects import Objects
from kinto_attachment.kinto_types import StorageBackend

PARENT = "attachments-mark"
# Marks are kept for the longest time that a gc may need to write its mark, with many at once.
KEPT = 100
KEPT_MS = 24 * 60 * 60 * 1000


class Marks:
    """The rows in a Kinto storage backend; all methods run in the caller's transaction."""

    def __init__(self, backend: StorageBackend) -> None:
        self.rows = Objects(backend, "attachment-mark")

    def new(self) -> str:
        mark = secrets.token_hex(16)
        self.rows.put(PARENT, mark, {"at": msec_time()})
        for old in self.latest()[KEPT:]:
            if old["at"] < msec_time() - KEPT_MS:
                self.rows.delete(PARENT, old["id"])
        return mark

    def has(self, mark: str) -> bool:
        return self.rows.get(PARENT, mark) is not None

    def latest(self) -> list[dict[str, Any]]:
        """As many marks as the backend returns at once, newest first."""
        return self.rows.list(PARENT, sorting=[Sort("at", -1)])
