"""The data on which a write of a record depends: record, collection and permissions.

Normally, Kinto's backends are queried for each of them. If records and permissions are in the same
PostgreSQL database, one statement reads them all: see ``postgresql_overviews.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from kinto_attachment.index.collections import Collections
from kinto_attachment.kinto_types import KintoObject
from kinto_attachment.uris import RecordURI

# An object's URI and the name of a permission on it, as in Kinto's bound permissions.
Permission = tuple[str, str]

EVERYBODY = ("system.Everyone", "system.Authenticated")


@dataclass(frozen=True)
class Rights:
    """The permissions of the user and the user's groups, out of those that were queried.

    ``granted`` has the URI, the permission, and the principal that has it.
    """

    user: str | None
    groups: frozenset[str]
    asked: frozenset[Permission]
    granted: frozenset[tuple[str, str, str]]

    def decide(
        self, principals: Collection[str], permissions: Collection[Permission]
    ) -> bool | None:
        """Whether one of the principals has one of the permissions; None if that is not known."""
        known = {*self.groups, *EVERYBODY, self.user}
        if not (known.issuperset(principals) and self.asked.issuperset(permissions)):
            return None
        return any(
            principal in principals and (uri, permission) in permissions
            for uri, permission, principal in self.granted
        )


@dataclass(frozen=True)
class Overview:
    """A record and its collection, None if they do not exist; permissions if they were read.

    ``has_timestamp`` is false if Kinto has not yet stored the timestamp of the collection's
    records, which it does on the first read.
    """

    record: KintoObject | None
    collection: KintoObject | None
    rights: Rights | None = None
    has_timestamp: bool = field(default=True, compare=False)


class Overviews(Protocol):
    """Reads overviews, in the caller's transaction.

    ``is_last`` says that this transaction will do nothing else, so it need not begin.
    """

    reads_rights: bool

    def of(
        self,
        uri: RecordURI,
        user: str | None,
        permissions: Iterable[Permission],
        *,
        is_last: bool = False,
    ) -> Overview: ...


class SeparateOverviews:
    """Overviews of any Kinto backend, without permissions.

    Backends that are not ``in_memory`` do not show whether a timestamp exists.
    """

    reads_rights = False

    def __init__(self, collections: Collections, *, in_memory: bool) -> None:
        self._collections = collections
        self._in_memory = in_memory

    def of(
        self,
        uri: RecordURI,
        user: str | None,
        permissions: Iterable[Permission],
        *,
        is_last: bool = False,
    ) -> Overview:
        return Overview(*self._collections.with_record(uri), has_timestamp=self._in_memory)
