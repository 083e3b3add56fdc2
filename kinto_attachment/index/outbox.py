"""Files that lost their last link, to be deleted after the commit."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON, msec_time

from kinto_attachment.index.objects import Objects, batches


@dataclass(frozen=True)
class Garbage:
    """An entry of the outbox: files to delete, since when, and, if they linger, ``due`` when.

    Times are in ms since the epoch.
    """

    id: str
    keys: list[str]
    since: int
    due: int = 0

    @property
    def parent(self) -> str:
        return f"attachments-garbage:{self.id}"

    def without(self, key: str) -> Garbage:
        """The other files; under another id, as whoever read this entry must not find it again."""
        keys = [each for each in self.keys if each != key]
        return replace(self, id=str(uuid.uuid4()), keys=keys)


class Outbox:
    """What is garbage once the transaction is committed, and until it is deleted."""

    def __init__(self, backend: Any) -> None:
        self._rows = Objects(backend, "attachment-garbage")

    def add(self, keys: Iterable[str], due: int = 0) -> list[Garbage]:
        """Enter files that have no link any more, or none but such as end at a time."""
        now = msec_time()
        entries = [Garbage(str(uuid.uuid4()), batch, now, due) for batch in batches(keys)]
        for entry in entries:
            self.put(entry)
        return entries

    def entries(self, key: str | None = None) -> list[Garbage]:
        """What waits to be deleted (a page of it), or the entries that hold a certain key."""
        filters = [Filter("keys", [key], COMPARISON.CONTAINS)] if key is not None else []
        rows = self._rows.list("attachments-garbage:*", *filters)
        return [Garbage(row["id"], row["keys"], row["since"], row.get("due", 0)) for row in rows]

    def take(self, entry: Garbage) -> bool:
        """Remove an entry; False when somebody else has: until the commit, it is ours alone."""
        return self._rows.delete(entry.parent, entry.id)

    def put(self, entry: Garbage) -> None:
        """Have an entry in the outbox, again if it was taken."""
        due = {"due": entry.due} if entry.due else {}
        self._rows.put(entry.parent, entry.id, {"keys": entry.keys, "since": entry.since, **due})
