"""Changing records without new timestamps, so that synchronizing clients do not notice.

When its data are written, Kinto's trigger gives the newest record of a collection a new
``last_modified``, which changes the collection's ETag. The trigger ignores statements that only
set ``last_modified``, so the old one is set again in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kinto.core.storage.postgresql import Storage as PostgreSQLStorage

from kinto_attachment.index.sql import sql
from kinto_attachment.uris import RecordURI

# The ids occur twice because the primary key begins with the id. With the index on parents, all
# records of a collection would be read for each one. The timestamps have microseconds, which rows
# may have that Kinto did not write.
TIMESTAMPS = """
    SELECT parent_id, id, CAST(last_modified AS TEXT) AS stamp FROM objects
     WHERE resource_name = 'record' AND NOT deleted
       AND id = ANY(:ids) AND parent_id = ANY(:parents)
       AND (parent_id, id) IN (
           SELECT * FROM unnest(CAST(:parents AS TEXT[]), CAST(:ids AS TEXT[])))
"""
LOCATIONS = """
    UPDATE objects
       SET data = jsonb_set(data, '{attachment,location}', to_jsonb(new.location))
      FROM unnest(CAST(:parents AS TEXT[]), CAST(:ids AS TEXT[]), CAST(:values AS TEXT[]))
           AS new (parent_id, id, location)
     WHERE objects.resource_name = 'record' AND NOT objects.deleted
       AND objects.id = ANY(:ids) AND objects.parent_id = ANY(:parents)
       AND objects.parent_id = new.parent_id AND objects.id = new.id
"""
RESTORE = """
    UPDATE objects
       SET last_modified = CAST(new.stamp AS TIMESTAMP)
      FROM unnest(CAST(:parents AS TEXT[]), CAST(:ids AS TEXT[]), CAST(:values AS TEXT[]))
           AS new (parent_id, id, stamp)
     WHERE objects.resource_name = 'record' AND NOT objects.deleted
       AND objects.id = ANY(:ids) AND objects.parent_id = ANY(:parents)
       AND objects.parent_id = new.parent_id AND objects.id = new.id
       AND objects.last_modified <> CAST(new.stamp AS TIMESTAMP)
"""


def can_write_quietly(backend: object) -> bool:
    return isinstance(backend, PostgreSQLStorage)


def write_locations(backend: Any, locations: Mapping[RecordURI, str]) -> None:
    """Write the ``location`` of records that the caller's transaction has locked."""
    parents = [uri.collection for uri in locations]
    ids = [uri.record_id for uri in locations]
    rows = _execute(backend, TIMESTAMPS, parents=parents, ids=ids)
    _execute(backend, LOCATIONS, parents=parents, ids=ids, values=[*locations.values()])
    _execute(
        backend,
        RESTORE,
        parents=[row.parent_id for row in rows],
        ids=[row.id for row in rows],
        values=[row.stamp for row in rows],
    )


def _execute(backend: Any, statement: str, **parameters: Any) -> list[Any]:
    with backend.client.connect() as session:
        result = session.execute(sql(statement), parameters)
        return list(result) if result.returns_rows else []
