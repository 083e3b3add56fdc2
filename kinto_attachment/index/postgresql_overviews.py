"""A record, its collection and a user's permissions, in one statement on Kinto's tables.

Only used with the versions of Kinto in ``tested_versions.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
from kinto_attachment.index.sql import sql
from kinto_attachment.index.tested_versions import is_tested
from kinto_attachment.kinto_types import KintoObject
from kinto_attachment.uris import RecordURI

# As in Kinto, groups of system.Authenticated are groups of every user. Subqueries, which
# PostgreSQL plans one by one, take half the time of a join. Neither URIs nor the names of
# permissions have spaces.
OVERVIEW = """
SELECT (SELECT jsonb_build_array(data, as_epoch(last_modified)) FROM objects
         WHERE id = :record_id AND parent_id = :collection_uri AND resource_name = 'record'
           AND NOT deleted) AS record,
       (SELECT jsonb_build_array(data, as_epoch(last_modified)) FROM objects
         WHERE id = :collection_id AND parent_id = :bucket_uri AND resource_name = 'collection'
           AND NOT deleted) AS collection,
       ARRAY(SELECT principal FROM user_principals
              WHERE user_id = ANY(CAST(:users AS TEXT[]))) AS groups,
       ARRAY(SELECT object_id || ' ' || permission || ' ' || principal
               FROM access_control_entries
              WHERE object_id = ANY(CAST(:uris AS TEXT[]))
                AND permission = ANY(CAST(:permissions AS TEXT[]))
                AND (principal = ANY(CAST(:principals AS TEXT[]))
                     OR principal IN (SELECT principal FROM user_principals
                                       WHERE user_id = ANY(CAST(:users AS TEXT[])))))
           AS granted,
       EXISTS (SELECT FROM timestamps
                WHERE parent_id = :collection_uri AND resource_name = 'record') AS has_timestamp
"""


class PostgreSQLOverviews:
    """Overviews with permissions, for records and permissions in one database."""

    reads_rights = True

    def __init__(self, client: Any) -> None:
        self._client = client

    def of(
        self,
        uri: RecordURI,
        user: str | None,
        permissions: Iterable[Permission],
        *,
        is_last: bool = False,
    ) -> Overview:
        asked = frozenset(permissions)
        row = self._ask(
            is_last,
            users=[] if user is None else [user, "system.Authenticated"],
            principals=[*EVERYBODY, *([] if user is None else [user])],
            uris=list({each for each, _ in asked}),
            permissions=list({name for _, name in asked}),
            record_id=uri.record_id,
            collection_uri=uri.collection,
            collection_id=uri.collection_id,
            bucket_uri=uri.bucket,
        )
        # The result also contains other pairs of the same URIs and names.
        granted = (split(entry) for entry in row.granted)
        rights = Rights(
            user,
            frozenset(row.groups),
            asked,
            frozenset(entry for entry in granted if entry[:2] in asked),
        )
        return Overview(
            loaded(uri.record_id, row.record),
            loaded(uri.collection_id, row.collection),
            rights,
            has_timestamp=row.has_timestamp,
        )

    def _ask(self, is_last: bool, /, **values: Any) -> Any:
        with self._client.connect(readonly=True) as session:
            engine = session.get_bind()
            if is_last and not session.in_transaction() and engine.driver == "psycopg2":
                with without_transaction(engine) as connection:
                    return connection.execute(sql(OVERVIEW), values).fetchone()
            return session.execute(sql(OVERVIEW), values).fetchone()


def overviews(
    storage: Any, permission: Any, collections: Collections, *, fast: bool = True
) -> Overviews:
    """The fastest way to read overviews that these backends of Kinto support."""
    if (
        fast
        and is_tested()
        and type(storage) is PostgreSQLStorage
        and type(permission) is PostgreSQLPermission
        and storage.client is permission.client
    ):
        return PostgreSQLOverviews(storage.client)
    return SeparateOverviews(collections, in_memory=isinstance(storage, MemoryStorage))


@contextmanager
def without_transaction(engine: Any) -> Iterator[Any]:
    """A connection that executes statements without the round trips for BEGIN and ROLLBACK.

    Leaving SQLAlchemy's isolation level AUTOCOMMIT would take a round trip.
    """
    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        driver.autocommit = True
        try:
            yield connection
        finally:
            if not driver.closed:
                driver.autocommit = False


def loaded(object_id: str, found: tuple[KintoObject, int] | None) -> KintoObject | None:
    return None if found is None else {**found[0], "id": object_id, "last_modified": found[1]}


def split(entry: str) -> tuple[str, str, str]:
    uri, permission, principal = entry.split(" ", 2)
    return uri, permission, principal
