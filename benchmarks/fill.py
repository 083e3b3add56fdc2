"""Databases with many attachments, filled by SQL in the layout of each contender.

The files of the links do not exist unless a row needs them, because only the cost of the links
is measured.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass

import psycopg2

RECORD = "md5('record' || n)::uuid::text"
KEY = "md5('file' || n)::uuid::text || '.jpg'"
WHEN = "timestamp '2020-01-01' + n * interval '1 millisecond'"
PRINCIPAL = "basicauth:5042e6b1e16de3a6d381fd6d4979bda5643b9f551b66f142472289d0671ad7ef"


@dataclass(frozen=True)
class Layout:
    """Where a plugin keeps the link between a record and its file, as SQL over ``n``."""

    id: str
    parent: str
    resource: str
    data: str


CONTENT = bytes(16384)
CREATED = 1577836800000  # In milliseconds since the epoch.
HASH = hashlib.sha256(CONTENT).hexdigest()
OURS = Layout(
    id=f"encode(sha256(({KEY})::bytea), 'hex')",
    parent=f"'attachments:' || %(collection)s || '/records/' || {RECORD}",
    resource="attachment",
    data=f"""jsonb_build_object(
        'key', {KEY}, 'record', %(collection)s || '/records/' || {RECORD},
        'filename', 'picture.jpg', 'hash', '{HASH}', 'mimetype', 'image/jpeg',
        'size', {len(CONTENT)}, 'state', 'current',
        'created', {CREATED}, 'attached', {CREATED})""",
)
PEER = Layout(
    id="md5('link' || n)::uuid::text",
    parent="'__attachments__'",
    resource="",
    data=f"""jsonb_build_object(
        'location', {KEY}, 'bucket_uri', %(bucket)s, 'collection_uri', %(collection)s,
        'record_uri', %(collection)s || '/records/' || {RECORD})""",
)


def key(number: int) -> str:
    """The key of the file of link ``number``, counted from 1."""
    return f"{uuid.UUID(hashlib.md5(f'file{number}'.encode()).hexdigest())}.jpg"


def fill(url: str, layout: Layout | None, bucket: str, collection: str, count: int) -> None:
    """Create records in an existing collection, with an attachment each if there is a layout."""
    attachment = {
        "hash": HASH,
        "size": len(CONTENT),
        "filename": "picture.jpg",
        "mimetype": "image/jpeg",
        "location": "http://127.0.0.1/files/",
    }
    values = {
        "bucket": bucket,
        "collection": collection,
        "count": count,
        "principal": PRINCIPAL,
        "attachment": json.dumps(attachment),
    }
    record = (
        f"""jsonb_build_object('attachment', %(attachment)s::jsonb ||
            jsonb_build_object('location', 'http://127.0.0.1/files/' || {KEY}))"""
        if layout
        else "jsonb_build_object('title', 'a plain record')"
    )
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            # Disables Kinto's trigger, which would look up the parent's timestamp for each row.
            cursor.execute("SET session_replication_role = replica")
            cursor.execute(_objects(RECORD, "%(collection)s", "record", record), values)
            cursor.execute(
                f"""INSERT INTO access_control_entries (object_id, permission, principal)
                SELECT %(collection)s || '/records/' || {RECORD}, 'write', %(principal)s
                FROM generate_series(1, %(count)s) AS n""",
                values,
            )
            if layout:
                cursor.execute(
                    _objects(layout.id, layout.parent, layout.resource, layout.data), values
                )
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
    finally:
        connection.close()


def _objects(identity: str, parent: str, resource: str, data: str) -> str:
    return f"""INSERT INTO objects (id, parent_id, resource_name, last_modified, data, deleted)
        SELECT {identity}, {parent}, '{resource}', {WHEN}, {data}, FALSE
        FROM generate_series(1, %(count)s) AS n"""
