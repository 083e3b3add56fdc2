"""move: moves files to another storage, while the server is under load.

Several threads move files, one at a time each (see ``transfer.py``). The copies that are left in
the sources are deleted when they are no longer needed (see ``spare_copies.py``), by the same run,
a later run, or gc.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar

import transaction
from kinto.core.utils import msec_time

from kinto_attachment.errors import StorageError, StorageFull, cause
from kinto_attachment.index.link import Link
from kinto_attachment.index.spares import Spare
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.maintenance.rates import Rate, Stopped
from kinto_attachment.maintenance.reports import Progress, Report, no_progress
from kinto_attachment.maintenance.selection import Seen, Selection
from kinto_attachment.maintenance.spare_copies import SpareCopies
from kinto_attachment.maintenance.transfer import LEASE, Moved, Transfer
from kinto_attachment.maintenance.verify import Finding
from kinto_attachment.storage.storages import Storage

THREADS = 8
AHEAD = 4 * THREADS  # Files waiting for a thread.
# A request that has read where a file is opens it within that time, and so does a web server that
# was told the path. Those that do so later look again, but a web server does not.
KEPT_FOR = timedelta(minutes=1)
LONGEST_WAIT = timedelta(minutes=10)  # Later deletions are left to gc.
SETTLED_AT_ONCE = 1000
EVERY = 5.0  # Seconds.
MOST_FAILURES = 20  # Consecutive failures that mean that a storage no longer answers.
NOT_THERE = "it does not exist"
STUCK = "A transaction of the database does not end: copies that are not needed stay for now."


@dataclass
class MoveReport(Report):
    """``files`` were moved; ``deleted`` copies in the sources.

    Of the copies that stay for now, ``later`` will be deleted after a time, and ``pointed_at``
    when ``relocate`` has rewritten the locations of their records.
    """

    files: int = 0
    bytes: int = 0
    deleted: int = 0
    later: int = 0
    pointed_at: int = 0
    readonly: int = 0  # Readonly copies in the sources, which stay.
    damaged: list[Finding] = field(default_factory=list)
    missing: list[Finding] = field(default_factory=list)
    failed: list[Finding] = field(default_factory=list)
    # Files in storages that are not configured.
    elsewhere: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    for_information: ClassVar[tuple[str, ...]] = ()


def move(
    registry: Registry,
    target: str,
    selection: Selection,
    *,
    rate: int = 0,
    keep: timedelta | None = None,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> MoveReport:
    """Move the selected files to a storage, given by its name in the index.

    A file of several records is moved for all of them if one is selected. ``rate`` is in bytes per
    second. ``keep`` is the minimum time for which the copies in the sources stay; by default, as
    long as requests and signed URLs may need them.

    :raises CommandError: the target accepts no more files.
    :raises NotThisSite: database and storages do not belong together; nothing was done.
    """
    if dry_run:
        return _counted(registry, target, selection)
    with _Mover(registry, target, selection, Rate(rate), keep, progress) as mover:
        for page in selection.pages(registry.attachment_links):
            mover.move(page)
    mover.delete_copies()
    return mover.report


def _counted(registry: Registry, target: str, selection: Selection) -> MoveReport:
    report, seen = MoveReport(), Seen()
    for page in selection.pages(registry.attachment_links):
        for link in _to_move(page, registry, target, seen, report):
            report.files += 1
            report.bytes += link.size
    return report


def _to_move(
    page: Iterable[Link], registry: Registry, target: str, seen: Seen, report: MoveReport
) -> Iterator[Link]:
    for link in page:
        if link.storage == target or not seen.is_first(link):
            continue
        if link.storage in registry.attachment_storages:
            yield link
        else:
            report.elsewhere[link.storage] = report.elsewhere.get(link.storage, 0) + 1


class _Mover:
    """Moves files in threads, reports the results, and settles the copies."""

    def __init__(
        self,
        registry: Registry,
        target: str,
        selection: Selection,
        rate: Rate,
        keep: timedelta | None,
        progress: Progress,
    ) -> None:
        self.report = MoveReport()
        self._registry = registry
        self._links = registry.attachment_links
        self._storages = registry.attachment_storages
        self._target = self._storages[target]
        self._selection = selection
        self._rate = rate
        self._keep = keep
        self._progress = progress
        self._seen = Seen()
        self._copies = SpareCopies(registry, self._check_site())
        self._transfer = Transfer(
            registry, self._target, rate, self._kept_for, self._copies.is_random
        )
        self._threads = ThreadPoolExecutor(THREADS)
        self._running: set[Future[Moved]] = set()
        self._busy: deque[Link] = deque()
        self._unsettled: list[Spare] = []
        self._settled_at = time.monotonic()
        self._failures = 0

    def __enter__(self) -> _Mover:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._rate.stop()
        self._threads.shutdown(cancel_futures=True)
        self._take([future for future in self._running if not future.cancelled()], is_end=True)
        self._settle()

    def move(self, page: list[Link]) -> None:
        for link in _to_move(page, self._registry, self._target.name, self._seen, self.report):
            self._start(link)
        self._finish()
        busy, self._busy = self._busy, deque()
        # Another run has moved them in the meantime, or was killed.
        for link in busy:
            self._start(link, take_over=True)
        self._finish()

    def delete_copies(self) -> None:
        """Delete the unneeded copies in the sources, and wait for the others."""
        latest = self._delete_due()
        if latest and latest <= msec_time() + _ms(LONGEST_WAIT):
            self._wait_until(latest)
            self._delete_due()

    def _check_site(self) -> str:
        site = self._registry.attachment_site
        site.look_at(self._target)
        sources = [each for each in self._storages if self._is_source(each)]
        return str(site.check([self._target, *sources]))

    def _is_source(self, storage: Storage) -> bool:
        """Whether files of a storage are moved; False if it has none."""
        if storage is self._target or self._selection.storage not in (None, storage.name):
            return False
        with transaction.manager:
            spares = next(self._links.spares.pages(storage.name), None)
            return bool(spares) or self._links.are_in(storage.name)

    def _kept_for(self, source: Storage) -> int:
        if self._keep is not None:
            return _ms(self._keep)
        signed = timedelta(seconds=source.signed_url_ttl)
        return _ms(max(KEPT_FOR, signed) if source.downloads.mode == "redirect" else KEPT_FOR)

    def _start(self, link: Link, *, take_over: bool = False) -> None:
        self._running.add(self._threads.submit(self._transfer.move, link, take_over=take_over))
        if len(self._running) >= AHEAD:
            done, _ = wait(self._running, return_when=FIRST_COMPLETED)
            self._take(done)
        is_due = time.monotonic() > self._settled_at + EVERY
        if self._unsettled and (is_due or len(self._unsettled) >= SETTLED_AT_ONCE):
            self._settle()

    def _finish(self) -> None:
        while self._running:
            done, _ = wait(self._running, return_when=FIRST_COMPLETED)
            self._take(done)

    def _take(self, done: Iterable[Future[Moved]], *, is_end: bool = False) -> None:
        failure: CommandError | None = None
        for future in [*done]:
            self._running.discard(future)
            try:
                failure = self._add(future.result()) or failure
            except Stopped:
                continue
        if failure is not None and not is_end:
            raise failure

    def _add(self, moved: Moved) -> CommandError | None:
        """Report the result for a file; returns the reason to stop, if any."""
        link, report = moved.link, self.report
        if moved.spare is not None:
            self._unsettled.append(moved.spare)
        self._failures = self._failures + 1 if moved.error is not None else 0
        if moved.result == "moved":
            report.files += 1
            report.bytes += link.size
            self._progress("files moved", report.files)
        elif moved.result == "busy":
            self._busy.append(link)
        elif moved.result in ("damaged", "missing", "failed"):
            self._report(moved)
        if isinstance(moved.error, StorageFull) or self._failures >= MOST_FAILURES:
            return CommandError(f"The storage {self._target.title!r}: {moved.reason}")
        return None

    def _report(self, moved: Moved) -> None:
        link = moved.link
        with transaction.manager:
            links = self._links.of_key(link.key)
        records = sorted({each.record for each in links if each.storage == link.storage})
        if records:  # Otherwise, the file was deleted in the meantime.
            findings = {
                "damaged": self.report.damaged,
                "missing": self.report.missing,
                "failed": self.report.failed,
            }
            findings[moved.result].append(
                Finding(
                    key=link.key,
                    storage=self._storages[link.storage].title,
                    reason=moved.reason or NOT_THERE,
                    records=records,
                )
            )

    def _settle(self) -> None:
        """Turn the copies in the target into the files, or delete them if moving failed."""
        spares, self._unsettled = self._unsettled, []
        self._settled_at = time.monotonic()
        # If a row was written twice, the last write counts.
        self._settle_in(self._target, [*{spare.key: spare for spare in spares}.values()])

    def _delete_due(self) -> int:
        """Returns when the last of the others is due (ms since the epoch); 0: never."""
        report, now, latest = self.report, msec_time(), 0
        report.later = report.pointed_at = report.readonly = 0
        for storage in self._storages:
            if self._selection.storage not in (None, storage.name, self._target.name):
                continue
            for page in self._spares(storage.name):
                due = [spare for spare in page if _is_due(spare, now)]
                waiting = [spare for spare in page if not spare.readonly and spare.due > now]
                report.readonly += sum(spare.readonly for spare in page)
                report.later += len(waiting)
                latest = max([latest, *(spare.due for spare in waiting)])
                report.deleted += self._settle_in(storage, due)
                # The copies that a killed run has finished.
                others = [spare for spare in page if spare.writer and spare not in due]
                self._settle_in(storage, others, deletes=False)
        return latest

    def _settle_in(self, storage: Storage, spares: list[Spare], *, deletes: bool = True) -> int:
        """Returns the number of deleted copies."""
        try:
            settled = self._copies.settle(spares, deletes=deletes)
        except StorageError as error:
            message = f"copies in the storage {storage.title!r} are not deleted: {cause(error)}"
            self.report.errors.append(message)
            return 0
        if not settled.is_settled and STUCK not in self.report.errors:
            self.report.errors.append(STUCK)
        self.report.pointed_at += len(settled.pointed_at)
        return len(settled.deleted)

    def _spares(self, storage: str) -> Iterator[list[Spare]]:
        return self._selection.shard.spares(self._links.spares, storage)

    def _wait_until(self, due: int) -> None:
        while (left := due - msec_time()) > 0:
            self._progress("seconds until the last copies are deleted", -(-left // 1000))
            time.sleep(min(1.0, left / 1000))
        time.sleep(0.001)


def _is_due(spare: Spare, now: int) -> bool:
    """Whether no run is working with a copy, so it may be deleted."""
    if spare.writer:  # From a killed or a running run.
        return spare.since <= now - LEASE
    return spare.due <= now and not spare.readonly


def _ms(time: timedelta) -> int:
    return int(time.total_seconds() * 1000)
