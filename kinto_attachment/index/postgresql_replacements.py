"""Writing a link, removing the old one and entering its file in the outbox, in one statement.

Only used with the versions of Kinto in ``tested_versions.py``. The order of the changes does not
matter, because nobody else knows the new link or the entry.
"""

from __future__ import annotations

import json
from typing import Any

from kinto.core.storage.postgresql import Storage as PostgreSQLStorage

from kinto_attachment.index.collections import Collections
from kinto_attachment.index.link import Link
from kinto_attachment.index.objects import random_timestamp
from kinto_attachment.index.outbox import Garbage, Outbox
from kinto_attachment.index.replacements import Replaced, Replacements, SeparateReplacements
from kinto_attachment.index.sql import sql
from kinto_attachment.index.tested_versions import is_tested
from kinto_attachment.uris import RecordURI

REPLACE = """
WITH added AS (
    INSERT INTO objects (id, parent_id, resource_name, data, last_modified, deleted)
    SELECT :id, :parent, 'attachment', CAST(:data AS JSONB), from_epoch(:timestamp), FALSE
      FROM objects AS collection
     WHERE collection.id = :collection_id
       AND collection.parent_id = :bucket
       AND collection.resource_name = 'collection'
       AND NOT collection.deleted
    ON CONFLICT (id, parent_id, resource_name) DO UPDATE
       SET data = EXCLUDED.data, last_modified = EXCLUDED.last_modified, deleted = FALSE
    RETURNING id
), removed AS (
    DELETE FROM objects
     WHERE id = :old_id AND parent_id = :parent AND resource_name = 'attachment'
       AND NOT deleted AND EXISTS (SELECT FROM added)
    RETURNING id
), entered AS (
    INSERT INTO objects (id, parent_id, resource_name, data, last_modified, deleted)
    SELECT :entry_id, :entry_parent, 'attachment-garbage', CAST(:entry AS JSONB),
           from_epoch(:entry_timestamp), FALSE
      FROM removed
)
SELECT EXISTS (SELECT FROM added) AS added, EXISTS (SELECT FROM removed) AS removed
"""


class PostgreSQLReplacements:
    """Replacements in Kinto's PostgreSQL backend."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def replace_link(self, link: Link, old: Link, entry: Garbage) -> Replaced:
        uri = RecordURI.parse(link.record)
        with self._client.connect() as session:
            row = session.execute(
                sql(REPLACE),
                {
                    "id": link.id,
                    "parent": link.parent,
                    "data": json.dumps(link.dump()),
                    "timestamp": random_timestamp(),
                    "collection_id": uri.collection_id,
                    "bucket": uri.bucket,
                    "old_id": old.id,
                    "entry_id": entry.id,
                    "entry_parent": entry.parent,
                    "entry": json.dumps(entry.dump()),
                    "entry_timestamp": random_timestamp(),
                },
            ).fetchone()
        return Replaced(added=row.added, removed=row.removed)


def replacements(
    backend: Any, collections: Collections, outbox: Outbox, *, fast: bool = True
) -> Replacements:
    """The fastest way to replace links that this backend of Kinto supports."""
    if fast and is_tested() and type(backend) is PostgreSQLStorage:
        return PostgreSQLReplacements(backend.client)
    return SeparateReplacements(backend, collections, outbox)
