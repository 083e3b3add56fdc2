"""Preventing files in collections that are deleted while a request writes a record.

Kinto does not lock a collection while it writes a record. A record that is written while its
collection is deleted outlives it, and belongs to the next collection with that id. For records
with files, this is prevented: a record gets a file only while its collection exists. On
PostgreSQL, the check is part of the statement that writes the link. Backends of other packages are
first queried and then written to, without a lock in between.
"""

from __future__ import annotations

import json
from typing import Any

from kinto.core.storage.exceptions import ObjectNotFoundError
from kinto.core.storage.postgresql import Storage as PostgreSQLStorage

from kinto_attachment.index.link import Link
from kinto_attachment.index.objects import Objects, random_timestamp
from kinto_attachment.index.sql import sql
from kinto_attachment.kinto_types import KintoObject
from kinto_attachment.uris import RecordURI

INSERT = """
    INSERT INTO objects (id, parent_id, resource_name, data, last_modified, deleted)
    SELECT :id, :parent_id, 'attachment', CAST(:data AS JSONB), from_epoch(:timestamp), FALSE
      FROM objects AS collection
     WHERE collection.id = :collection_id
       AND collection.parent_id = :bucket
       AND collection.resource_name = 'collection'
       AND NOT collection.deleted
    {lock}
    ON CONFLICT (id, parent_id, resource_name) DO UPDATE
       SET data = EXCLUDED.data, last_modified = EXCLUDED.last_modified, deleted = FALSE
"""
# Like foreign keys. It does not conflict with other changes of the collection.
SHARED_LOCK = "FOR KEY SHARE OF collection"
EXCLUSIVE_LOCK = """
    SELECT 1 FROM objects
     WHERE id = :collection_id AND parent_id = :bucket AND resource_name = 'collection'
       FOR UPDATE
"""
ALL_OBJECTS = "LOCK TABLE objects IN EXCLUSIVE MODE"
# A record and its collection in one statement; either may be missing.
BOTH = """
    SELECT resource_name, data, as_epoch(last_modified) AS last_modified FROM objects
     WHERE resource_name = 'record' AND parent_id = :collection AND id = :record_id
       AND NOT deleted
     UNION ALL
    SELECT resource_name, data, as_epoch(last_modified) AS last_modified FROM objects
     WHERE resource_name = 'collection' AND parent_id = :bucket AND id = :collection_id
       AND NOT deleted
"""


class Collections:
    """The collections in a Kinto storage backend, in the caller's transaction."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def put_link(self, link: Link, *, is_new: bool) -> bool:
        """Write the link of a record; False if the record's collection was deleted.

        A record that ``is_new`` is invisible to a request that deletes the collection. The lock
        makes that request wait for the commit.
        """
        uri = RecordURI.parse(link.record)
        if not isinstance(self._backend, PostgreSQLStorage):
            return self._put_if_exists(uri.collection, link)
        written = self._execute(
            INSERT.format(lock=SHARED_LOCK if is_new else ""),
            id=link.id,
            parent_id=link.parent,
            data=json.dumps(link.dump()),
            timestamp=random_timestamp(),
            collection_id=uri.collection_id,
            bucket=uri.bucket,
        )
        return written > 0

    def wait_for_new_records(self, uri: str) -> None:
        """Wait for the requests that write new records with files in a deleted collection.

        Afterwards, their writes are visible. Later requests do not find the collection.
        """
        bucket, _, collection_id = uri.rpartition("/collections/")
        if isinstance(self._backend, PostgreSQLStorage):
            self._execute(EXCLUSIVE_LOCK, collection_id=collection_id, bucket=bucket)

    def wait_for_all(self) -> None:
        """Wait for all writers of the database, and make others wait for the commit."""
        if isinstance(self._backend, PostgreSQLStorage):
            self._execute(ALL_OBJECTS)

    def exists(self, uri: str) -> bool:
        bucket, _, collection_id = uri.rpartition("/collections/")
        return self._get("collection", bucket, collection_id) is not None

    def with_record(self, uri: RecordURI) -> tuple[KintoObject | None, KintoObject | None]:
        """A record and its collection, as Kinto's storage returns them; None for deleted ones."""
        backend = self._backend
        if getattr(type(backend), "get", None) is not PostgreSQLStorage.get:
            return self._record(uri), self._get("collection", uri.bucket, uri.collection_id)
        with backend.client.connect(readonly=True) as session:
            rows = session.execute(
                sql(BOTH),
                {
                    "collection": uri.collection,
                    "record_id": uri.record_id,
                    "bucket": uri.bucket,
                    "collection_id": uri.collection_id,
                },
            ).fetchall()
        ids = {"record": uri.record_id, "collection": uri.collection_id}
        found = {
            row.resource_name: {
                **row.data,
                "id": ids[row.resource_name],
                "last_modified": row.last_modified,
            }
            for row in rows
        }
        return found.get("record"), found.get("collection")

    def record_or_parent(self, uri: RecordURI) -> tuple[KintoObject | None, KintoObject | None]:
        """A record, or its collection if the record does not exist."""
        record = self._record(uri)
        if record is not None:
            return record, None
        return None, self._get("collection", uri.bucket, uri.collection_id)

    def _record(self, uri: RecordURI) -> KintoObject | None:
        return self._get("record", uri.collection, uri.record_id)

    def _get(self, resource_name: str, parent_id: str, object_id: str) -> KintoObject | None:
        try:
            found: KintoObject = self._backend.get(resource_name, parent_id, object_id)
        except ObjectNotFoundError:
            return None
        return found

    def _execute(self, statement: str, **parameters: Any) -> int:
        with self._backend.client.connect() as session:
            return int(session.execute(sql(statement), parameters).rowcount)

    def _put_if_exists(self, collection: str, link: Link) -> bool:
        if not self.exists(collection):
            return False
        Objects(self._backend, "attachment").put(link.parent, link.id, link.dump())
        return True
