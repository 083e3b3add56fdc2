"""Names of files that are being stored, and were not made at random."""

from __future__ import annotations

from typing import Any

from kinto.core.utils import msec_time

from kinto_attachment.index.objects import Objects, digest_of

CLAIM = "claim"


class Reservations:
    """Object keys that a request has claimed, from before it stores the file to its end."""

    def __init__(self, backend: Any) -> None:
        self._rows = Objects(backend, "attachment-name")

    def claim(self, key: str) -> bool:
        """False when somebody else has claimed it."""
        return self._rows.create(_parent(key), CLAIM, {"key": key, "since": msec_time()})

    def release(self, key: str) -> None:
        self._rows.delete(_parent(key), CLAIM)

    def before(self, timestamp: int) -> list[str]:
        """Keys whose claim is older than that (ms since the epoch): their request has died."""
        rows = self._rows.list("attachments-name:*")
        return [row["key"] for row in rows if row["since"] < timestamp]


def _parent(key: str) -> str:
    return f"attachments-name:{digest_of(key)}"
