"""Counters on PostgreSQL: exact, and without a row that all writers wait for.

The counter of a bucket or a collection is several rows, its *slots*, and the sum of them is what
it holds. A transaction adds what it has changed to one slot that nobody else has locked, so it
waits for nobody. What the quota leaves is divided among the slots: each knows how much room it
may give away, and the rooms add up to what is left. So no total has to be read to keep the quota.

Where no slot that is free has enough room, all of them are locked, one after the other, and what
is left is divided again, among more slots if there were few. This decides to the last byte.
A counter begins with one slot, and has more only where writers met.

Slots are locked by the last statements of a transaction, those of several buckets and collections
in the order of their URIs, and either one of the slots of each or all of them. So those who wait
for slots do not wait for each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from kinto_attachment.index.objects import random_timestamp
from kinto_attachment.index.sql import sql
from kinto_attachment.index.totals import Totals
from kinto_attachment.index.usage_limits import check
from kinto_attachment.index.usage_sums import UsageSums
from kinto_attachment.quota_settings import Quota

PREFIX = "attachments-usage:"
MOST = 16  # Slots of a counter.
# A row that is locked before all slots are. Its id is before theirs.
HEAD = "-"
# Timestamps are unique below a parent. Kinto's trigger replaces that of a row which has the latest
# one, which is never a slot: their timestamps stay as they are. The locked row gets a random one
# after theirs: two transactions may create that row at the same moment, and with equal timestamps
# PostgreSQL may report the conflict of timestamps, which ON CONFLICT does not handle.
LATEST = 2**40
NO_SHARES = ""  # Of slots that may not give anything away.
LARGEST = 2**62

READ = """
    SELECT parent_id,
           COALESCE(SUM(CAST(data->>'files' AS BIGINT)), 0) AS files,
           COALESCE(SUM(CAST(data->>'bytes' AS BIGINT)), 0) AS bytes
      FROM objects
     WHERE parent_id = ANY(:parents) AND resource_name = 'attachment-usage' AND NOT deleted
     GROUP BY parent_id
"""
# A slot is only looked for where those of the counters before have been found: nobody is to wait
# for all slots of a counter who has locked one of a later counter.
SLOT = """
    slot_{n} AS MATERIALIZED (
        SELECT id, parent_id,
               CAST(:files_{n} AS BIGINT) AS files, CAST(:bytes_{n} AS BIGINT) AS bytes
          FROM objects
         WHERE parent_id = :parent_{n} AND resource_name = 'attachment-usage' AND id <> '-'
           AND (NOT :takes_{n} OR data->>'quota' = :quota_{n})
           AND (NOT :limits_files_{n} OR CAST(data->>'room_files' AS BIGINT) >= :files_{n})
           AND (NOT :limits_bytes_{n} OR CAST(data->>'room_bytes' AS BIGINT) >= :bytes_{n})
           AND NOT deleted
           {after}
         LIMIT 1
           FOR UPDATE SKIP LOCKED
    )
"""
AFTER = "AND EXISTS (SELECT 1 FROM slot_{before})"
ADD = """
    WITH {slots}
    UPDATE objects
       SET data = data || jsonb_build_object(
               'files', CAST(data->>'files' AS BIGINT) + slot.files,
               'bytes', CAST(data->>'bytes' AS BIGINT) + slot.bytes,
               'room_files', CAST(data->>'room_files' AS BIGINT) - slot.files,
               'room_bytes', CAST(data->>'room_bytes' AS BIGINT) - slot.bytes)
      FROM ({union}) AS slot
     WHERE objects.id = slot.id AND objects.parent_id = slot.parent_id
       AND resource_name = 'attachment-usage'
    RETURNING objects.parent_id
"""
AT_ONCE = 2  # A bucket and a collection: counters that one statement adds to.
LOCK = """
    INSERT INTO objects (id, parent_id, resource_name, data, last_modified, deleted)
    VALUES ('-', :parent, 'attachment-usage', '{}', from_epoch(:latest), FALSE)
    ON CONFLICT (id, parent_id, resource_name) DO UPDATE SET deleted = FALSE
"""
LOCK_SLOTS = """
    SELECT CAST(data->>'files' AS BIGINT) AS files, CAST(data->>'bytes' AS BIGINT) AS bytes
      FROM objects
     WHERE parent_id = :parent AND resource_name = 'attachment-usage' AND id <> '-'
       AND NOT deleted
     ORDER BY id
       FOR UPDATE
"""
WRITE = """
    INSERT INTO objects (id, parent_id, resource_name, data, last_modified, deleted)
    SELECT to_char(n, 'FM00'), :parent, 'attachment-usage', CAST(slot AS JSONB), from_epoch(n),
           FALSE
      FROM unnest(CAST(:slots AS TEXT[])) WITH ORDINALITY AS slots (slot, n)
    ON CONFLICT (id, parent_id, resource_name) DO UPDATE SET data = EXCLUDED.data
"""
PARENTS = """
    SELECT parent_id FROM objects
     WHERE id = '-' AND resource_name = 'attachment-usage' AND NOT deleted
"""
DELETE = """
    DELETE FROM objects WHERE parent_id = :parent AND resource_name = 'attachment-usage'
"""


class Slots:
    """The counters, in the caller's transaction."""

    def __init__(self, backend: Any, sums: UsageSums) -> None:
        self._backend = backend
        self._sums = sums

    def read(self, scopes: Iterable[str]) -> dict[str, Totals]:
        """What buckets and collections hold; those without a counter are left out."""
        rows = self._execute(READ, parents=[PREFIX + scope for scope in scopes])
        return {
            row.parent_id.removeprefix(PREFIX): Totals(int(row.files), int(row.bytes))
            for row in rows
        }

    def add(self, changes: Mapping[str, Totals], quotas: Mapping[str, Quota]) -> None:
        """Add to counters what the transaction has changed.

        Where there is no counter, the sum of what is there becomes one. Where there is a counter
        without a quota in ``quotas``, nothing is refused.

        :raises QuotaExceeded: the transaction has to be rolled back.
        """
        rest = sorted(scope for scope, change in changes.items() if change)
        while rest:
            added = self._add({scope: changes[scope] for scope in rest[:AT_ONCE]}, quotas)
            if not added:
                self._divide(rest[0], changes[rest[0]], quotas.get(rest[0]))
            rest = rest[added or 1 :]

    def ensure(self, scope: str) -> Totals:
        """What a bucket or a collection holds, also if it had no counter."""
        return self._divide(scope, Totals(), None)

    def recount(self, scope: str) -> tuple[Totals | None, Totals]:
        """Sum up what is there again; returns what the counter said, and what it says now."""
        slots = self._lock(scope)
        before = sum(slots, Totals()) if slots else None
        found = self._sums.of(scope)
        if found:
            self._write(scope, found, None, len(slots) or 1)
        else:
            self.forget(scope)
        return before, found

    def scopes(self) -> list[str]:
        """All buckets and collections with a counter."""
        return [row.parent_id.removeprefix(PREFIX) for row in self._execute(PARENTS)]

    def forget(self, scope: str) -> None:
        self._execute(DELETE, parent=PREFIX + scope)

    def _add(self, changes: Mapping[str, Totals], quotas: Mapping[str, Quota]) -> int:
        """Add to one slot of each counter, as far as there is one with room that nobody has.

        :returns: to how many counters, the first ones.
        """
        slots, parameters = [], dict[str, Any]()
        for n, (scope, change) in enumerate(changes.items()):
            takes = change.files > 0 or change.bytes > 0
            if takes and scope not in quotas:
                break  # The slots would give room away that is not there any more.
            limits = quotas.get(scope) or Quota(scope)
            values = {
                "parent": PREFIX + scope,
                "files": change.files,
                "bytes": change.bytes,
                "takes": takes,
                "quota": limits.tag,
                "limits_files": bool(limits.files) and change.files > 0,
                "limits_bytes": bool(limits.bytes) and change.bytes > 0,
            }
            parameters |= {f"{name}_{n}": value for name, value in values.items()}
            after = AFTER.format(before=n - 1) if n else ""
            slots.append(SLOT.format(n=n, after=after))
        if not slots:
            return 0
        union = " UNION ALL ".join(f"SELECT * FROM slot_{n}" for n in range(len(slots)))  # noqa: S608
        statement = ADD.format(slots=", ".join(slots), union=union)
        return len(self._execute(statement, **parameters))

    def _divide(self, scope: str, change: Totals, quota: Quota | None) -> Totals:
        """Add to all slots together, and divide what is left among them.

        :raises QuotaExceeded: less is left.
        """
        slots = self._lock(scope)
        # The sum has the transaction's own changes already.
        used = sum(slots, Totals()) if slots else self._sums.of(scope) - change
        if quota is not None:
            check(quota, used, change)
        if change or not slots:
            self._write(scope, used + change, quota, min(2 * len(slots), MOST) or 1)
        return used + change

    def _lock(self, scope: str) -> list[Totals]:
        """Lock the counter, also one that others are about to create."""
        self._execute(LOCK, parent=PREFIX + scope, latest=LATEST + random_timestamp())
        rows = self._execute(LOCK_SLOTS, parent=PREFIX + scope)
        return [Totals(int(row.files), int(row.bytes)) for row in rows]

    def _write(self, scope: str, total: Totals, quota: Quota | None, count: int) -> None:
        slots = _divided(total, quota, count)
        self._execute(WRITE, parent=PREFIX + scope, slots=[json.dumps(slot) for slot in slots])

    def _execute(self, statement: str, **parameters: Any) -> list[Any]:
        """The rows of a SELECT; of a change, as many items as it has written rows."""
        with self._backend.client.connect() as session:
            result = session.execute(sql(statement), parameters)
            return list(result) if result.returns_rows else [None] * result.rowcount


def _divided(total: Totals, quota: Quota | None, count: int) -> list[dict[str, Any]]:
    """The slots of a counter. The first one has all that is there, and all share what is left."""
    quota = quota or Quota("")
    left_files = min(quota.files, LARGEST) - total.files if quota.files else 0
    left_bytes = min(quota.bytes, LARGEST) - total.bytes if quota.bytes else 0
    # What is deleted in one slot while there is too much in all is not to be given away by it.
    tag = quota.tag if quota.scope and min(left_files, left_bytes) >= 0 else NO_SHARES
    return [
        {
            "files": 0 if n else total.files,
            "bytes": 0 if n else total.bytes,
            "quota": tag,
            "room_files": _share(left_files, n, count),
            "room_bytes": _share(left_bytes, n, count),
        }
        for n in range(count)
    ]


def _share(left: int, n: int, count: int) -> int:
    return left // count + (n < left % count) if left > 0 else 0
