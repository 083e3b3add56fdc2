"""The removal of all links below a bucket or a collection in one statement on Kinto's tables.

The statement also enters their files in the outbox. It is only used with the versions of Kinto in
``tested_versions.py``.
"""

from __future__ import annotations

from typing import Any

from kinto.core.storage.postgresql import Storage as PostgreSQLStorage

from kinto_attachment.index.objects import BATCH, random_timestamp
from kinto_attachment.index.outbox import PARENT, Garbage, Outbox
from kinto_attachment.index.patterns import literally
from kinto_attachment.index.removals import REMOVED, SPECIAL, Removals, SeparateRemovals
from kinto_attachment.index.sql import sql
from kinto_attachment.index.tested_versions import is_tested

# If another transaction has changed a row, PostgreSQL waits for its end and checks the row again.
# The database also makes the entries of the outbox, because reading and writing the keys of all
# files would take as long as the deletion of the links.
REMOVE = """
WITH removed AS (
    DELETE FROM objects
     WHERE parent_id LIKE :links AND resource_name = 'attachment' AND NOT deleted
       AND id NOT LIKE '%-shared' AND data->>'state' = ANY(:states)
       AND NOT jsonb_exists_any(data, CAST(:special AS TEXT[]))
    RETURNING data->>'key' AS key, COALESCE(data->>'storage', '') AS storage
), numbered AS (
    SELECT key, storage, row_number() OVER (PARTITION BY storage) AS number FROM removed
), entries AS (
    SELECT :entry || '-' || row_number() OVER () AS id, storage, jsonb_agg(key) AS keys
      FROM numbered
     GROUP BY storage, (number - 1) / :at_once
)
INSERT INTO objects (id, parent_id, resource_name, data, last_modified, deleted)
SELECT id, :parent || id, 'attachment-garbage',
       jsonb_build_object('keys', keys, 'since', CAST(:since AS BIGINT))
       || CASE storage
          WHEN '' THEN CAST('{}' AS JSONB) ELSE jsonb_build_object('storage', storage) END,
       from_epoch(:timestamp), FALSE
  FROM entries
RETURNING id, data
"""


class PostgreSQLRemovals:
    """Removals in Kinto's PostgreSQL backend."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def remove_below(self, uri: str) -> list[Garbage]:
        new = Garbage.of([])
        parameters = {
            "links": f"attachments:{literally(uri)}/%",
            "states": list(REMOVED),
            "special": list(SPECIAL),
            "at_once": BATCH,
            "entry": new.id,
            "parent": PARENT,
            "since": new.since,
            "timestamp": random_timestamp(),
        }
        with self._client.connect() as session:
            rows = session.execute(sql(REMOVE), parameters)
            return [Garbage.load({**data, "id": entry_id}) for entry_id, data in rows]


def removals(backend: Any, outbox: Outbox, page_size: int, *, fast: bool = True) -> Removals:
    """The fastest way to remove many links that this backend of Kinto supports."""
    if fast and is_tested() and type(backend) is PostgreSQLStorage:
        return PostgreSQLRemovals(backend.client)
    return SeparateRemovals(backend, outbox, page_size)
