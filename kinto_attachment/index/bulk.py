"""Reading and writing the links of many records in a few statements, for commands.

The rules for requests also apply here: a file that is linked late is locked first, and records are
locked before links.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from kinto.core.storage.exceptions import ObjectNotFoundError
from kinto.core.storage.postgresql import Storage as PostgreSQLStorage

from kinto_attachment.index.link import Link
from kinto_attachment.index.links import Links
from kinto_attachment.index.locks import LOCK, lock_parent
from kinto_attachment.index.objects import digest_of, random_timestamp
from kinto_attachment.kinto_types import KintoObject
from kinto_attachment.uris import RecordURI

LINKS = """
    SELECT id, data FROM objects
     WHERE resource_name = 'attachment' AND parent_id = ANY(:parents) AND NOT deleted
"""
# It does not wait, which would deadlock with a request that writes several of the records.
RECORDS = """
    SELECT parent_id, id, data, as_epoch(last_modified) AS last_modified FROM objects
     WHERE resource_name = 'record' AND NOT deleted
       -- For the primary key: by the index on parents, all records are read, for each of them.
       AND id = ANY(:ids) AND parent_id = ANY(:parents)
       AND (parent_id, id) IN (
           SELECT * FROM unnest(CAST(:parents AS TEXT[]), CAST(:ids AS TEXT[])))
     ORDER BY parent_id, id
       FOR {lock} {skip}
"""
INSERT = """
    INSERT INTO objects (id, parent_id, resource_name, data, last_modified, deleted)
    SELECT id, parent_id, :resource_name, CAST(data AS JSONB), from_epoch(stamp), FALSE
      FROM unnest(CAST(:ids AS TEXT[]), CAST(:parents AS TEXT[]), CAST(:rows AS TEXT[]),
                  CAST(:stamps AS BIGINT[])) AS new (id, parent_id, data, stamp)
     ORDER BY parent_id
    ON CONFLICT (id, parent_id, resource_name) DO {conflict}
"""
WAITING = """
    SELECT jsonb_array_elements_text(data->'keys') AS key FROM objects
     WHERE resource_name = 'attachment-garbage'
       AND jsonb_exists_any(data->'keys', CAST(:keys AS TEXT[])) AND NOT deleted
"""
LOCKED = "UPDATE SET last_modified = EXCLUDED.last_modified, deleted = FALSE"
UNLOCK = """
    DELETE FROM objects
     WHERE id = :id AND resource_name = 'attachment-lock' AND parent_id = ANY(:parents)
"""


class BulkLinks:
    """The links in a Kinto storage backend; all methods run in the caller's transaction."""

    def __init__(self, backend: Any, links: Links) -> None:
        self._backend = backend
        self._links = links
        self._one_by_one = not isinstance(backend, PostgreSQLStorage)

    def of_records(self, records: Iterable[str]) -> dict[str, list[Link]]:
        """The links of records, in any state."""
        found: dict[str, list[Link]] = {record: [] for record in records}
        if self._one_by_one:
            return {record: self._links.of_record(record) for record in found}
        parents = [f"attachments:{record}" for record in found]
        for row in self._execute(LINKS, parents=parents):
            link = Link.load({**row.data, "id": row.id})
            found[link.record].append(link)
        return found

    def locked_records(
        self, records: Iterable[str], *, wait: bool = False, to_write: bool = False
    ) -> dict[str, KintoObject]:
        """The existing records, locked against changes until the commit.

        Records that another transaction is writing are left out, unless ``wait`` is true. With
        ``to_write``, transactions that lock the same record wait for each other.
        """
        uris = [RecordURI.parse(record) for record in records]
        if self._one_by_one:
            return dict(found for uri in uris if (found := self._record(uri)))
        rows = self._execute(
            RECORDS.format(
                # The lock of an UPDATE.
                lock="NO KEY UPDATE" if to_write else "SHARE",
                skip="" if wait else "SKIP LOCKED",
            ),
            parents=[uri.collection for uri in uris],
            ids=[uri.record_id for uri in uris],
        )
        return {
            f"{row.parent_id}/records/{row.id}": {
                **row.data,
                "id": row.id,
                "last_modified": row.last_modified,
            }
            for row in rows
        }

    def add(self, links: Sequence[Link]) -> list[Link]:
        """Link files that have no link and are not about to be deleted; returns the new links.

        The caller knows that the files exist, and has locked their records.
        """
        if self._one_by_one:
            return [link for link in links if self._add_one(link)]
        keys = [link.key for link in links]
        self.lock(keys)
        taken = {*self._links.of_keys(link.key for link in links), *self._waiting(links)}
        free: dict[str, Link] = {}
        for link in links:
            if link.key not in taken:
                free.setdefault(link.key, link)  # Other records share it afterwards.
        for storage in {link.storage for link in free.values()} - {""}:
            self._links.used_storages.note(storage)
        rows = [(link.id, link.parent, link.dump()) for link in free.values()]
        self._insert("attachment", rows, "NOTHING")
        self.unlock(keys)
        for link in free.values():
            self._links.usage.added(link)
        return list(free.values())

    def lock(self, keys: Iterable[str]) -> None:
        """Lock files against other transactions that lock them, until the commit."""
        if self._one_by_one:
            for key in sorted(keys, key=digest_of):
                self._links.locks.lock(key)
            return
        parents = sorted({lock_parent(key) for key in keys})
        self._insert("attachment-lock", [(LOCK, parent, {}) for parent in parents], LOCKED)

    def unlock(self, keys: Iterable[str]) -> None:
        """Delete the rows of the locks; the files stay locked until the commit."""
        if self._one_by_one:
            for key in keys:
                self._links.locks.clear(key)
            return
        self._execute(UNLOCK, id=LOCK, parents=[lock_parent(key) for key in keys])

    def _waiting(self, links: Sequence[Link]) -> list[str]:
        """The keys in the outbox entries that contain a key of the links."""
        keys = [link.key for link in links]
        return [row.key for row in self._execute(WAITING, keys=keys)]

    def _insert(
        self, resource_name: str, rows: list[tuple[str, str, dict[str, Any]]], conflict: str
    ) -> None:
        self._execute(
            INSERT.format(conflict=conflict),
            resource_name=resource_name,
            ids=[row[0] for row in rows],
            parents=[row[1] for row in rows],
            rows=[json.dumps(row[2]) for row in rows],
            stamps=[random_timestamp() for _ in rows],
        )

    def _execute(self, statement: str, **parameters: Any) -> list[Any]:
        from sqlalchemy import text

        with self._backend.client.connect() as session:
            result = session.execute(text(statement), parameters)
            return list(result) if result.returns_rows else []

    def _record(self, uri: RecordURI) -> tuple[str, KintoObject] | None:
        try:
            return str(uri), self._backend.get("record", uri.collection, uri.record_id)
        except ObjectNotFoundError:
            return None

    def _add_one(self, link: Link) -> bool:
        if self._links.of_key(link.key) or self._links.outbox.entries(link.key):
            return False
        self._links.add(link)
        return True
