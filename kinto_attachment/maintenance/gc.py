"""gc: deletes files that no record points at, and reports records whose file is missing.

Safe while the server is under load, and with several gc at once: each step is a short transaction.

Nothing is deleted unless database and storages belong together (see ``index/site.py``). Files that
a transaction unlinked are known garbage. Other files without a record are first noted, and deleted
by a later run if the plugin gave them their names.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from functools import partial

import transaction
from kinto.core.utils import msec_time

from kinto_attachment.errors import AttachmentError, DisputedSite, StorageError
from kinto_attachment.index.holds import standing
from kinto_attachment.index.link import Link
from kinto_attachment.index.objects import batches
from kinto_attachment.index.open_transactions import OpenTransactions
from kinto_attachment.index.outbox import Garbage
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance import doubts
from kinto_attachment.maintenance.ageing import Ageing
from kinto_attachment.maintenance.collection import GcReport, Options
from kinto_attachment.maintenance.dangling import DanglingLinks
from kinto_attachment.maintenance.deletions import DANGLING, UNLINKED, Deletions
from kinto_attachment.maintenance.known_garbage import KnownGarbage
from kinto_attachment.maintenance.listing import Listing
from kinto_attachment.maintenance.missing import Missing
from kinto_attachment.maintenance.orphans import Orphans
from kinto_attachment.maintenance.own_names import OwnNames
from kinto_attachment.maintenance.reports import Progress, no_progress
from kinto_attachment.maintenance.shards import WHOLE, Shard
from kinto_attachment.storage import FileStat, ListsFiles
from kinto_attachment.storage.storages import Storage

logger = logging.getLogger(__name__)

# Longer than link_steps.UNCHECKED_SECONDS: see links_are_written.
PAUSE = timedelta(seconds=2)
MAX_WAIT = 60.0  # Seconds.


def gc(
    registry: Registry,
    *,
    grace: timedelta = timedelta(hours=1),
    orphan_age: timedelta = timedelta(days=1),
    dry_run: bool = False,
    really: bool = False,
    shard: Shard = WHOLE,
    storage: str | None = None,
    progress: Progress = no_progress,
    pause: timedelta = PAUSE,
) -> GcReport:
    """Retry failed deletions, delete files without a record, report records without a file.

    ``storage`` is the name of the only storage to look at, as the index has it.

    Files and unfinished writes younger than ``grace`` are kept: their request may still be
    running. Files that were first found without a record less than ``orphan_age`` ago are noted.
    Files with names that are not from the plugin are left alone. ``really`` deletes even very many
    files, also if there are records whose attachments are elsewhere.

    :raises NotThisSite: database and storages do not belong together; nothing was done.
    """
    storages = registry.attachment_storages
    chosen = list(storages) if storage is None else [storages[storage]]
    options = Options(grace, orphan_age, dry_run, really, shard, pause)
    return _Collector(registry, chosen, options, progress).run()


class _Collector:
    def __init__(
        self,
        registry: Registry,
        storages: list[Storage],
        options: Options,
        progress: Progress,
    ) -> None:
        self.registry = registry
        self.links = registry.attachment_links
        self.sessions = registry.attachment_sessions
        self.site = registry.attachment_site
        self.report = GcReport()
        self.owner = ""
        self.options = options
        self.storages = {each.name: each for each in storages if self.is_ours(each)}
        self.before = datetime.now(timezone.utc) - options.grace
        self.dry_run = options.dry_run
        self.shard = options.shard
        self.progress = progress
        self.deletions = Deletions(registry, self.storages, self.report, dry_run=self.dry_run)
        self.ageing = Ageing(
            registry,
            self.storages,
            self.shard,
            self.deletions,
            self.report,
            dry_run=self.dry_run,
        )
        self.dangling = DanglingLinks(registry, self.storages)
        self.own = OwnNames(registry, self.owner, self.shard, self.before)
        self.known = KnownGarbage(self.deletions, self.own, self.shard, progress)
        self.orphans = {name: self.orphans_of(name) for name in self.storages}
        # The files to delete now.
        self.dangling_links: list[Link] = []
        self.dangling_keys: set[str] = set()
        self.links_are_checked = False
        self.unlinked: dict[str, list[FileStat]] = {name: [] for name in self.storages}
        self.listings = {
            storage.name: Listing(storage.files, self.shard)
            for storage in self.storages.values()
            if isinstance(storage.files, ListsFiles)
        }
        self.missing = Missing(registry, self.shard, self.listings, self.dangling, self.report)

    def is_ours(self, storage: Storage) -> bool:
        """Whether a storage belongs to the database; False if it belongs to nobody or does not
        answer.

        :raises NotThisSite: it belongs to another one.
        """
        try:
            if self.site.is_free(storage):
                with transaction.manager:
                    if not self.links.are_in(storage.name):
                        return False
            self.owner = self.site.check([storage])
        except DisputedSite:
            if not self.options.dry_run:
                self.site.dispute(storage)
            raise
        except StorageError as error:
            self.report.failed(f"the storage {storage.title}", error)
            return False
        return True

    def leave_mark(self) -> None:
        if not self.dry_run:
            self.site.mark(self.storages.values())

    def run(self) -> GcReport:
        steps: list[Callable[[], None]] = [
            self.leave_mark,
            *(partial(self.known.empty_outbox, name) for name in self.storages),
            self.known.remove_old_sessions,
            self.own.read_reservations,
            *(partial(self.known.remove_spares, name) for name in self.storages),
            *(
                partial(self.known.remove_unfinished, storage)
                for storage in self.storages.values()
            ),
            self.ageing.run,
            self.check_links,
            *(partial(self.find_unlinked, name) for name in self.listings),
            self.remove_orphans,
            *(partial(self.save_notes, name) for name in self.storages),
            self.release_reservations,
            self.missing.report_files,
            self.report_storages,
        ]
        for step in steps:
            try:
                step()
            except AttachmentError as error:
                self.report.failed(_name_of(step), error)
                if step == self.leave_mark:
                    break  # A copy of this database could delete the same files at its next run.
        return self.report

    def release_reservations(self) -> None:
        if not self.dry_run:
            self.own.release_reservations()

    def report_storages(self) -> None:
        self.missing.report_storages(dry_run=self.dry_run)

    def orphans_of(self, storage: str) -> Orphans:
        age = int(self.options.orphan_age.total_seconds() * 1000)
        notes, prefixes = self.links.orphan_notes, self.shard.prefixes
        return Orphans(notes, storage, prefixes, now=msec_time(), age=age)

    def note(self, storage: str, key: str) -> bool:
        """Note a file without a record; True if it is due to be deleted."""
        told = self.orphans[storage].note(key)
        if told is not None:
            self.report.orphaned.append(told)
        return told is None

    def save_notes(self, storage: str) -> None:
        listing = self.listings.get(storage)
        is_complete = self.links_are_checked and (listing is None or listing.is_complete)
        if is_complete and not self.dry_run:
            self.orphans[storage].save()

    def check_links(self) -> None:
        """Find links whose record was deleted or has another attachment."""
        dangling: list[Link] = []
        for page in self.shard.pages(self.links):
            self.missing.count_elsewhere(page)
            with transaction.manager:
                found = self.dangling.among(page)
            self.report.dangling += [link.record for link in found]
            dangling += found
        self.dangling_keys = {link.key for link in dangling}
        if dangling and not self.dry_run:
            self.dangling.relink(dangling)
        now = msec_time()
        self.dangling_links = [
            link
            for link in dangling
            if standing(link, now) is None and self.note(link.storage, link.key)
        ]
        self.links_are_checked = True

    def find_unlinked(self, storage: str) -> None:
        """Find files of a storage without a link, even to another storage."""
        for batch in batches(self.listed(storage)):
            old = [
                file for file in batch if file.modified < self.before and self.own.has_file(file)
            ]
            with transaction.manager:
                unlinked = self.links.without_links([file.key for file in old])
                unlinked -= self.sessions.owned_keys(unlinked)
                unlinked -= self.links.spares.of_keys(storage, unlinked).keys()
            self.unlinked[storage] += [
                file for file in old if file.key in unlinked and self.note(storage, file.key)
            ]

    def remove_orphans(self) -> None:
        """Delete files that have had no record for long enough, unless this may be a mistake."""
        if not self.is_plausible():
            return
        for batch in batches(self.dangling_links):
            self.drop(batch)
        if not any(self.unlinked.values()) or not (self.dry_run or self.links_are_written()):
            return
        for storage, files in self.unlinked.items():
            for some in batches(files):
                self.remove(storage, some)

    def count_due(self) -> int:
        files = sum(map(len, self.unlinked.values()))
        return files + len({link.key for link in self.dangling_links})

    def is_plausible(self) -> bool:
        """Whether files without records may be deleted. Doubts are reported."""
        due, total, really = self.count_due(), self.report.scanned, self.options.really
        if due and self.shard != WHOLE:
            due += sum(orphans.count_due_elsewhere() for orphans in self.orphans.values())
            total *= self.shard.count
        if not due and not self.report.orphaned:
            return True
        found = [
            *doubts.about_records(self.registry, self.dangling_keys, really=really),
            *doubts.about_number(due, total, really=really),
        ]
        for doubt in found:
            logger.error("gc: %s", doubt)
        self.report.errors += found
        return not found

    def drop(self, links: list[Link]) -> None:
        """Drop links that were found dangling, and delete their files."""
        if self.dry_run:
            return
        self.site.check({link.storage: self.storages[link.storage] for link in links}.values())
        with transaction.manager:
            # A record may have got its file back in the meantime.
            still = self.dangling.among(links)
            entries = self.links.outbox.add_files(self.links.drop_dangling(still))
        for entry in entries:
            if self.deletions.files_of(entry, DANGLING):
                self.orphans[entry.storage].forget(entry.keys)

    def links_are_written(self) -> bool:
        """Wait for requests that may be linking a file that seemed to have no link.

        A request that links a file within link_steps.UNCHECKED_SECONDS after it stored it does not
        check whether the file still exists. By then, its transaction has begun. So this waits
        longer than that, and then for the end of the open transactions.

        :returns: False if they have not ended in time.
        """
        time.sleep(self.options.pause.total_seconds())
        with_links = OpenTransactions(self.registry.storage)
        if with_links.wait(MAX_WAIT):
            return True
        self.report.errors.append(
            "A transaction of the database does not end: files without links are kept."
        )
        return False

    def remove(self, storage: str, files: list[FileStat]) -> None:
        """Delete files that seem to have no link, after checking this under a lock."""
        unlinked = {file.key for file in files}
        entries: list[Garbage] = []
        if not self.dry_run:
            self.site.check([self.storages[storage]])
        with transaction.manager:
            # Before the links: the transaction that ends a session also writes the link.
            unlinked -= self.sessions.owned_keys(unlinked)
        with transaction.manager:
            if self.dry_run:
                unlinked = self.links.without_links(list(unlinked))
            else:
                move = self.links.move_orphans_to_outbox
                entries, unlinked = move(unlinked, storage, abandoned=self.own.abandoned)
        for entry in entries:
            if not self.deletions.files_of(entry, UNLINKED):
                unlinked -= set(entry.keys)
        self.orphans[storage].forget(unlinked)
        self.report.unlinked += sorted(unlinked)
        self.report.freed += sum(file.size for file in files if file.key in unlinked)

    def listed(self, storage: str) -> Iterator[FileStat]:
        with transaction.manager:
            total = self.links.count() // self.shard.count
        for file in self.listings[storage]:
            self.report.scanned += 1
            if self.report.scanned % 1000 == 0:
                self.progress("files scanned", self.report.scanned, total)
            yield file


def _name_of(step: Callable[[], None]) -> str:
    """The name of a step, with that of its storage unless it is the default one."""
    if not isinstance(step, partial):
        return step.__name__
    storage = getattr(step.args[0], "name", step.args[0])
    return f"{step.func.__name__} {storage}".strip()
