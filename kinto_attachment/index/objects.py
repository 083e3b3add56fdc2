"""The plugin's objects in Kinto's storage backend."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

from kinto.core.decorators import synchronized
from kinto.core.storage import MISSING, Filter
from kinto.core.storage.exceptions import ObjectNotFoundError, UnicityError
from kinto.core.storage.memory import MemoryBasedStorage, Storage as MemoryStorage
from kinto.core.storage.postgresql import Storage as PostgreSQLStorage
from kinto.core.utils import COMPARISON

from kinto_attachment.index.patterns import starting_with
from kinto_attachment.kinto_types import StorageBackend

# Milliseconds since the epoch: up to the year 2004.
TIMESTAMPS = 2**40
# Ids in a query, and keys in an entry of the outbox. S3 deletes this many in a call.
BATCH = 1000

# Sorted, so that two transactions that write the same rows do not deadlock.
PUT_ALL = """
    INSERT INTO objects (id, parent_id, resource_name, data, last_modified, deleted)
    SELECT id, :parent, :resource_name, CAST(data AS JSONB), from_epoch(stamp), FALSE
      FROM unnest(CAST(:ids AS TEXT[]), CAST(:rows AS TEXT[]), CAST(:stamps AS BIGINT[]))
           AS new (id, data, stamp)
     ORDER BY id
    ON CONFLICT (id, parent_id, resource_name) DO UPDATE
       SET data = EXCLUDED.data, last_modified = EXCLUDED.last_modified, deleted = FALSE
"""

T = TypeVar("T")


def digest_of(key: str) -> str:
    """The SHA-256 of an object key in hex, which is a valid id for Kinto."""
    return hashlib.sha256(key.encode()).hexdigest()


def batches(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


class Objects:
    """The objects of one resource name; ``*`` in a parent id matches anything."""

    def __init__(self, backend: StorageBackend, resource_name: str) -> None:
        self._backend = backend
        self._resource_name = resource_name
        self._in_memory = isinstance(backend, MemoryBasedStorage)
        self._is_kintos_memory = type(backend) is MemoryStorage

    def put(self, parent_id: str, object_id: str, obj: dict[str, Any], timestamp: int = 0) -> None:
        self._backend.update(
            resource_name=self._resource_name,
            parent_id=parent_id,
            object_id=object_id,
            obj={**obj, "last_modified": timestamp or random_timestamp()},
        )

    def put_all(self, parent_id: str, objects: Mapping[str, dict[str, Any]]) -> None:
        """Write many objects of a parent, on PostgreSQL in one statement."""
        if not isinstance(self._backend, PostgreSQLStorage):
            for object_id, obj in objects.items():
                self.put(parent_id, object_id, obj)
            return
        from sqlalchemy import text

        parameters = {
            "resource_name": self._resource_name,
            "parent": parent_id,
            "ids": list(objects),
            "rows": [json.dumps(obj) for obj in objects.values()],
            "stamps": [random_timestamp() for _ in objects],
        }
        with self._backend.client.connect() as session:
            session.execute(text(PUT_ALL), parameters)

    def create(self, parent_id: str, object_id: str, obj: dict[str, Any]) -> bool:
        """Create an object; False if it exists, which may mean waiting for another transaction."""
        try:
            self._backend.create(
                resource_name=self._resource_name,
                parent_id=parent_id,
                obj={"id": object_id, **obj, "last_modified": random_timestamp()},
            )
        except UnicityError:
            return False
        return True

    def get(self, parent_id: str, object_id: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._backend.get(self._resource_name, parent_id, object_id)
        except ObjectNotFoundError:
            return None
        return found

    def delete(self, parent_id: str, object_id: str) -> bool:
        """Delete an object; False if it did not exist. Only one of two transactions succeeds."""
        try:
            self._backend.delete(
                resource_name=self._resource_name,
                parent_id=parent_id,
                object_id=object_id,
                with_deleted=False,
            )
        except ObjectNotFoundError:
            return False
        return True

    def delete_all(self, parent_id: str, *filters: Filter) -> list[dict[str, Any]]:
        deleted: list[dict[str, Any]] = self._backend.delete_all(
            resource_name=self._resource_name,
            parent_id=parent_id,
            filters=list(self._matching(filters)),
            with_deleted=False,
        )
        return deleted

    def list_below(self, start: str, *filters: Filter, **options: Any) -> list[dict[str, Any]]:
        """Matching objects of all parents whose ids start with a text."""
        return self.list(starting_with(self._backend, start), *filters, **options)

    def list(self, parent_id: str, *filters: Filter, **options: Any) -> list[dict[str, Any]]:
        """Matching objects, up to Kinto's ``storage_max_fetch_size``."""
        found: list[dict[str, Any]]
        if self._is_kintos_memory and not ("*" in parent_id or filters or options):
            found = below(self._backend, parent_id, self._resource_name)
            return found
        found = self._backend.list_all(
            resource_name=self._resource_name,
            parent_id=parent_id,
            filters=list(self._matching(filters)),
            **options,
        )
        return found

    def count(self, parent_id: str) -> int:
        return self._backend.count_all(resource_name=self._resource_name, parent_id=parent_id)

    def _matching(self, filters: Iterable[Filter]) -> Iterator[Filter]:
        """Filters that all have to match, in any order.

        In Kinto's memory backends, HAS overrides the filters before it. A comparison with their
        substitute for a missing value does not.
        """
        return map(_compared, filters) if self._in_memory else iter(filters)


def _compared(wanted: Filter) -> Filter:
    if wanted.operator != COMPARISON.HAS:
        return wanted
    return Filter(wanted.field, MISSING, COMPARISON.NOT if wanted.value else COMPARISON.EQ)


@synchronized  # type: ignore[untyped-decorator]
def below(backend: Any, parent_id: str, resource_name: str) -> list[dict[str, Any]]:
    """The objects of one parent in Kinto's memory backend, under its own lock.

    Kinto compares the parent with all existing parents, even without a ``*``.
    """
    found = backend._store.get(parent_id, {}).get(resource_name, {})
    return [{**obj} for obj in found.values()]


def random_timestamp() -> int:
    """A random timestamp, so that concurrent transactions do not conflict.

    Timestamps are unique below a parent, and Kinto takes them from the clock by default: of two
    transactions that write below a parent in the same millisecond, one fails.
    """
    return secrets.randbelow(TIMESTAMPS) + 1
