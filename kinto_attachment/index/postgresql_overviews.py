"""A record, its collection and a user's rights, in one statement on Kinto's tables.

Tested with the versions of Kinto in ``tested_versions.py``, and used with no other.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from kinto.core.permission.postgresql import Permission as PostgreSQLPermission
from kinto.core.storage.memory import Storage as MemoryStorage
from kinto.core.storage.postgresql import Storage as PostgreSQLStorage

from kinto_attachment.index.collections import Collections
from kinto_attachment.index.overviews import (
    EVERYBODY,
    Overview,
    Overviews,
    Permission,
    Rights,
    SeparateOverviews,
)
from kinto_attachment.index.tested_versions import is_tested
from kinto_attachment.kinto_types import KintoObject
from kinto_attachment.uris import RecordURI

# Groups that were granted to system.Authenticated are those of every user, as in Kinto.
OVERVIEW = """
WITH groups AS (
    SELECT principal FROM user_principals WHERE user_id = ANY(CAST(:users AS TEXT[]))
), granted AS (
    SELECT entry.object_id, entry.permission, entry.principal
      FROM unnest(CAST(:uris AS TEXT[]), CAST(:permissions AS TEXT[])) AS asked (uri, permission)
      JOIN access_control_entries AS entry
        ON entry.object_id = asked.uri AND entry.permission = asked.permission
     WHERE entry.principal = ANY(CAST(:principals AS TEXT[]))
        OR entry.principal IN (SELECT principal FROM groups)
)
SELECT record.data AS record, as_epoch(record.last_modified) AS record_time,
       collection.data AS collection, as_epoch(collection.last_modified) AS collection_time,
       (SELECT array_agg(principal) FROM groups) AS groups,
       (SELECT jsonb_agg(jsonb_build_array(object_id, permission, principal)) FROM granted)
           AS granted,
       EXISTS (SELECT FROM timestamps
                WHERE parent_id = :collection_uri AND resource_name = 'record') AS has_timestamp
  FROM (SELECT 1) AS one
  LEFT JOIN objects AS record
    ON record.id = :record_id AND record.parent_id = :collection_uri
   AND record.resource_name = 'record' AND NOT record.deleted
  LEFT JOIN objects AS collection
    ON collection.id = :collection_id AND collection.parent_id = :bucket_uri
   AND collection.resource_name = 'collection' AND NOT collection.deleted
"""


class PostgreSQLOverviews:
    """Overviews with the rights, of records and permissions in one database."""

    reads_rights = True

    def __init__(self, client: Any) -> None:
        self._client = client

    def of(self, uri: RecordURI, user: str | None, permissions: Iterable[Permission]) -> Overview:
        asked = list(dict.fromkeys(permissions))
        with self._client.connect(readonly=True) as session:
            row = session.execute(
                statement(),
                {
                    "users": [] if user is None else [user, "system.Authenticated"],
                    "principals": [*EVERYBODY, *([] if user is None else [user])],
                    "uris": [each for each, _ in asked],
                    "permissions": [name for _, name in asked],
                    "record_id": uri.record_id,
                    "collection_uri": uri.collection,
                    "collection_id": uri.collection_id,
                    "bucket_uri": uri.bucket,
                },
            ).fetchone()
        rights = Rights(
            user,
            frozenset(row.groups or ()),
            frozenset(asked),
            frozenset(map(tuple, row.granted or ())),
        )
        return Overview(
            loaded(uri.record_id, row.record, row.record_time),
            loaded(uri.collection_id, row.collection, row.collection_time),
            rights,
            has_timestamp=row.has_timestamp,
        )


def overviews(storage: Any, permission: Any, collections: Collections) -> Overviews:
    """The fastest way to read overviews that these backends of Kinto allow."""
    if (
        is_tested()
        and type(storage) is PostgreSQLStorage
        and type(permission) is PostgreSQLPermission
        and storage.client is permission.client
    ):
        return PostgreSQLOverviews(storage.client)
    return SeparateOverviews(collections, in_memory=isinstance(storage, MemoryStorage))


def loaded(object_id: str, data: KintoObject | None, timestamp: int) -> KintoObject | None:
    return None if data is None else {**data, "id": object_id, "last_modified": timestamp}


@cache
def statement() -> Any:
    from sqlalchemy import text

    return text(OVERVIEW)
