"""Upload sessions in the database. Only its own requests write a session.

A request that writes bytes draws a token, and can commit durable bytes only while the session has
that token. So no lock is held between two requests or while bytes arrive, and a request that hangs
cannot overwrite the work of a later one.

The timestamps of rows have no meaning, but are in a database index. Ended sessions, which may be
many, have the lower half of the timestamps, so they are not read to find the others.

On PostgreSQL, each change is one statement, or two if the row has to be read first. Backends of
other packages are read and written under the lock of another row, because Kinto has no other way.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

from kinto.core.storage import Filter, Sort
from kinto.core.storage.postgresql import Storage as PostgreSQLStorage
from kinto.core.utils import COMPARISON

from kinto_attachment.index.locks import FileLocks
from kinto_attachment.index.objects import TIMESTAMPS, Objects, batches
from kinto_attachment.index.session import UNFINISHED, Session, parent_of, partial_id
from kinto_attachment.index.sql import sql
from kinto_attachment.uris import RecordURI

RESOURCE = "attachment-upload"
ANY = "attachments-upload:*"

SELECT = """
    SELECT data FROM objects
     WHERE id = :id AND parent_id = :parent_id AND resource_name = 'attachment-upload'
       AND NOT deleted
       FOR UPDATE
"""
COMMIT = """
    UPDATE objects
       SET data = CAST(:data AS JSONB), last_modified = from_epoch(:timestamp)
     WHERE id = :id AND parent_id = :parent_id AND resource_name = 'attachment-upload'
       AND data->>'writer' = :writer AND NOT deleted
"""

LIVING = """
    SELECT data FROM objects
     WHERE parent_id = :parent_id AND resource_name = 'attachment-upload'
       AND last_modified >= from_epoch(:least) AND NOT deleted
       AND data->>'state' IN ('open', 'finishing')
       AND CAST(data->>'expires' AS BIGINT) > :now
       AND (CAST(:owner AS TEXT) IS NULL OR data->>'owner' = :owner)
"""
COUNT = f"SELECT count(*) AS count FROM ({LIVING}) AS living"  # noqa: S608 - no input in it.
# Not a row, which would be written for each upload.
LOCK_OWNER = "SELECT pg_advisory_xact_lock(hashtextextended(:name, 22))"
# The lowest timestamp of sessions that may continue.
LEAST = TIMESTAMPS // 2

TOTALS = """
    SELECT count(*) AS count, COALESCE(sum((data->'partial'->>'size')::BIGINT), 0) AS bytes
      FROM objects
     WHERE resource_name = 'attachment-upload' AND parent_id LIKE 'attachments-upload:%'
       AND last_modified >= from_epoch(:least)
       AND data->>'state' = ANY(:states) AND (data->>'expires')::BIGINT > :now AND NOT deleted
"""


class Sessions:
    """The sessions in a Kinto storage backend; all methods run in the caller's transaction."""

    def __init__(self, backend: Any, page_size: int) -> None:
        self._backend = backend
        self._page_size = page_size
        self._rows = Objects(backend, RESOURCE)
        self._locks = FileLocks(backend)
        self._has_sql = isinstance(backend, PostgreSQLStorage)
        self._lock = threading.RLock()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """What a short transaction that changes a session runs in: memory backends lock nothing.

        PostgreSQL locks the row, and this does nothing.
        """
        if self._has_sql:
            yield
        else:
            with self._lock:
                yield

    def get(self, record: str, upload: str) -> Session | None:
        row = self._rows.get(_parent(record), partial_id(upload))
        return self._found(row, record)

    def lock(self, record: str, upload: str) -> Session | None:
        """The session, which nobody else can change before this transaction ends."""
        parent, object_id = _parent(record), partial_id(upload)
        if self._has_sql:
            rows = self._execute(SELECT, id=object_id, parent_id=parent)
            return self._found(rows[0].data if rows else None, record)
        self._locks.lock(object_id)
        found = self._found(self._rows.get(parent, object_id), record)
        self._locks.clear(object_id)
        return found

    def put(self, session: Session) -> None:
        """Write a session that is new, or locked."""
        self._rows.put(session.parent, session.id, session.dump(), timestamp_of(session))

    def commit(self, session: Session, writer: str) -> bool:
        """Write a session if it still has this writer's token; False if it was taken over."""
        if not self._has_sql:
            found = self.lock(session.record, session.upload)
            if found is None or found.writer != writer:
                return False
            self.put(session)
            return True
        return bool(
            self._execute(
                COMMIT,
                id=session.id,
                parent_id=session.parent,
                data=json.dumps(session.dump()),
                timestamp=timestamp_of(session),
                writer=writer,
            )
        )

    def is_writer(self, session: Session) -> bool:
        """Whether the session in the database still has the same token."""
        found = self.get(session.record, session.upload)
        return found is not None and found.writer == session.writer

    def delete(self, session: Session) -> None:
        self._rows.delete(session.parent, session.id)

    def unfinished_of(self, collection: str, owner: str, now: int) -> list[Session]:
        """The sessions of a user in a collection that may continue; ``now`` is in ms."""
        return self._living(collection, now, owner)

    def put_within(self, most: int, session: Session, now: int) -> bool:
        """Write a new session, unless its owner has this many in the collection that may continue.

        Other new sessions of the owner in the collection wait for the end of the transaction.
        """
        collection, owner = RecordURI.parse(session.record).collection, session.owner
        if self._has_sql:
            self._execute(LOCK_OWNER, name=f"{parent_of(collection)} {owner}")
            parameters = {"parent_id": parent_of(collection), "owner": owner}
            (row,) = self._execute(COUNT, least=LEAST, now=now, **parameters)
            found = int(row.count)
        else:
            self._locks.lock(f"{collection} {owner}")
            found = len(self.unfinished_of(collection, owner, now))
            self._locks.clear(f"{collection} {owner}")
        if found < most:
            self.put(session)
        return found < most

    def unfinished_in(self, collection: str, now: int) -> list[Session]:
        """The sessions of all users in a collection that may continue, newest first."""
        found = self._living(collection, now)
        return sorted(found, key=attrgetter("created", "id"), reverse=True)

    def unfinished_totals(self, now: int) -> tuple[int, int]:
        """The number of sessions that may continue, and their bytes."""
        if self._has_sql:
            (row,) = self._execute(TOTALS, states=list(UNFINISHED), least=LEAST, now=now)
            return int(row.count), int(row.bytes)
        found = [Session.load(row) for row in self._rows.list(ANY, *_living(now))]
        return len(found), sum(session.size for session in found)

    def owned_keys(self, keys: Collection[str]) -> set[str]:
        """Those of ``keys`` that belong to a session that has not ended."""
        return self._known("key", keys)

    def owned_partials(self, ids: Collection[str]) -> set[str]:
        """Those of ``ids``, of Partials, whose session has not ended."""
        return self._known("id", ids)

    def pages(self) -> Iterator[list[Session]]:
        """All sessions, page by page; they may be deleted during the iteration."""
        last = ""
        while rows := self._rows.list(
            ANY,
            Filter("id", last, COMPARISON.GT),
            sorting=[Sort("id", 1)],
            limit=self._page_size,
        ):
            last = rows[-1]["id"]
            yield [Session.load(row) for row in rows]

    def _living(self, collection: str, now: int, owner: str | None = None) -> list[Session]:
        parent = parent_of(collection)
        if self._has_sql:
            rows = self._execute(LIVING, parent_id=parent, least=LEAST, now=now, owner=owner)
            return [Session.load(row.data) for row in rows]
        filters = _living(now)
        if owner is not None:
            filters.append(Filter("owner", owner, COMPARISON.EQ))
        return [Session.load(row) for row in self._rows.list(parent, *filters)]

    def _known(self, field: str, values: Collection[str]) -> set[str]:
        found: set[str] = set()
        values = {*values} - {""}
        for batch in batches(values):
            among = Filter(field, batch, COMPARISON.IN)
            unfinished = Filter("state", list(UNFINISHED), COMPARISON.IN)
            found.update(row[field] for row in self._rows.list(ANY, among, unfinished))
        return found

    @staticmethod
    def _found(row: Any, record: str) -> Session | None:
        session = None if row is None else Session.load(row)
        return session if session is not None and session.record == record else None

    def _execute(self, statement: str, **parameters: Any) -> list[Any]:
        """The rows of a SELECT; of an UPDATE, as many items as it has written rows."""
        with self._backend.client.connect() as session:
            result = session.execute(sql(statement), parameters)
            return list(result) if result.returns_rows else [None] * result.rowcount


def _parent(record: str) -> str:
    return parent_of(RecordURI.parse(record).collection)


def _living(now: int) -> list[Filter]:
    return [
        Filter("state", list(UNFINISHED), COMPARISON.IN),
        Filter("expires", now, COMPARISON.GT),
    ]


def timestamp_of(session: Session) -> int:
    """A random timestamp for the row of a session."""
    return secrets.randbelow(LEAST - 1) + (LEAST if session.is_unfinished else 1)
