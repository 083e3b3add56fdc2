"""Objects of our own in Kinto's storage backend, in the transaction of the request."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from kinto.core.storage import Filter
from kinto.core.storage.exceptions import ObjectNotFoundError, UnicityError

# Milliseconds since the epoch, up to the year 2004.
TIMESTAMPS = 2**40
BATCH = 1000  # Ids in one query, and keys in one entry of the outbox (one bulk delete of S3).

T = TypeVar("T")


def digest_of(key: str) -> str:
    """An object key in the form of a Kinto id: SHA-256 in hex."""
    return hashlib.sha256(key.encode()).hexdigest()


def batches(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


class Objects:
    """The objects of one resource name; ``*`` in a parent stands for anything."""

    def __init__(self, backend: Any, resource_name: str) -> None:
        self._backend = backend
        self._resource_name = resource_name

    def put(self, parent_id: str, object_id: str, obj: dict[str, Any]) -> None:
        self._backend.update(
            resource_name=self._resource_name,
            parent_id=parent_id,
            object_id=object_id,
            obj={**obj, "last_modified": _timestamp()},
        )

    def create(self, parent_id: str, object_id: str, obj: dict[str, Any]) -> bool:
        """False when there is one, or another transaction has made one and was committed."""
        try:
            self._backend.create(
                resource_name=self._resource_name,
                parent_id=parent_id,
                obj={"id": object_id, **obj, "last_modified": _timestamp()},
            )
        except UnicityError:
            return False
        return True

    def delete(self, parent_id: str, object_id: str) -> bool:
        """False when there was none: of two transactions, one deletes it."""
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
            filters=list(filters),
            with_deleted=False,
        )
        return deleted

    def list(self, parent_id: str, *filters: Filter, **options: Any) -> list[dict[str, Any]]:
        """As many as Kinto's ``storage_max_fetch_size`` allows."""
        found: list[dict[str, Any]] = self._backend.list_all(
            resource_name=self._resource_name,
            parent_id=parent_id,
            filters=list(filters),
            **options,
        )
        return found


def _timestamp() -> int:
    """A time for an object that has no use for one, and must not be in another's way.

    Kinto's own are those of the clock, and unique for a parent: of two transactions that write
    below one parent in the same millisecond, it fails one.
    """
    return secrets.randbelow(TIMESTAMPS) + 1
