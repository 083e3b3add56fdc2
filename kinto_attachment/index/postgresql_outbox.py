"""The outbox in Kinto's PostgreSQL tables, whose removals do not wait for the disk.

Only used with the versions of Kinto in ``tested_versions.py``.
"""

from __future__ import annotations

from typing import Any

from kinto.core.storage.postgresql import Storage as PostgreSQLStorage

from kinto_attachment.index.outbox import Garbage, Outbox
from kinto_attachment.index.sql import sql
from kinto_attachment.index.tested_versions import is_tested

# If the server crashes before the commit is on the disk, the entry reappears, and gc deletes the
# files once more. No other file can have their names by then, because the commit that reserves a
# name is written to the disk after this one.
TAKE = """
DELETE FROM objects
 WHERE id = :id AND parent_id = :parent AND resource_name = 'attachment-garbage' AND NOT deleted
RETURNING set_config('synchronous_commit', 'off', TRUE)
"""


class PostgreSQLOutbox(Outbox):
    """The outbox in Kinto's PostgreSQL backend."""

    def __init__(self, backend: Any) -> None:
        super().__init__(backend)
        self._client = backend.client

    def take(self, entry: Garbage, *, is_alone: bool = False) -> bool:
        return self.take_alone(entry) if is_alone else super().take(entry)

    def take_alone(self, entry: Garbage) -> bool:
        """In a transaction that changes nothing else."""
        with self._client.connect() as session:
            taken = session.execute(sql(TAKE), {"id": entry.id, "parent": entry.parent})
            return taken.fetchone() is not None


def outbox(backend: Any, *, fast: bool = True) -> Outbox:
    """The outbox with the fastest removals that this backend of Kinto supports."""
    if fast and is_tested() and type(backend) is PostgreSQLStorage:
        return PostgreSQLOutbox(backend)
    return Outbox(backend)
