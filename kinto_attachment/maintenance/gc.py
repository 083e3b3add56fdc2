"""gc: deletes files that no record points at, and reports records whose file is missing.

Safe while the server is under load, and with several gc at once: each step is a short transaction.

Nothing is deleted unless database and storages belong together (see ``index/site.py``). What a
transaction let go of is known garbage. Other files without a record are noted first, and deleted
by a later run, if the plugin gave them their names.
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

from kinto_attachment import names
from kinto_attachment.errors import AttachmentError, AttachmentGone, StorageError
from kinto_attachment.files.locations import possible_keys
from kinto_attachment.files.settling import delete_garbage
from kinto_attachment.index.link import Link
from kinto_attachment.index.lives import Lives
from kinto_attachment.index.objects import batches
from kinto_attachment.index.open_transactions import OpenTransactions
from kinto_attachment.index.outbox import Garbage
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance import heartbeat, records
from kinto_attachment.maintenance.application import reason
from kinto_attachment.maintenance.listing import Listing
from kinto_attachment.maintenance.old_sessions import OldSessions
from kinto_attachment.maintenance.orphans import Orphans
from kinto_attachment.maintenance.placing import records_without_link
from kinto_attachment.maintenance.reports import Progress, Report, no_progress
from kinto_attachment.maintenance.shards import WHOLE, Shard
from kinto_attachment.metadata import FIELD
from kinto_attachment.storage import FileStat, ListsFiles, ListsUnfinished, Unfinished
from kinto_attachment.storage.storages import Storage

logger = logging.getLogger(__name__)

# Longer than link_steps.UNCHECKED_SECONDS: see links_are_written.
PAUSE = timedelta(seconds=2)
MAX_WAIT = 60.0  # Seconds.
# More than so many deletions, if they are more than a tenth of all files, look like a mistake.
MANY = 20
SHARE = 10

UNPLACED = (
    "Nothing but known garbage was deleted: {count} records have attachments whose location is "
    "not one of this server (such as {examples}). Set base_url and former_base_urls so that they "
    "are found, and run `kinto-attachment reindex`; if their files are elsewhere, use --really."
)
UNLINKED = (
    "Nothing but known garbage was deleted: {count} records have files that the index does not "
    "know (such as {examples}). Run `kinto-attachment reindex`."
)
TOO_MANY = (
    "Nothing but known garbage was deleted: {count} of {total} files belong to no record, which "
    "may be a mistake. See which with --dry-run; if it is right, use --really."
)

# Why files are deleted, for the log.
LET_GO = "a committed request has replaced or deleted it"
DANGLING = "the record that its link names has another attachment, or is gone"
UNLINKED_FILE = "no record has it"


@dataclass
class GcReport(Report):
    """What gc found, by kind: object keys, or URIs of records where it says so."""

    finished: list[str] = field(default_factory=list)  # In the outbox, waiting to be deleted.
    orphaned: list[str] = field(default_factory=list)  # Without a record, but not for long.
    unlinked: list[str] = field(default_factory=list)  # Stored, but without a record.
    unfinished: list[str] = field(default_factory=list)  # Left by writes of dead processes.
    uploads: list[str] = field(default_factory=list)  # Sessions that have expired, or ended.
    dangling: list[str] = field(default_factory=list)  # URIs of records, deleted or changed.
    missing: list[str] = field(default_factory=list)  # URIs of records whose file is not there.
    errors: list[str] = field(default_factory=list)
    scanned: int = 0
    freed: int = 0  # Bytes.


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
    running. Files that turned out to have no record less than ``orphan_age`` ago are noted. Files
    to which the plugin did not give their names are left alone. ``really`` deletes even very many
    files, and also while there are records whose attachments are elsewhere.

    :raises NotThisSite: database and storages do not belong together; nothing was done.
    """
    storages = registry.attachment_storages
    chosen = list(storages) if storage is None else [storages[storage]]
    options = Options(grace, orphan_age, dry_run, really, shard, pause)
    return _Collector(registry, chosen, options, progress).run()


@dataclass(frozen=True)
class Options:
    """What a gc was told."""

    grace: timedelta
    orphan_age: timedelta
    dry_run: bool
    really: bool
    shard: Shard
    pause: timedelta


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
        self.settings = registry.attachment_settings
        self.report = GcReport()
        self.owner = ""
        self.storages = {each.name: each for each in storages if self.is_ours(each)}
        self.options = options
        self.before = datetime.now(timezone.utc) - options.grace
        self.dry_run = options.dry_run
        self.shard = options.shard
        self.progress = progress
        self.orphans = {name: self.orphans_of(name) for name in self.storages}
        # What is due to be deleted.
        self.dangling_links: list[Link] = []
        self.dangling_keys: set[str] = set()
        self.links_are_checked = False
        self.unlinked: dict[str, list[FileStat]] = {name: [] for name in self.storages}
        # Reserved names of requests that died; see settling.
        self.abandoned: set[str] = set()
        self.listings = {
            storage.name: Listing(storage.files, self.shard)
            for storage in self.storages.values()
            if isinstance(storage.files, ListsFiles)
        }
        # How many links there are in storages that are not configured.
        self.elsewhere: Counter[str] = Counter()

    def is_ours(self, storage: Storage) -> bool:
        """Whether a storage belongs to the database; False if it is free, or does not answer.

        :raises NotThisSite: it belongs to another one.
        """
        try:
            if self.site.is_free(storage):
                with transaction.manager:
                    if not self.links.are_in(storage.name):
                        return False
            self.owner = self.site.check([storage])
        except StorageError as error:
            self.failed(f"the storage {storage.title}", error)
            return False
        return True

    def leave_mark(self) -> None:
        if not self.dry_run:
            self.site.mark(self.storages.values())

    def run(self) -> GcReport:
        steps: list[Callable[[], None]] = [
            self.leave_mark,
            *(partial(self.empty_outbox, name) for name in self.storages),
            self.remove_old_sessions,
            self.check_reservations,
            *(partial(self.remove_unfinished, storage) for storage in self.storages.values()),
            self.check_links,
            *(partial(self.find_unlinked, name) for name in self.listings),
            self.remove_orphans,
            *(partial(self.save_notes, name) for name in self.storages),
            self.release_reservations,
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
                if self.shard.has(entry.id) and self.delete_files_of(entry, LET_GO):
                    self.report.finished += entry.keys
                    self.progress("deletions finished", len(self.report.finished))

    def delete_files_of(self, entry: Garbage, why: str) -> bool:
        """Delete what an entry of the outbox names; False if that failed, which is reported.

        The entry is then still there, for the next run.
        """
        if self.dry_run:
            return True
        try:
            for key in delete_garbage(self.registry, entry) or ():
                self.log_deletion(entry.storage, key, why)
        except StorageError as error:
            more = f" and {len(entry.keys) - 3:,} more" if len(entry.keys) > 3 else ""
            self.failed(f"not deleted: {', '.join(entry.keys[:3])}{more}", error)
            return False
        return True

    def log_deletion(self, storage: str, key: str, why: str) -> None:
        title = self.storages[storage].title
        logger.info("gc: deleted %s from the storage %s: %s", key, title, why)

    def check_reservations(self) -> None:
        """Find the keys that were reserved by requests that died."""
        with transaction.manager:
            stale = self.links.reservations.before(int(self.before.timestamp() * 1000))
            going_on = self.sessions.owned_partials({*filter(None, stale.values())})
        self.abandoned = {
            key
            for key, session in stale.items()
            if self.shard.has(key) and session not in going_on
        }

    def remove_old_sessions(self) -> None:
        """Remove what is stored of uploads in several requests that have ended.

        Until then, it belongs to them, whatever its age.
        """
        old = OldSessions(self.registry, self.storages, self.shard, dry_run=self.dry_run)
        for session, is_removed in old.remove():
            if is_removed:
                self.report.uploads.append(session.key)
            else:
                self.report.errors.append(f"not removed: what an upload has left: {session.key}")

    def release_reservations(self) -> None:
        """Release the keys of requests that died, unless there is a file without a record."""
        storages = [storage.files for storage in self.registry.attachment_storages]
        for key in self.abandoned if not self.dry_run else ():
            is_there = any(files.exists(key) for files in storages)
            with transaction.manager:
                if not is_there or self.links.of_key(key):
                    self.links.reservations.release(key)

    def orphans_of(self, storage: str) -> Orphans:
        age = int(self.options.orphan_age.total_seconds() * 1000)
        notes, prefixes = self.links.orphan_notes, self.shard.prefixes
        return Orphans(notes, storage, prefixes, now=msec_time(), age=age)

    def note(self, storage: str, key: str) -> bool:
        """Note a file without a record; True if it is due to be deleted."""
        orphans = self.orphans[storage]
        since = orphans.see(key)
        if orphans.is_due(since):
            return True
        self.report.orphaned.append(f"{key} (since {_iso(since)})")
        return False

    def save_notes(self, storage: str) -> None:
        listing = self.listings.get(storage)
        is_complete = self.links_are_checked and (listing is None or listing.is_complete)
        if is_complete and not self.dry_run:
            self.orphans[storage].save()

    def remove_unfinished(self, storage: Storage) -> None:
        files = storage.files
        if not isinstance(files, ListsUnfinished):
            return
        for batch in batches(files.list_unfinished()):
            abandoned = [
                each for each in batch if self.shard.has(each.id) and self.is_abandoned(each)
            ]
            for remains in self.without_session(abandoned):
                self.remove_remains(storage, files, remains)

    def without_session(self, remains: list[Unfinished]) -> list[Unfinished]:
        """Those that belong to no upload in several requests that still goes on."""
        with transaction.manager:
            partials = self.sessions.owned_partials({*(each.partial_id for each in remains)})
            keys = self.sessions.owned_keys({*(each.key for each in remains)})
        return [
            each for each in remains if each.partial_id not in partials and each.key not in keys
        ]

    def remove_remains(
        self, storage: Storage, files: ListsUnfinished, remains: Unfinished
    ) -> None:
        if not self.dry_run:
            try:
                files.discard_unfinished(remains)
            except StorageError as error:
                self.failed(f"not deleted: remains of {remains.key}", error)
                return
            self.log_deletion(storage.name, remains.key, "an upload that was not finished")
        self.report.unfinished.append(remains.key)
        self.report.freed += remains.size
        self.progress("remains removed", len(self.report.unfinished))

    def is_abandoned(self, remains: Unfinished) -> bool:
        """Whether it is what an upload of this plugin has left; others may use the same bucket."""
        is_own = remains.is_private or self.is_own(remains.key)
        return is_own and remains.modified < self.before

    def is_own(self, key: str) -> bool:
        """Whether the plugin gave a file its name, and no request is under way that did."""
        name = key.rpartition("/")[2]
        return names.is_name_of(self.owner, name) or key in self.abandoned

    def check_links(self) -> None:
        """Find links whose record is gone or has another attachment."""
        dangling: list[Link] = []
        for page in self.shard.pages(self.links):
            others = [link.storage for link in page]
            storages = self.registry.attachment_storages
            self.elsewhere.update(name for name in others if name not in storages)
            with transaction.manager:
                found = self.dangling(page)
            self.report.dangling += [link.record for link in found]
            dangling += found
        self.dangling_keys = {link.key for link in dangling}
        if dangling and not self.dry_run:
            self.relink(dangling)
        self.dangling_links = [link for link in dangling if self.note(link.storage, link.key)]
        self.links_are_checked = True

    def find_unlinked(self, storage: str) -> None:
        """Find files of a storage that no link names, not even as one of another storage."""
        for batch in batches(self.listed(storage)):
            old = [
                file
                for file in batch
                if file.modified < self.before and (self.is_own(file.key) or is_heartbeat(file))
            ]
            with transaction.manager:
                unlinked = self.links.without_links([file.key for file in old])
                unlinked -= self.sessions.owned_keys(unlinked)
            self.unlinked[storage] += [
                file for file in old if file.key in unlinked and self.note(storage, file.key)
            ]

    def remove_orphans(self) -> None:
        """Delete what has had no record for long enough, unless that may be a mistake."""
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
        """Whether nothing speaks against deleting files without records; else it is reported."""
        if not self.count_due() and not self.report.orphaned:
            return True
        doubts = [*self.doubts_about_records(), *self.doubts_about_number()]
        for doubt in doubts:
            logger.error("gc: %s", doubt)
        self.report.errors += doubts
        return not doubts

    def doubts_about_records(self) -> Iterator[str]:
        foreign: list[str] = []
        unlinked: list[str] = []
        # A dry run does not relink the files of dangling links.
        for uri, is_foreign in records_without_link(self.registry, self.dangling_keys):
            (foreign if is_foreign else unlinked).append(uri)
        for message, uris in ((UNLINKED, unlinked), (UNPLACED, foreign)):
            if uris and not (self.options.really and uris is foreign):
                yield message.format(count=f"{len(uris):,}", examples=", ".join(uris[:3]))

    def doubts_about_number(self) -> Iterator[str]:
        due, total = self.count_due(), self.report.scanned
        if due > MANY and due * SHARE > total and not self.options.really:
            yield TOO_MANY.format(count=f"{due:,}", total=f"{total:,}")

    def drop(self, links: list[Link]) -> None:
        """Drop links that were found dangling, and delete their files."""
        if self.dry_run:
            return
        self.site.check({link.storage: self.storages[link.storage] for link in links}.values())
        with transaction.manager:
            # A record may have got its file back since.
            still = self.dangling(links)
            entries = self.links.outbox.add_files(self.links.drop_dangling(still))
        for entry in entries:
            if self.delete_files_of(entry, DANGLING):
                self.orphans[entry.storage].forget(entry.keys)

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

    def links_are_written(self) -> bool:
        """Wait for requests that may be linking a file which seemed to have no link.

        A request that links a file within link_steps.UNCHECKED_SECONDS after it stored it does not
        ask whether the file still exists. It is in a transaction by then. So wait for longer than
        that, and then for the transactions that are open.

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
        """Delete files that seem to have no link, after checking that with a lock."""
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
                entries, unlinked = move(unlinked, storage, abandoned=self.abandoned)
        for entry in entries:
            if not self.delete_files_of(entry, UNLINKED_FILE):
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


def is_heartbeat(file: FileStat) -> bool:
    """Whether a heartbeat has left this file."""
    folder, _, name = file.key.rpartition("/")
    return (
        folder == heartbeat.FOLDER
        and file.size == len(heartbeat.CONTENT)
        and bool(names.RANDOM_NAME.fullmatch(name))
    )


def _iso(time: int) -> str:
    moment = datetime.fromtimestamp(time / 1000, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _name_of(step: Callable[[], None]) -> str:
    """The name of a step, and that of the storage that it is about unless it is the default."""
    if not isinstance(step, partial):
        return step.__name__
    storage = getattr(step.args[0], "name", step.args[0])
    return f"{step.func.__name__} {storage}".strip()
