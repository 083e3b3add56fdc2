"""Reservations of object keys that are made from clients' filenames."""

from __future__ import annotations

from typing import Any

from kinto.core.utils import msec_time

from kinto_attachment.index.objects import Objects, digest_of
from kinto_attachment.kinto_types import StorageBackend

CLAIM = "claim"


class Reservations:
    """Keys that requests have claimed, from before the file is stored to the request's end.

    Those of upload sessions stay claimed until the session ends.
    """

    def __init__(self, backend: StorageBackend) -> None:
        self._rows = Objects(backend, "attachment-name")

    def claim(self, key: str, session: str = "") -> bool:
        """Reserve a key, possibly for an upload session; False if another request has."""
        row: dict[str, Any] = {"key": key, "since": msec_time()}
        if session:
            row["session"] = session
        return self._rows.create(_parent(key), CLAIM, row)

    def release(self, key: str) -> None:
        self._rows.delete(_parent(key), CLAIM)

    def renew(self, key: str) -> None:
        """Restart the time since when a key is reserved, if it is reserved."""
        row = self._rows.get(_parent(key), CLAIM)
        if row is not None:
            self._rows.put(_parent(key), CLAIM, {**row, "since": msec_time()})

    def has(self, key: str) -> bool:
        return self._rows.get(_parent(key), CLAIM) is not None

    def before(self, timestamp: int, since: int = 0) -> dict[str, str]:
        """Keys reserved before a time (ms since the epoch), long enough ago to be abandoned.

        Each comes with the id of its upload session, or an empty text. Reservations before
        ``since`` are left out.
        """
        rows = self._rows.list("attachments-name:*")
        return {
            row["key"]: row.get("session", "") for row in rows if since <= row["since"] < timestamp
        }


def _parent(key: str) -> str:
    return f"attachments-name:{digest_of(key)}"
