"""The names that an import has seen, in a temporary file instead of memory."""

from __future__ import annotations

import sqlite3
from types import TracebackType

TABLE = "CREATE TABLE seen (kind TEXT, name TEXT, value TEXT, PRIMARY KEY (kind, name))"


class Seen:
    """Names of several kinds, each with a value; a context manager."""

    def __init__(self) -> None:
        # SQLite deletes a database without a name when it is closed.
        self._database = sqlite3.connect("", isolation_level=None)
        for statement in ("PRAGMA journal_mode = OFF", TABLE, "BEGIN"):
            self._database.execute(statement)

    def __enter__(self) -> Seen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def add(self, kind: str, name: str, value: str = "") -> bool:
        """Save a name; False if it is known, in which case its value stays."""
        query = "INSERT OR IGNORE INTO seen VALUES (?, ?, ?)"
        return self._database.execute(query, (kind, name, value)).rowcount > 0

    def value(self, kind: str, name: str) -> str | None:
        query = "SELECT value FROM seen WHERE kind = ? AND name = ?"
        row = self._database.execute(query, (kind, name)).fetchone()
        return None if row is None else str(row[0])
