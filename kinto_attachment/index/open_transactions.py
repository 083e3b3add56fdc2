"""Waiting for the end of the transactions that are open now."""

from __future__ import annotations

import time
from typing import Any

import transaction
from kinto.core.storage.memory import MemoryBasedStorage
from kinto.core.storage.postgresql import Storage as PostgreSQLStorage

PAUSE = 0.2  # Seconds between two queries.


class OpenTransactions:
    """The transactions that may have written data that others cannot see yet.

    On PostgreSQL, these have a transaction id (its documentation, "System Information Functions":
    ``pg_snapshot``). Memory backends have no transactions. Those of other backends are unknown, so
    they may never end.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        # The id of this transaction: those with a higher id began later.
        self._newest = self._ask("pg_current_xact_id()") if self._has_ids else 0

    @property
    def _has_ids(self) -> bool:
        return isinstance(self._backend, PostgreSQLStorage)

    def have_ended(self) -> bool:
        if not self._has_ids:
            return isinstance(self._backend, MemoryBasedStorage)
        return self._ask("pg_snapshot_xmin(pg_current_snapshot())") > self._newest

    def wait(self, seconds: float) -> bool:
        """Wait until all have ended; False if some may still be open after ``seconds``."""
        deadline = time.monotonic() + (seconds if self._has_ids else 0)
        while not self.have_ended():
            if time.monotonic() >= deadline:
                return False
            time.sleep(PAUSE)
        return True

    def _ask(self, function: str) -> int:
        from sqlalchemy import text

        with transaction.manager, self._backend.client.connect(readonly=True) as session:
            return int(session.execute(text(f"SELECT {function}::text")).scalar())
