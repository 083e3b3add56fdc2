"""Buckets whose contents Kinto would delete along with those of another bucket.

Kinto deletes what is below a bucket by a pattern, in which an ``_`` of the bucket's id matches any
character on PostgreSQL. So it also deletes the records and permissions of buckets whose ids differ
in these characters. Kinto sends no events about these records.
"""

from __future__ import annotations

from typing import Any

from kinto.core.storage.postgresql import Storage as PostgreSQLStorage

from kinto_attachment.index.sql import sql

# With one pattern, PostgreSQL uses the index on ids: there may be many default buckets.
OTHERS = """
    SELECT id FROM objects
     WHERE resource_name = 'bucket' AND parent_id = '' AND NOT deleted
       AND id LIKE :bucket_id AND id <> :bucket_id
"""


class LookAlikes:
    """The buckets in a Kinto storage backend, in the caller's transaction."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._has_patterns = isinstance(backend, PostgreSQLStorage)

    def of(self, bucket_id: str) -> list[str]:
        """The ids of other buckets whose contents Kinto would delete with those of a bucket."""
        if not self._has_patterns or "_" not in bucket_id:
            return []
        with self._backend.client.connect() as session:
            rows = session.execute(sql(OTHERS), {"bucket_id": bucket_id})
            return [row.id for row in rows]
