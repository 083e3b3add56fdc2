"""Counters on backends without SQL: a row for each, changed along with the link or session.

Memory backends cannot roll back, so a counter is never behind the rows that it counts. A file that
is about to be attached is entered, in the process's memory, before Kinto writes the record.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from kinto_attachment.index.locks import FileLocks
from kinto_attachment.index.objects import Objects
from kinto_attachment.index.totals import Totals
from kinto_attachment.index.usage_limits import check
from kinto_attachment.index.usage_sums import UsageSums
from kinto_attachment.kinto_types import StorageBackend
from kinto_attachment.quota_settings import Quota

PREFIX = "attachments-usage:"
ID = "total"


class CounterRows:
    """The counters, in the caller's transaction if there is one.

    ``alone`` is held while a link or a session changes, until its counters have changed.
    """

    def __init__(self, backend: StorageBackend, sums: UsageSums) -> None:
        self.alone = threading.RLock()
        self._rows = Objects(backend, "attachment-usage")
        self._locks = FileLocks(backend)
        self._sums = sums
        # By the record and the key of a file.
        self._entered: dict[tuple[str, str], Mapping[str, Totals]] = {}

    def read(self, scopes: Iterable[str]) -> dict[str, Totals]:
        rows = {scope: self._rows.get(PREFIX + scope, ID) for scope in scopes}
        return {scope: _load(row) for scope, row in rows.items() if row is not None}

    def add(self, changes: Mapping[str, Totals], quotas: Mapping[str, Quota]) -> None:
        """Add changes to counters; see :class:`Slots`."""
        with self.alone:
            used = {scope: self._locked(scope, changes[scope]) for scope in sorted(changes)}
            for scope in sorted(changes.keys() & quotas.keys()):
                held = used[scope] + self._entered_in(scope)
                check(quotas[scope], held, changes[scope])
            # Nothing is added before all counters have space, because a memory backend does not
            # roll back.
            for scope, change in changes.items():
                self._put(scope, used[scope] + change)

    def ensure(self, scope: str) -> Totals:
        with self.alone:
            used = self._locked(scope, Totals())
            self._put(scope, used)
            return used

    def recount(self, scope: str) -> tuple[Totals | None, Totals]:
        with self.alone:
            before, found = self.read([scope]).get(scope), self._sums.of(scope)
            if found:
                self._put(scope, found)
            else:
                self.forget(scope)
            return before, found

    def scopes(self) -> list[str]:
        rows = self._rows.list(f"{PREFIX}*")
        return [row["of"] for row in rows]

    def forget(self, scope: str) -> None:
        self._rows.delete(PREFIX + scope, ID)

    def enter(
        self, file: tuple[str, str], changes: Mapping[str, Totals], quotas: Mapping[str, Quota]
    ) -> None:
        """Reserve space for a file that is about to be attached.

        :raises QuotaExceeded:
        """
        with self.alone:
            for scope, change in changes.items():
                used = self._locked(scope, Totals()) + self._entered_in(scope)
                check(quotas[scope], used, change)
            # The replaced file still exists.
            self._entered[file] = {
                scope: Totals(max(change.files, 0), max(change.bytes, 0))
                for scope, change in changes.items()
            }

    def leave(self, file: tuple[str, str]) -> None:
        with self.alone:
            self._entered.pop(file, None)

    def entered(self) -> set[tuple[str, str]]:
        with self.alone:
            return {*self._entered}

    def _entered_in(self, scope: str) -> Totals:
        return sum((each.get(scope, Totals()) for each in self._entered.values()), Totals())

    def _locked(self, scope: str, change: Totals) -> Totals:
        """The usage before a change that has already been written."""
        self._locks.lock(PREFIX + scope)
        known = self.read([scope]).get(scope)
        self._locks.clear(PREFIX + scope)
        return known if known is not None else self._sums.of(scope) - change

    def _put(self, scope: str, total: Totals) -> None:
        row: dict[str, Any] = {"of": scope, "files": total.files, "bytes": total.bytes}
        self._rows.put(PREFIX + scope, ID, row)


def _load(row: Mapping[str, Any]) -> Totals:
    return Totals(row["files"], row["bytes"])
