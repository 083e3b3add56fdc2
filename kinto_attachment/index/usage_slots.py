"""Counters on PostgreSQL: exact, without a row for which all writers wait.

The counter of a bucket or a collection consists of several rows, its *slots*, whose sum is its
value. A transaction adds its changes to one slot that nobody else has locked, so it does not wait.
The space left by the quota is divided among the slots: each has the amount that it may give away.
So the quota is enforced without reading the total.

If no free slot has enough space, all slots are locked, one after the other, and the remaining
space is divided again, among more slots if there were few. This is exact to the byte. A counter
begins with one slot, and gets more only when writers meet.

The last statements of a transaction lock slots, in the order of the URIs of buckets and
collections, and either one slot or all slots of each. So transactions that wait for slots never
wait for each other.
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
NO_SHARES = ""  # The space of slots that may not give anything away.
LARGEST = 2**62

READ = """
    SELECT parent_id,
           COALESCE(SUM(CAST(data->>'files' AS BIGINT)), 0) AS files,
           COALESCE(SUM(CAST(data->>'bytes' AS BIGINT)), 0) AS bytes
      FROM objects
     WHERE parent_id = ANY(:parents) AND resource_name = 'attachment-usage' AND NOT deleted
     GROUP BY parent_id
"""
# A slot is only searched for if those of all previous counters were found, because a transaction
# that waits for all slots of a counter must not have locked a slot of a later one.
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
AT_ONCE = 2  # The counters that one statement adds to: a bucket and a collection.
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
        """The usage of buckets and collections; those without a counter are left out."""
        rows = self._execute(READ, parents=[PREFIX + scope for scope in scopes])
        return {
            row.parent_id.removeprefix(PREFIX): Totals(int(row.files), int(row.bytes))
            for row in rows
        }

    def add(self, changes: Mapping[str, Totals], quotas: Mapping[str, Quota]) -> None:
        """Add the changes of the transaction to counters.

        A missing counter is created from the sum of the rows. Nothing is refused for a counter
        without a quota in ``quotas``.

        :raises QuotaExceeded: the transaction has to be rolled back.
        """
        rest = sorted(scope for scope, change in changes.items() if change)
        while rest:
            added = self._add({scope: changes[scope] for scope in rest[:AT_ONCE]}, quotas)
            if not added:
                self._divide(rest[0], changes[rest[0]], quotas.get(rest[0]))
            rest = rest[added or 1 :]

    def ensure(self, scope: str) -> Totals:
        """The usage of a bucket or a collection, which may have no counter."""
        return self._divide(scope, Totals(), None)

    def recount(self, scope: str) -> tuple[Totals | None, Totals]:
        """Sum up the rows again; returns the old and the new value of the counter."""
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
        """Add to one slot of each counter that has an unlocked slot with enough space.

        :returns: the number of counters, from the first on, to which it was added.
        """
        slots, parameters = [], dict[str, Any]()
        for n, (scope, change) in enumerate(changes.items()):
            takes = change.files > 0 or change.bytes > 0
            if takes and scope not in quotas:
                break  # The slots would give away space that no longer exists.
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
        """Add to all slots together, and divide the remaining space among them.

        :raises QuotaExceeded: there is not enough space.
        """
        slots = self._lock(scope)
        # The sum already includes the changes of this transaction.
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
    """The slots of a counter. The first one has the whole usage; all share the remaining space."""
    quota = quota or Quota("")
    left_files = min(quota.files, LARGEST) - total.files if quota.files else 0
    left_bytes = min(quota.bytes, LARGEST) - total.bytes if quota.bytes else 0
    # A slot must not give away the space of deleted files while the quota is exceeded.
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
