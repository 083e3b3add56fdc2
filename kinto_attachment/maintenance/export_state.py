"""The records that an export has read, in a temporary database instead of memory.

A collection is read in the order of timestamps, oldest record first. A record that is written
during the export comes again later, and the last state counts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from kinto_attachment.maintenance.application import CommandError

TABLES = """
    DROP TABLE IF EXISTS records;
    DROP TABLE IF EXISTS files;
    CREATE TABLE records (
        position INTEGER PRIMARY KEY, id TEXT UNIQUE, line BLOB, hash TEXT, problem BLOB);
    CREATE TABLE files (hash TEXT PRIMARY KEY, size INTEGER) WITHOUT ROWID;
"""
UNUSED = "SELECT hash FROM files WHERE hash NOT IN (SELECT hash FROM records WHERE hash NOT NULL)"

USED = """
    SELECT count(*), coalesce(sum(size), 0) FROM files
     WHERE hash IN (SELECT hash FROM records WHERE hash NOT NULL)
"""


@dataclass(frozen=True)
class Totals:
    records: int
    files: int
    bytes: int


class ExportState:
    """The records and files of one collection at a time, in a SQLite database.

    :raises CommandError: another process is using it.
    """

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, timeout=0)
        try:
            # If the process is killed, the next one begins with empty tables.
            self._database.execute("PRAGMA journal_mode = OFF")
            self._database.execute("PRAGMA synchronous = OFF")
            self._database.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            self.close()
            raise CommandError(f"{path}: another export is being written here") from error
        except sqlite3.DatabaseError as error:
            self.close()
            raise CommandError(f"{path}: this file is not from an export") from error

    def close(self) -> None:
        self._database.close()

    def begin(self) -> None:
        """Forget everything, for another collection."""
        for statement in TABLES.split(";"):
            self._database.execute(statement)

    def put(self, record_id: str, line: bytes, digest: str | None = None) -> None:
        """Save the current state of a record, and the hash of its file."""
        self._replace(record_id, line, digest, None)

    def put_problem(self, record_id: str, problem: bytes) -> None:
        """Save a record that currently cannot be exported."""
        self._replace(record_id, None, None, problem)

    def drop(self, record_id: str) -> None:
        """Save that a record was deleted."""
        self._database.execute("DELETE FROM records WHERE id = ?", (record_id,))

    def has_file(self, digest: str) -> bool:
        query = "SELECT 1 FROM files WHERE hash = ?"
        return self._database.execute(query, (digest,)).fetchone() is not None

    def add_file(self, digest: str, size: int) -> None:
        self._database.execute("INSERT OR IGNORE INTO files VALUES (?, ?)", (digest, size))

    def lines(self) -> Iterator[bytes]:
        """The records, sorted by their last change."""
        query = "SELECT line FROM records WHERE line NOT NULL ORDER BY position"
        return (row[0] for row in self._database.execute(query))

    def problems(self) -> Iterator[bytes]:
        query = "SELECT problem FROM records WHERE problem NOT NULL ORDER BY position"
        return (row[0] for row in self._database.execute(query))

    def files(self, *, unused: bool) -> list[str]:
        """The hashes of all files, or of those that no longer have a record."""
        query = UNUSED if unused else "SELECT hash FROM files"
        return [row[0] for row in self._database.execute(query)]

    def totals(self) -> Totals:
        (records,) = self._database.execute("SELECT count(line) FROM records").fetchone()
        files, size = self._database.execute(USED).fetchone()
        return Totals(records, files, size)

    def _replace(
        self, record_id: str, line: bytes | None, digest: str | None, problem: bytes | None
    ) -> None:
        self.drop(record_id)
        query = "INSERT INTO records (id, line, hash, problem) VALUES (?, ?, ?, ?)"
        self._database.execute(query, (record_id, line, digest, problem))
