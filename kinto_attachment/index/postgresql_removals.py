"""The removal of all links below a bucket or a collection in one statement on Kinto's tables.

Tested with the versions of Kinto in ``tested_versions.py``, and used with no other.
"""

from __future__ import annotations

from typing import Any

from kinto.core.storage.postgresql import Storage as PostgreSQLStorage

from kinto_attachment.index.outbox import StoredFile
from kinto_attachment.index.patterns import literally
from kinto_attachment.index.removals import REMOVED, SPECIAL, Removals, SeparateRemovals
from kinto_attachment.index.sql import sql
from kinto_attachment.index.tested_versions import is_tested

# If another transaction has changed a row, PostgreSQL waits for its end, and looks at it again.
REMOVE = """
    DELETE FROM objects
     WHERE parent_id LIKE :links AND resource_name = 'attachment' AND NOT deleted
       AND id NOT LIKE '%-shared' AND data->>'state' = ANY(:states)
       AND NOT jsonb_exists_any(data, CAST(:special AS TEXT[]))
    RETURNING data->>'key' AS key, COALESCE(data->>'storage', '') AS storage
"""


class PostgreSQLRemovals:
    """Removals in Kinto's PostgreSQL backend."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def remove_below(self, uri: str) -> list[StoredFile]:
        parameters = {
            "links": f"attachments:{literally(uri)}/%",
            "states": list(REMOVED),
            "special": list(SPECIAL),
        }
        with self._client.connect() as session:
            rows = session.execute(sql(REMOVE), parameters)
            return [StoredFile(storage, key) for key, storage in rows]


def removals(backend: Any, page_size: int, *, fast: bool = True) -> Removals:
    """The fastest way to remove many links that this backend of Kinto allows."""
    if fast and is_tested() and type(backend) is PostgreSQLStorage:
        return PostgreSQLRemovals(backend.client)
    return SeparateRemovals(backend, page_size)
