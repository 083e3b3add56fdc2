"""The orphans that gc finds: new ones are noted, old ones are due to be deleted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timezone

import transaction

from kinto_attachment.index.objects import batches
from kinto_attachment.index.orphans import ROWS_AT_ONCE, Digest, OrphanNotes, short_digest
from kinto_attachment.maintenance.shards import WHOLE


class Orphans:
    """The orphans of one storage in one shard."""

    def __init__(
        self, notes: OrphanNotes, storage: str, prefixes: Iterable[str], now: int, age: int
    ) -> None:
        """``now`` is in ms since the epoch, ``age`` in ms."""
        self._notes = notes
        self._storage = storage
        self._prefixes = set(prefixes)
        self._now = now
        self._age = age
        with transaction.manager:
            self._before = notes.read(storage, self._prefixes)
        self._seen: dict[Digest, int] = {}

    def note(self, key: str) -> str | None:
        """Note an orphan; returns when it was first found, or None if it is due."""
        digest = short_digest(key)
        since = self._seen.setdefault(digest, self._before.get(digest, self._now))
        return None if self._is_due(since) else f"{key} (since {_iso(since)})"

    def _is_due(self, since: int) -> bool:
        return since + self._age <= self._now

    def count_due_elsewhere(self) -> int:
        """The number of due orphans in other shards, from the notes of earlier runs."""
        count = 0
        for batch in batches(set(WHOLE.prefixes) - self._prefixes, ROWS_AT_ONCE):
            with transaction.manager:
                noted = self._notes.read(self._storage, batch)
            count += sum(map(self._is_due, noted.values()))
        return count

    def forget(self, keys: Iterable[str]) -> None:
        """Forget files that were deleted."""
        for key in keys:
            self._seen.pop(short_digest(key), None)

    def save(self) -> None:
        """Replace the notes of the previous run by those of this one."""
        before, seen = _by_prefix(self._before), _by_prefix(self._seen)
        for prefix in sorted({*before, *seen}):
            if before.get(prefix) != seen.get(prefix):
                with transaction.manager:
                    self._notes.write(self._storage, prefix, seen.get(prefix, {}))


def _by_prefix(orphans: dict[Digest, int]) -> dict[str, dict[Digest, int]]:
    prefixes: dict[str, dict[Digest, int]] = defaultdict(dict)
    for digest, since in orphans.items():
        prefixes[digest[:2]][digest] = since
    return prefixes


def _iso(time: int) -> str:
    moment = datetime.fromtimestamp(time / 1000, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
