"""Holds: links whose file must not be deleted or replaced for a time.

A hold is in the row of the link, so code that changes links has already read it. It can have a
date, be open-ended, or both. It ends when its date has passed, unless it is open-ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kinto.core.storage import Filter
from kinto.core.storage.memory import MemoryBasedStorage
from kinto.core.storage.postgresql import Storage as PostgreSQLStorage
from kinto.core.utils import COMPARISON

from kinto_attachment.errors import Held
from kinto_attachment.index.link import Link


@dataclass(frozen=True)
class Hold:
    """The hold of a file: ``until`` a date (ms since the epoch; 0: none), open-ended, or both.

    ``since`` is when the hold began (ms), ``by`` the user who set it last, if any.
    """

    until: int = 0
    is_open: bool = False
    reason: str | None = None
    by: str | None = None
    since: int = 0

    @classmethod
    def load(cls, row: Mapping[str, Any]) -> Hold:
        return cls(**row)

    def dump(self) -> dict[str, Any]:
        """The value for a link; it always has the fields that :func:`not_held` looks at."""
        return asdict(self)

    def stands(self, now: int) -> bool:
        return self.is_open or self.until > now

    def refusal(self, record: str, message: str = "") -> Held:
        until = None if self.is_open else self.until
        return Held(record, reason=self.reason, until=until, message=message)


def standing(link: Link, now: int) -> Hold | None:
    """The hold of a link that is valid at ``now`` (ms since the epoch), or None."""
    if link.hold is None:
        return None
    hold = Hold.load(link.hold)
    return hold if hold.stands(now) else None


def refuse(links: Iterable[Link], now: int) -> None:
    """:raises Held: one of the links has a valid hold."""
    for link in links:
        hold = standing(link, now)
        if hold is not None:
            raise hold.refusal(link.record)


def by_hold(links: Iterable[Link], now: int) -> list[tuple[list[Link], list[Filter]]]:
    """Links that are not held, each with filters that require the same of its row.

    Somebody may have held the file since the link was read.
    """
    free = [link for link in links if link.hold is None]
    ended = [link for link in links if link.hold is not None and standing(link, now) is None]
    without = [Filter("hold", False, COMPARISON.HAS)]
    past = [
        Filter("hold.until", now, COMPARISON.MAX),
        Filter("hold.is_open", False, COMPARISON.EQ),
    ]
    return [(some, filters) for some, filters in ((free, without), (ended, past)) if some]


class HoldsInUse:
    """Whether this process knows that holds are used.

    If it does not know, holds are found when links are changed, and the changes are rolled back.
    If it knows, it checks before anything is written. So sites without holds need no queries.
    Memory backends cannot roll back, but belong to one process, which knows all holds.
    """

    def __init__(self, backend: object, *, by_settings: bool) -> None:
        known = isinstance(backend, MemoryBasedStorage | PostgreSQLStorage)
        self._always = by_settings or not known
        self.is_known = self._always
        self.rolls_back = isinstance(backend, PostgreSQLStorage)

    def note(self) -> None:
        self.is_known = True

    def forget(self) -> None:
        self.is_known = self._always
