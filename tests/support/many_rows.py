"""A database with many records with files, in rows of earlier releases."""

from __future__ import annotations

from tests.support.application import COLLECTION
from tests.support.services import PostgreSQL

ROWS = f"""
    ALTER TABLE objects DISABLE TRIGGER ALL;
    INSERT INTO objects (id, parent_id, resource_name, last_modified, data, deleted)
    SELECT 'r' || n, '{COLLECTION}', 'record', from_epoch(1500000000000 + n),
           jsonb_build_object('attachment', file || jsonb_build_object(
               'location', 'http://localhost/v1/attachments/' || n || '.txt')), FALSE
      FROM generate_series(1, {{count}}) AS n, file;
    INSERT INTO objects (id, parent_id, resource_name, last_modified, data, deleted)
    SELECT encode(sha256(convert_to(n || '.txt', 'UTF8')), 'hex'),
           'attachments:{COLLECTION}/records/r' || n, 'attachment', from_epoch(n),
           file || jsonb_build_object(
               'key', n || '.txt', 'record', '{COLLECTION}/records/r' || n,
               'state', 'current'), FALSE
      FROM generate_series(1, {{count}}) AS n, file;
    ALTER TABLE objects ENABLE TRIGGER ALL;
    ANALYZE objects;
""".replace(
    ", file;",
    """, (SELECT '{"filename": "a.txt", "hash": "00", "mimetype": "text/plain", "size": 3}'::jsonb
           AS file) AS files;""",
)


def fill(postgresql: PostgreSQL, url: str, count: int, *more: str) -> None:
    name = url.split("?")[0].rsplit("/", 1)[1]
    statements = [each.replace("{count}", str(count)) for each in (ROWS, *more)]
    postgresql.execute(*statements, database=name)
