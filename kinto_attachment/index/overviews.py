"""What a write of a record depends on: the record, its collection, and the user's rights.

Kinto's backends are asked for each of them. If records and permissions are in the same PostgreSQL
database, one statement reads them all: see ``postgresql_overviews.py``.
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
    """Which of the permissions that were asked for the user and the user's groups have.

    ``granted`` are the URI, the permission, and the principal that has it.
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
    """A record and its collection, None if they do not exist; rights as far as they were read.

    ``has_timestamp`` is false if Kinto has yet to store the timestamp of the collection's records,
    which it does when it is first asked for it.
    """

    record: KintoObject | None
    collection: KintoObject | None
    rights: Rights | None = None
    has_timestamp: bool = field(default=True, compare=False)


class Overviews(Protocol):
    """Reads overviews, in the caller's transaction.

    ``is_last`` says that this transaction will do nothing else. If it has not begun, it need not.
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
    """Overviews of any Kinto backend, without the rights.

    Backends that are not ``in_memory`` do not say whether there is a timestamp.
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
