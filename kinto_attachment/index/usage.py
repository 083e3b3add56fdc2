"""The usage of buckets and collections: a counter for each that may have a quota.

A counter changes in the transaction that changes a link or an upload session, so links are never
summed up to read it. On PostgreSQL (``usage_slots.py``), the changes are collected, and written at
the end of the transaction, after everything else that it locks. Other backends (``usage_rows.py``)
write each change at once.

Without a quota in the settings, nothing is counted and no statement is executed. An old counter
would be wrong if the quota were set again. Therefore, the first transaction of each process that
changes a link deletes the counters that its settings do not need.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import transaction
from kinto.core.storage.memory import MemoryBasedStorage
from kinto.core.storage.postgresql import Storage as PostgreSQLStorage

from kinto_attachment.index.link import Link
from kinto_attachment.index.totals import Totals
from kinto_attachment.index.usage_limits import check
from kinto_attachment.index.usage_rows import CounterRows
from kinto_attachment.index.usage_slots import Slots
from kinto_attachment.index.usage_sums import UsageSums
from kinto_attachment.kinto_types import StorageBackend
from kinto_attachment.quota_settings import Quota, Quotas
from kinto_attachment.uris import RecordURI

NOTHING = Totals()
RECENT = 1.0  # Seconds.
MOST_RECENT = 10_000  # Buckets and collections.

QuotaOf = Callable[[str], Quota]
"""The quota of a bucket or a collection that may have one."""


class Usage:
    """The counters in a Kinto storage backend; all methods run in the caller's transaction."""

    def __init__(self, backend: StorageBackend, quotas: Quotas, page_size: int) -> None:
        self._quotas = quotas
        self._sums = UsageSums(backend, page_size)
        self._has_sql = isinstance(backend, PostgreSQLStorage)
        self._slots = Slots(backend, self._sums)
        self._rows = CounterRows(backend, self._sums)
        self._counters = self._slots if self._has_sql else self._rows
        self._is_tidy = False
        # The counters that this process has read and added to, and when (s).
        self._recent: dict[str, tuple[float, Totals]] = {}
        self.is_exact = self._has_sql or isinstance(backend, MemoryBasedStorage)

    def scopes_of(self, record: str) -> tuple[str, ...]:
        """The bucket and the collection of a record, if they may have a quota."""
        if not self._quotas:
            return ()
        uri = RecordURI.parse(record)
        return self._quotas.counted(uri.bucket_id, uri.collection_id)

    @property
    def is_counting(self) -> bool:
        """Whether any bucket or collection may have a quota."""
        return bool(self._quotas)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The context in which links or sessions, and then their counters, change.

        With SQL this does nothing: the counters are written when the transaction ends.
        """
        if self._has_sql or not self._quotas:
            yield
        else:
            with self._rows.alone:
                yield

    # Changes of links and sessions.

    def added(self, link: Link, others: Iterable[Link] = ()) -> None:
        """A link was written; ``others`` are those of the same file."""
        if not self._has_sql:
            self._rows.leave((link.record, link.key))
        self._change(link, Totals(1, int(link.size or 0)), others)

    def removed(self, link: Link, others: Iterable[Link] = ()) -> None:
        """A link was deleted; ``others`` are those of the same file that are left."""
        self._change(link, NOTHING - Totals(1, int(link.size or 0)), others)

    def changed_uncounted(self) -> None:
        """Links without counters, because there are no quotas, were written or deleted."""
        self._note((), NOTHING)

    def resized(self, record: str, difference: int) -> None:
        """The durable bytes of an upload have increased, or decreased if it is negative."""
        self._note(self.scopes_of(record), Totals(0, difference))

    def book(self, quota_of: QuotaOf | None = None) -> None:
        """Write the changes of the transaction to the counters.

        With ``quota_of``, quotas are enforced; changes by commands are never refused.

        :raises QuotaExceeded: the transaction has to be rolled back.
        """
        found = self._collected()
        if found is None:
            return
        changes, found.changes = found.changes, {}
        found.entered.clear()
        if self._has_sql:
            quotas = {} if quota_of is None else {scope: quota_of(scope) for scope in changes}
            self._slots.add(changes, quotas)
            self._remember(changes)
        self._tidy()

    def resize(self, record: str, difference: int, quota_of: QuotaOf) -> None:
        """Count the durable bytes of an upload at once.

        :raises QuotaExceeded: the transaction has to be rolled back.
        """
        scopes = self.scopes_of(record)
        if scopes and difference:
            change = Totals(0, difference)
            quotas = {scope: quota_of(scope) for scope in scopes}
            self._counters.add(dict.fromkeys(scopes, change), quotas)

    # What is there.

    def read(self, scopes: Iterable[str]) -> dict[str, Totals]:
        """The usage of buckets and collections. Missing counters are created.

        This locks the counter, so call it only in a transaction that has written nothing.
        """
        scopes = [*scopes]
        found = self._counters.read(scopes) if scopes else {}
        for scope in sorted({*scopes} - {*found}):
            found[scope] = self._counters.ensure(scope)
        return found

    def peek(self, scopes: Iterable[str]) -> dict[str, Totals]:
        """The same without locking or writing anything."""
        scopes = [*scopes]
        found = self._counters.read(scopes) if scopes else {}
        mine = self._collected()
        for scope in {*scopes} - {*found}:
            change = mine.changes.get(scope, NOTHING) if mine else NOTHING
            found[scope] = self._sums.of(scope) - change
        return found

    def known(self, scopes: Iterable[str]) -> dict[str, Totals]:
        """The same of those that have a counter."""
        scopes = [*scopes]
        found = self._counters.read(scopes) if scopes else {}
        now = time.monotonic()
        if len(self._recent) > MOST_RECENT:
            self._recent.clear()
        self._recent.update({scope: (now, used) for scope, used in found.items()})
        return found

    def recent(self, scopes: Iterable[str]) -> dict[str, Totals] | None:
        """What this process read a moment ago; None if it is incomplete or too old."""
        known = {scope: self._recent.get(scope) for scope in scopes}
        since = time.monotonic() - RECENT
        recent = {scope: each[1] for scope, each in known.items() if each and each[0] > since}
        return recent if len(recent) == len(known) else None

    def _remember(self, changes: Mapping[str, Totals]) -> None:
        """Add the changes of this process to the values that it has read."""
        for scope, change in changes.items():
            known = self._recent.get(scope)
            if known is not None:
                self._recent[scope] = known[0], known[1] + change

    def recount(self, scope: str) -> tuple[Totals | None, Totals]:
        """Correct a counter; returns its old value, if any, and the right one."""
        return self._counters.recount(scope)

    def scopes(self) -> list[str]:
        """All buckets and collections with a counter."""
        return self._counters.scopes()

    # Files that are about to be attached.

    def enter(
        self, file: tuple[str, str], changes: Mapping[str, Totals], quota_of: QuotaOf
    ) -> None:
        """Refuse a file before Kinto writes its record, by what it changes.

        ``file`` is the URI of the record and the key. The space for other files of the transaction
        (on a memory backend, also of other requests) is already used.

        :raises QuotaExceeded:
        """
        quotas = {scope: quota_of(scope) for scope in changes}
        if not self._has_sql:
            self._rows.enter(file, changes, quotas)
            return
        mine = self._collected(begin=True)
        assert mine is not None  # noqa: S101 - it was begun.
        used = self.peek(changes)
        for scope, change in changes.items():
            own = mine.changes.get(scope, NOTHING) + mine.entered_in(scope)
            check(quotas[scope], used[scope] + own, change)
        mine.entered.append((file, changes))

    def leave(self, file: tuple[str, str]) -> None:
        """Release the space that was reserved for a file, if it was not attached."""
        if not self._has_sql:
            self._rows.leave(file)
            return
        mine = self._collected()
        if mine is not None:
            mine.entered = [each for each in mine.entered if each[0] != file]

    def entered(self) -> set[tuple[str, str]]:
        """The files that are currently entered."""
        if not self._has_sql:
            return self._rows.entered()
        mine = self._collected()
        return {file for file, _ in mine.entered} if mine else set()

    @property
    def enters_all(self) -> bool:
        """Whether all files have to be entered because the backend does not roll back."""
        return not self._has_sql

    def _change(self, link: Link, change: Totals, others: Iterable[Link]) -> None:
        there = [other.record for other in others]
        scopes = self.scopes_of(link.record)
        self._note(
            [each for each in scopes if not any(uri.startswith(f"{each}/") for uri in there)],
            change,
        )

    def _note(self, scopes: Iterable[str], change: Totals) -> None:
        scopes = [*scopes]
        if not self._has_sql:
            self._rows.add(dict.fromkeys(scopes, change), {})
        if not (scopes and self._has_sql) and self._is_tidy:
            return
        mine = self._collected(begin=True)
        assert mine is not None  # noqa: S101 - it was begun.
        for scope in scopes if self._has_sql else ():
            mine.changes[scope] = mine.changes.get(scope, NOTHING) + change

    def _collected(self, *, begin: bool = False) -> _Collected | None:
        """The changes of the current transaction, which are written at its end at the latest."""
        current = transaction.get()
        try:
            found: _Collected = current.data(self)
        except KeyError:
            if not begin:
                return None
            found = _Collected()
            current.set_data(self, found)
            current.addBeforeCommitHook(self.book)
        return found

    def _tidy(self) -> None:
        """Delete the counters that the settings do not need."""
        if self._is_tidy:
            return
        for scope in sorted(self._counters.scopes()):
            if not self._quotas.is_counted(scope):
                self._counters.forget(scope)

        def remember(committed: bool) -> None:
            self._is_tidy |= committed

        transaction.get().addAfterCommitHook(remember)


class _Collected:
    """The changes of one transaction, by bucket and collection.

    ``entered`` are the files that it is about to attach, which do not have a link yet.
    """

    def __init__(self) -> None:
        self.changes: dict[str, Totals] = {}
        # By the record and the key of the file; a record may get several files, one by one.
        self.entered: list[tuple[tuple[str, str], Mapping[str, Totals]]] = []

    def entered_in(self, scope: str) -> Totals:
        return sum((each.get(scope, NOTHING) for _, each in self.entered), NOTHING)
