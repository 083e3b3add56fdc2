"""gc: deletes files that no record points at, and reports records whose file is missing.

Safe while the server is under load, and with several gc at once: each step is a short transaction.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import transaction
from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON, msec_time

from kinto_attachment.errors import AttachmentError, AttachmentGone, StorageError
from kinto_attachment.files.locations import possible_keys
from kinto_attachment.files.settling import delete_garbage
from kinto_attachment.index.link import Link
from kinto_attachment.index.lives import Lives
from kinto_attachment.index.objects import batches
from kinto_attachment.index.open_transactions import OpenTransactions
from kinto_attachment.index.outbox import Garbage
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance import records
from kinto_attachment.maintenance.application import reason
from kinto_attachment.maintenance.key_layout import key_layout
from kinto_attachment.maintenance.listing import Listing
from kinto_attachment.maintenance.reports import Progress, Report, no_progress
from kinto_attachment.maintenance.shards import WHOLE, Shard
from kinto_attachment.metadata import FIELD
from kinto_attachment.storage import FileStat, ListsFiles, ListsUnfinished
from kinto_attachment.storage.storages import Storage

logger = logging.getLogger(__name__)

# Longer than link_steps.UNCHECKED_SECONDS: see links_are_written.
PAUSE = timedelta(seconds=2)
MAX_WAIT = 60.0  # Seconds.


@dataclass
class GcReport(Report):
    """What gc found, by kind: object keys, or URIs of records where it says so."""

    finished: list[str] = field(default_factory=list)  # In the outbox, waiting to be deleted.
    unlinked: list[str] = field(default_factory=list)  # Stored, but without a record.
    unfinished: list[str] = field(default_factory=list)  # Left by writes of dead processes.
    dangling: list[str] = field(default_factory=list)  # URIs of records, deleted or changed.
    missing: list[str] = field(default_factory=list)  # URIs of records whose file is not there.
    errors: list[str] = field(default_factory=list)
    scanned: int = 0
    freed: int = 0  # Bytes.


def gc(
    registry: Registry,
    *,
    grace: timedelta = timedelta(hours=1),
    dry_run: bool = False,
    shard: Shard = WHOLE,
    storage: str | None = None,
    progress: Progress = no_progress,
    pause: timedelta = PAUSE,
) -> GcReport:
    """Retry failed deletions, delete files without a record, report records without a file.

    ``storage`` is the name of the only storage to look at, as the index has it.

    Files and unfinished writes younger than ``grace`` are kept: their request may still be
    running. So are files whose keys are not of the form that the plugin gives to files.
    """
    before = datetime.now(timezone.utc) - grace
    storages = registry.attachment_storages
    chosen = list(storages) if storage is None else [storages[storage]]
    return _Collector(registry, before, dry_run, shard, chosen, progress, pause).run()


class _Collector:
    def __init__(
        self,
        registry: Registry,
        before: datetime,
        dry_run: bool,
        shard: Shard,
        storages: list[Storage],
        progress: Progress,
        pause: timedelta,
    ) -> None:
        self.registry = registry
        self.links = registry.attachment_links
        self.storages = {storage.name: storage for storage in storages}
        self.settings = registry.attachment_settings
        self.before = before
        self.dry_run = dry_run
        self.shard = shard
        self.progress = progress
        self.pause = pause
        self.report = GcReport()
        self.listings = {
            storage.name: Listing(storage.files, shard)
            for storage in storages
            if isinstance(storage.files, ListsFiles)
        }
        # How many links there are in storages that are not configured.
        self.elsewhere: Counter[str] = Counter()

    def run(self) -> GcReport:
        steps: list[Callable[[], None]] = [
            *(partial(self.empty_outbox, name) for name in self.storages),
            self.release_reservations,
            *(partial(self.remove_unfinished, storage) for storage in self.storages.values()),
            self.check_links,
            *(partial(self.remove_unlinked, name) for name in self.listings),
            self.find_missing,
            self.check_storages,
        ]
        for step in steps:
            try:
                step()
            except AttachmentError as error:
                self.failed(_name_of(step), error)
        return self.report

    def empty_outbox(self, storage: str) -> None:
        """Delete the files of a storage that committed transactions left to be deleted."""
        done: set[str] = set()
        while True:
            with transaction.manager:
                waiting = self.links.outbox.entries(storage=storage)
            now = msec_time()
            entries = [entry for entry in waiting if entry.id not in done and entry.due <= now]
            if not entries:
                return
            for entry in entries:
                done.add(entry.id)
                if self.shard.has(entry.id) and self.delete_files_of(entry):
                    self.report.finished += entry.keys
                    self.progress("deletions finished", len(self.report.finished))

    def delete_files_of(self, entry: Garbage) -> bool:
        """Delete what an entry of the outbox names; False if that failed, which is reported.

        The entry is then still there, for the next run.
        """
        if self.dry_run:
            return True
        try:
            delete_garbage(self.registry, entry)
        except StorageError as error:
            more = f" and {len(entry.keys) - 3:,} more" if len(entry.keys) > 3 else ""
            self.failed(f"not deleted: {', '.join(entry.keys[:3])}{more}", error)
            return False
        return True

    def release_reservations(self) -> None:
        """Release reservations of keys by requests that died."""
        with transaction.manager:
            stale = self.links.reservations.before(int(self.before.timestamp() * 1000))
            for key in stale if not self.dry_run else ():
                self.links.reservations.release(key)

    def remove_unfinished(self, storage: Storage) -> None:
        files = storage.files
        if not isinstance(files, ListsUnfinished):
            return
        for remains in files.list_unfinished():
            if remains.modified < self.before and self.shard.has(remains.id):
                try:
                    if not self.dry_run:
                        files.discard_unfinished(remains)
                except StorageError as error:
                    self.failed(f"not deleted: remains of {remains.key}", error)
                    continue
                self.report.unfinished.append(remains.key)
                self.report.freed += remains.size
                self.progress("remains removed", len(self.report.unfinished))

    def check_links(self) -> None:
        """Drop links whose record is gone or has another attachment, and delete their files."""
        found: list[Link] = []
        for page in self.shard.pages(self.links):
            others = [link.storage for link in page]
            storages = self.registry.attachment_storages
            self.elsewhere.update(name for name in others if name not in storages)
            with transaction.manager:
                found += self.dangling(page)
        self.report.dangling += [link.record for link in found]
        if found and not self.dry_run:
            self.relink(found)
            for batch in batches(found):
                with transaction.manager:
                    entries = self.links.outbox.add_files(self.links.drop_dangling(batch))
                for entry in entries:
                    self.delete_files_of(entry)

    def relink(self, dangling: list[Link]) -> None:
        """Link the files to the records that point at them: their links may name other records."""
        keys = {link.key for link in dangling}
        for batch in batches({link.hash for link in dangling}):
            same_content = Filter(f"{FIELD}.hash", batch, COMPARISON.IN)
            for collection in records.collections(self.registry):
                for page in records.with_attachment(self.registry, collection, same_content):
                    for record in page:
                        self.relink_to(f"{collection}/records/{record['id']}", record[FIELD], keys)

    def relink_to(self, uri: str, attachment: Any, keys: set[str]) -> None:
        possible = possible_keys(self.settings, self.registry.route_prefix, attachment)
        with transaction.manager:
            links = self.links.of_record(uri)
            if all(link.state != "current" for link in links):
                life = Lives().of(uri, links)
                for key in possible & keys:
                    with suppress(AttachmentGone):
                        self.links.share(Link.to(uri, key, attachment, life=life))

    def dangling(self, links: list[Link]) -> list[Link]:
        # Links of other states may outlive their record.
        current = [
            link for link in links if link.state == "current" and link.storage in self.storages
        ]
        found = []
        for batch in batches(current):
            written = records.by_uri(self.registry, [link.record for link in batch])
            found += [link for link in batch if self.is_dangling(written[link.record], link)]
        return found

    def is_dangling(self, record: Any, link: Link) -> bool:
        if record is None or record.get(FIELD) is None:
            return True
        keys = possible_keys(self.settings, self.registry.route_prefix, record[FIELD])
        if not keys or link.key in keys:  # No keys: the location is from an earlier `base_url`.
            return False
        # The location may have an unusual host name that a client used for this server. If the
        # record has no other file, and its attachment has this content, it is the record's file.
        others = self.links.of_record(link.record)
        is_only = all(other.state != "current" or other.key == link.key for other in others)
        return not (is_only and link.describes(record[FIELD]))

    def remove_unlinked(self, storage: str) -> None:
        """Delete files of a storage that no link names, not even as one of another storage."""
        layout = key_layout(self.settings)
        found: list[FileStat] = []
        for batch in batches(self.listed(storage)):
            old = [
                file
                for file in batch
                if file.modified < self.before and layout.fullmatch(file.key)
            ]
            with transaction.manager:
                unlinked = self.links.without_links([file.key for file in old])
            found += [file for file in old if file.key in unlinked]
        if found and (self.dry_run or self.links_are_written()):
            for batch in batches(found):
                self.remove(storage, batch)

    def links_are_written(self) -> bool:
        """Wait for requests that may be linking a file which seemed to have no link.

        A request that links a file within link_steps.UNCHECKED_SECONDS after it stored it does not
        ask whether the file still exists. It is in a transaction by then. So wait for longer than
        that, and then for the transactions that are open.

        :returns: False if they have not ended in time.
        """
        time.sleep(self.pause.total_seconds())
        with_links = OpenTransactions(self.registry.storage)
        if with_links.wait(MAX_WAIT):
            return True
        self.report.errors.append(
            "A transaction of the database does not end: files without links are kept."
        )
        return False

    def remove(self, storage: str, files: list[FileStat]) -> None:
        """Delete files that seem to have no link, after checking that with a lock."""
        unlinked = {file.key for file in files}
        entries: list[Garbage] = []
        with transaction.manager:
            if self.dry_run:
                unlinked = self.links.without_links(list(unlinked))
            else:
                entries, unlinked = self.links.move_orphans_to_outbox(unlinked, storage)
        for entry in entries:
            if not self.delete_files_of(entry):
                unlinked -= set(entry.keys)
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

    def find_missing(self) -> None:
        complete = {name for name, listing in self.listings.items() if listing.is_complete}
        for page in self.shard.pages(self.links) if complete else ():
            for link in page:
                if link.storage in complete and not self.is_present(link):
                    self.report_missing(link)

    def is_present(self, link: Link) -> bool:
        is_listed = link.key in self.listings[link.storage]
        return is_listed or self.storages[link.storage].files.exists(link.key)

    def report_missing(self, link: Link) -> None:
        with transaction.manager:  # It may have been dropped in the meantime.
            if link.record in [other.record for other in self.links.of_key(link.key)]:
                self.report.missing.append(link.record)
                logger.error("The file of %s is missing: %s", link.record, link.key)

    def check_storages(self) -> None:
        """Report storages that have files but no settings, whose files are left as they are.

        The index notes which storages have files: what is missing there is added, and a storage
        that is not configured is forgotten when none of its files is left.
        """
        used, storages = self.links.used_storages, self.registry.attachment_storages
        with transaction.manager:
            noted = {name for name in used.names() if name not in storages}
            waiting = {name: self.links.outbox.entries(storage=name) for name in noted}
            for name in sorted(noted | {*self.elsewhere}):
                if self.elsewhere[name] or waiting.get(name):
                    self.report_storage(name)
                    if not self.dry_run:
                        used.note(name)
                elif self.shard == WHOLE and not self.dry_run:
                    used.forget(name)

    def report_storage(self, name: str) -> None:
        message = f"The storage {name!r} is not configured: its files are left as they are."
        logger.error("gc: %s", message)
        self.report.errors.append(message)

    def failed(self, what: str, error: Exception) -> None:
        logger.error("gc: %s: %s", what, reason(error), exc_info=error)
        self.report.errors.append(f"{what}: {reason(error)}")


def _name_of(step: Callable[[], None]) -> str:
    """The name of a step, and that of the storage that it is about unless it is the default."""
    if not isinstance(step, partial):
        return step.__name__
    storage = getattr(step.args[0], "name", step.args[0])
    return f"{step.func.__name__} {storage}".strip()
