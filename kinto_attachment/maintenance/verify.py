"""verify: reads files and compares them with the sizes and hashes in the index.

One thread reads the files whose keys have hashes with the same first digits; several threads read
such groups. When a group was read, its intact files are noted. To continue an interrupted run, a
new run leaves out the files that were noted recently.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import transaction
from kinto.core.utils import msec_time

from kinto_attachment.errors import FileNotFound, StorageError, cause
from kinto_attachment.index.link import Link
from kinto_attachment.index.orphans import Digest, short_digest
from kinto_attachment.index.verified import PREFIX
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.maintenance.contents import is_vouched_for, problem_of
from kinto_attachment.maintenance.rates import Rate
from kinto_attachment.maintenance.reports import Progress, Report, no_progress
from kinto_attachment.maintenance.selection import EVERYTHING, Seen, Selection
from kinto_attachment.maintenance.small_files import Place, SmallFiles

THREADS = 4
AHEAD = 4 * THREADS  # Groups waiting for each thread.
FILES_AT_ONCE = 256
BYTES_AT_ONCE = 16 * 1024 * 1024
EVERY = 1.0  # Seconds between two transactions that note intact files.
MOST_FAILURES = 100  # Consecutive failures that mean that the storage no longer answers.
NOT_THERE = "it does not exist"


class Finding(dict[str, Any]):
    """A file that differs from the index: an object in JSON, and a line for people."""

    def __str__(self) -> str:
        return (
            f"{self['key']} in {self['storage']}: {self['reason']}; {', '.join(self['records'])}"
        )


@dataclass
class VerifyReport(Report):
    """``files`` is the number of intact files, ``vouched`` those of them that were not read."""

    files: int = 0
    bytes: int = 0
    vouched: int = 0
    left_out: int = 0  # Not in the sample, or verified recently.
    damaged: list[Finding] = field(default_factory=list)
    missing: list[Finding] = field(default_factory=list)
    unreadable: list[Finding] = field(default_factory=list)
    # Files in storages that are not configured.
    elsewhere: dict[str, int] = field(default_factory=dict)


@dataclass
class Group:
    """Files of one storage whose notes are in one row; ``known`` are all that the row may have."""

    storage: str
    prefix: str
    links: list[Link] = field(default_factory=list)
    known: set[Digest] = field(default_factory=set)


@dataclass
class Checked:
    """The result of a thread for a file."""

    link: Link
    problem: str = ""
    is_missing: bool = False
    is_vouched: bool = False
    error: StorageError | None = None


def verify(
    registry: Registry,
    selection: Selection = EVERYTHING,
    *,
    sample: float = 1,
    older_than: timedelta | None = None,
    trust_storage: bool = False,
    rate: int = 0,
    progress: Progress = no_progress,
) -> VerifyReport:
    """Verify the selected files, or a random ``sample`` of them (1: all).

    ``older_than`` leaves out files that were intact less than this time ago. ``trust_storage``
    skips files whose SHA-256 the storage has. ``rate`` is in bytes per second.

    :raises CommandError: a storage no longer answers.
    """
    verifier = _Verifier(registry, selection, Rate(rate), trust_storage=trust_storage)
    chosen = _Chosen(registry, sample, older_than, verifier.report)
    with verifier:
        for page in selection.pages(registry.attachment_links):
            for groups in together(chosen.groups(page)):
                verifier.start(groups)
                progress("files verified", verifier.report.files)
        verifier.finish()
    progress("files verified", verifier.report.files)
    return verifier.report


def together(groups: Iterable[Group]) -> Iterator[list[Group]]:
    """Groups that a thread reads at once, because handing one over takes as long as many files."""
    some: list[Group] = []
    files = size = 0
    for group in groups:
        some.append(group)
        files += len(group.links)
        size += sum(link.size for link in group.links)
        if files >= FILES_AT_ONCE or size >= BYTES_AT_ONCE:
            yield some
            some, files, size = [], 0, 0
    if some:
        yield some


class _Chosen:
    """Those of the selected files that are verified."""

    def __init__(
        self, registry: Registry, sample: float, older_than: timedelta | None, report: VerifyReport
    ) -> None:
        self._storages = registry.attachment_storages
        self._verified = registry.attachment_links.verified
        self._sample = sample
        self._since = 0
        if older_than is not None:
            self._since = msec_time() - int(older_than.total_seconds() * 1000)
        self._report = report
        self._seen = Seen()

    def groups(self, page: list[Link]) -> Iterator[Group]:
        groups: dict[tuple[str, str], Group] = {}
        for link in filter(self._seen.is_first, page):
            if link.storage not in self._storages:
                count = self._report.elsewhere.get(link.storage, 0)
                self._report.elsewhere[link.storage] = count + 1
                continue
            digest = short_digest(link.key)
            place = link.storage, digest[:PREFIX]
            group = groups.get(place)
            if group is None:
                group = groups[place] = Group(*place)
            group.links.append(link)
            group.known.add(digest)
        verified = self._noted(groups.values()) if self._since else {}
        for group in groups.values():
            count = len(group.links)
            group.links = [link for link in group.links if self._is_due(link, verified)]
            self._report.left_out += count - len(group.links)
            if group.links:
                yield group

    def _noted(self, groups: Iterable[Group]) -> dict[tuple[str, Digest], int]:
        digests: dict[str, set[Digest]] = defaultdict(set)
        for group in groups:
            digests[group.storage] |= group.known
        with transaction.manager:
            return {
                (storage, digest): at
                for storage, some in digests.items()
                for digest, at in self._verified.read(storage, some).items()
            }

    def _is_due(self, link: Link, verified: dict[tuple[str, Digest], int]) -> bool:
        if self._since:
            at = verified.get((link.storage, short_digest(link.key)), 0)
            if at >= self._since:
                return False
        return self._sample >= 1 or random.random() < self._sample  # noqa: S311


class _Verifier:
    """Reads groups of files in threads, reports the results, and notes intact files."""

    def __init__(
        self, registry: Registry, selection: Selection, rate: Rate, *, trust_storage: bool
    ) -> None:
        self.report = VerifyReport()
        self._storages = registry.attachment_storages
        self._links = registry.attachment_links
        self._is_whole = selection.is_whole
        self._rate = rate
        self._trusts_storage = trust_storage
        self._threads = ThreadPoolExecutor(THREADS)
        # They do not respect a rate.
        self._small_files = None if rate.is_bounded else SmallFiles(self._storages)
        self._waiting: deque[tuple[list[Group], Future[list[list[Checked]]]]] = deque()
        self._unnoted: list[tuple[Group, dict[Digest, int], set[Digest]]] = []
        self._noted_at = time.monotonic()
        self._failures = 0

    def __enter__(self) -> _Verifier:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._rate.stop()
        self._threads.shutdown(cancel_futures=True)
        if self._small_files is not None:
            self._small_files.close()
        self._note()

    def start(self, groups: list[Group]) -> None:
        links = [group.links for group in groups]
        self._waiting.append((groups, self._threads.submit(self._check, links)))
        while len(self._waiting) > AHEAD:
            self._take_next()

    def finish(self) -> None:
        while self._waiting:
            self._take_next()

    def _check(self, groups: list[list[Link]]) -> list[list[Checked]]:
        """Runs in a thread, without the database."""
        whole: set[Place] = set()
        if self._small_files is not None:
            whole = self._small_files.whole(link for links in groups for link in links)
        return [[self._check_one(link, whole) for link in links] for links in groups]

    def _check_one(self, link: Link, whole: set[Place]) -> Checked:
        if (link.storage, link.key) in whole:
            return Checked(link)
        files = self._storages[link.storage].files
        try:
            if self._trusts_storage and is_vouched_for(files, link):
                return Checked(link, is_vouched=True)
            return Checked(link, problem_of(files, link, self._rate))
        except FileNotFound:
            return Checked(link, NOT_THERE, is_missing=True)
        except StorageError as error:
            return Checked(link, cause(error), error=error)

    def _take_next(self) -> None:
        groups, future = self._waiting.popleft()
        now = msec_time()
        for group, results in zip(groups, future.result(), strict=True):
            whole, others = dict[Digest, int](), set[Digest]()
            for checked in results:
                if self._add(checked):
                    whole[short_digest(checked.link.key)] = now
                else:
                    others.add(short_digest(checked.link.key))
            self._unnoted.append((group, whole, others))
        if time.monotonic() > self._noted_at + EVERY:
            self._note()

    def _add(self, checked: Checked) -> bool:
        """Report a file; returns whether it is intact."""
        link, report = checked.link, self.report
        self._failures = self._failures + 1 if checked.error is not None else 0
        if not checked.problem:
            report.files += 1
            report.bytes += link.size
            report.vouched += checked.is_vouched
            return True
        records = self._records_of(link)
        if not records:  # The file was deleted or moved in the meantime.
            return False
        finding = Finding(
            key=link.key,
            storage=self._storages[link.storage].title,
            reason=checked.problem,
            records=records,
        )
        if checked.error is not None:
            report.unreadable.append(finding)
        else:
            (report.missing if checked.is_missing else report.damaged).append(finding)
        if self._failures >= MOST_FAILURES:
            raise CommandError(f"The storage {finding['storage']!r}: {checked.problem}")
        return False

    def _records_of(self, link: Link) -> list[str]:
        """The records that have the file now, in the same storage and with the same hash."""
        with transaction.manager:
            links = self._links.of_key(link.key)
        same = (link.storage, link.hash, link.size)
        return sorted(
            {each.record for each in links if (each.storage, each.hash, each.size) == same}
        )

    def _note(self) -> None:
        """Write the notes of intact files."""
        unnoted, self._unnoted = self._unnoted, []
        self._noted_at = time.monotonic()
        if not unnoted:
            return
        with transaction.manager:
            for storage in sorted({group.storage for group, _, _ in unnoted}):
                some = [entry for entry in unnoted if entry[0].storage == storage]
                self._note_in(storage, some)

    def _note_in(
        self, storage: str, entries: list[tuple[Group, dict[Digest, int], set[Digest]]]
    ) -> None:
        verified = self._links.verified
        noted: dict[str, dict[Digest, int]] = defaultdict(dict)
        digests = {digest for group, _, _ in entries for digest in group.known}
        for digest, at in verified.read(storage, digests).items():
            noted[digest[:PREFIX]][digest] = at
        for group, whole, others in entries:
            before = noted[group.prefix]
            if self._is_whole:  # Notes of files that are no longer in the index are dropped.
                before = {digest: at for digest, at in before.items() if digest in group.known}
            kept = {digest: at for digest, at in before.items() if digest not in others}
            noted[group.prefix] = {**kept, **whole}
        verified.write(storage, {group.prefix: noted[group.prefix] for group, _, _ in entries})
