"""gc: what finishes the work of requests that died, and finds what they left behind.

It may run while the server is under load, several at once; each step is a short transaction.
"""

from __future__ import annotations

import logging
import re
import time
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import transaction
from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON, msec_time

from kinto_attachment.errors import AttachmentError, AttachmentGone, StorageError
from kinto_attachment.files.collection_settings import DEFAULT
from kinto_attachment.files.locations import possible_keys
from kinto_attachment.files.settling import delete_garbage
from kinto_attachment.index.links import Link, Links
from kinto_attachment.index.objects import batches, digest_of
from kinto_attachment.index.open_transactions import OpenTransactions
from kinto_attachment.maintenance import heartbeat, records
from kinto_attachment.metadata import FIELD
from kinto_attachment.settings import CollectionSettings, Settings
from kinto_attachment.storage import FileStat, FileStorage, ListsFiles, ListsUnfinished

logger = logging.getLogger(__name__)

UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"

Progress = Callable[[str, int], None]

# Longer than changes.SOON: see links_are_written.
PAUSE = timedelta(seconds=2)
MAX_WAIT = 60.0  # Seconds.


@dataclass(frozen=True)
class Shard:
    """One of several parts of the work, by the first two hexadecimal digits of a key's hash."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From ``i/n``, 1/4 to 4/4 for instance."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        shard = cls(*map(int, match.groups())) if match else cls(0, 0)
        if not 1 <= shard.index <= shard.count <= 256:
            raise ValueError("should be i/n, with i from 1 to n and n up to 256")
        return shard

    @property
    def prefixes(self) -> list[str]:
        return [f"{n:02x}" for n in range(256) if n % self.count == self.index - 1]

    def has(self, key: str) -> bool:
        return int(digest_of(key)[:2], 16) % self.count == self.index - 1


@dataclass
class Report:
    """What gc found, by kind: object keys, or URIs of records where it says so."""

    finished: list[str] = field(default_factory=list)  # Waited in the outbox to be deleted.
    unlinked: list[str] = field(default_factory=list)  # Stored, but of no record.
    unfinished: list[str] = field(default_factory=list)  # Remains of writes of dead processes.
    dangling: list[str] = field(default_factory=list)  # URIs of records that are gone or changed.
    missing: list[str] = field(default_factory=list)  # URIs of records whose file is not there.
    errors: list[str] = field(default_factory=list)
    scanned: int = 0
    freed: int = 0  # Bytes.

    @property
    def found(self) -> bool:
        return any(value for value in asdict(self).values() if isinstance(value, list))


def gc(
    registry: Any,
    *,
    grace: timedelta = timedelta(hours=1),
    dry_run: bool = False,
    shard: Shard = Shard(),
    progress: Progress = lambda step, count: None,
    pause: timedelta = PAUSE,
) -> Report:
    """Finish deletions, delete files no record knows, report records whose file is missing.

    Files and remains younger than ``grace`` are left alone: their request may still be running.
    So are files with names that the plugin, as it is configured, does not give.
    """
    before = datetime.now(timezone.utc) - grace
    return _Collector(registry, before, dry_run, shard, progress, pause).run()


class _Collector:
    def __init__(
        self,
        registry: Any,
        before: datetime,
        dry_run: bool,
        shard: Shard,
        progress: Progress,
        pause: timedelta,
    ) -> None:
        self.registry = registry
        self.links: Links = registry.attachment_links
        self.storage: FileStorage = registry.attachment_storage
        self.settings: Settings = registry.attachment_settings
        self.before = before
        self.dry_run = dry_run
        self.shard = shard
        self.progress = progress
        self.pause = pause
        self.report = Report()
        self.present = array("Q")  # The first 8 bytes of each stored key's hash.

    def run(self) -> Report:
        for step in (
            self.finish_outbox,
            self.free_names,
            self.remove_unfinished,
            self.check_links,
            self.remove_unlinked,
            self.find_missing,
        ):
            try:
                step()
            except AttachmentError as error:
                self.failed(step.__name__, error)
        return self.report

    def finish_outbox(self) -> None:
        done: set[str] = set()
        while True:
            with transaction.manager:
                waiting = self.links.outbox.entries()
            now = msec_time()
            entries = [entry for entry in waiting if entry.id not in done and entry.due <= now]
            if not entries:
                return
            for entry in entries:
                done.add(entry.id)
                if self.shard.has(entry.id):
                    self.report.finished += entry.keys
                    self.finish(entry)
                    self.progress("deletions finished", len(self.report.finished))

    def finish(self, entry: Any) -> None:
        if self.dry_run:
            return
        try:
            delete_garbage(self.registry, entry)
        except StorageError as error:
            self.failed(", ".join(entry.keys[:3]), error)

    def free_names(self) -> None:
        """Reservations of names by requests that died."""
        with transaction.manager:
            stale = self.links.reservations.before(int(self.before.timestamp() * 1000))
            for key in stale if not self.dry_run else ():
                self.links.reservations.release(key)

    def remove_unfinished(self) -> None:
        if not isinstance(self.storage, ListsUnfinished):
            return
        for remains in self.storage.list_unfinished():
            if remains.modified < self.before and self.shard.has(remains.id):
                self.report.unfinished.append(remains.key)
                self.report.freed += remains.size
                if not self.dry_run:
                    self.storage.discard_unfinished(remains)
                self.progress("remains removed", len(self.report.unfinished))

    def check_links(self) -> None:
        """Links whose record is gone, or has another attachment: a deletion overtook an upload."""
        found: list[Link] = []
        for page in self.pages():
            with transaction.manager:
                found += self.dangling(page)
        self.report.dangling += [link.record for link in found]
        if found and not self.dry_run:
            self.relink(found)
            for batch in batches(found):
                with transaction.manager:
                    entries = self.links.outbox.add(self.links.drop_dangling(batch))
                for entry in entries:
                    self.finish(entry)

    def relink(self, dangling: list[Link]) -> None:
        """Link the files to the records that do point at them: the links may be of wrong ones."""
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
            if all(link.state != "current" for link in self.links.of_record(uri)):
                for key in possible & keys:
                    with suppress(AttachmentGone):
                        self.links.share(Link.to(uri, key, attachment))

    def dangling(self, links: list[Link]) -> list[Link]:
        by_collection: dict[str, list[Link]] = defaultdict(list)
        for link in links:
            if link.state == "current":  # Kept ones are meant to outlive their record.
                by_collection[link.record.rpartition("/records/")[0]].append(link)
        found = []
        for collection, members in by_collection.items():
            for batch in batches(members):
                written = self.records(collection, [link.record for link in batch])
                found += [link for link in batch if self.is_dangling(written, link)]
        return found

    def records(self, collection: str, uris: list[str]) -> dict[str, Any]:
        ids = [uri.rpartition("/")[2] for uri in uris]
        rows = self.registry.storage.list_all(
            resource_name="record",
            parent_id=collection,
            filters=[Filter("id", set(ids), COMPARISON.IN)],
        )
        return {f"{collection}/records/{row['id']}": row for row in rows}

    def is_dangling(self, written: dict[str, Any], link: Link) -> bool:
        record = written.get(link.record)
        if record is None or record.get(FIELD) is None:
            return True
        keys = possible_keys(self.settings, self.registry.route_prefix, record[FIELD])
        if not keys or link.key in keys:  # None: from before `base_url` was changed.
            return False
        # A location can be odd, of a server that was called by an odd name: the only file of the
        # record, with the content that the record says, is its file all the same.
        others = self.links.of_record(link.record)
        is_only = all(other.state != "current" or other.key == link.key for other in others)
        return not (is_only and link.describes(record[FIELD]))

    def remove_unlinked(self) -> None:
        if not isinstance(self.storage, ListsFiles):
            return
        ours = layout(self.settings)
        found: list[FileStat] = []
        for batch in batches(self.listed()):
            old = [
                file for file in batch if file.modified < self.before and ours.fullmatch(file.key)
            ]
            with transaction.manager:
                unlinked = self.links.without_links([file.key for file in old])
            found += [file for file in old if file.key in unlinked]
        if found and (self.dry_run or self.links_are_written()):
            for batch in batches(found):
                self.remove(batch)

    def links_are_written(self) -> bool:
        """Wait for requests that may be linking a file which seemed to have no link.

        A request that links a file within a moment (changes.SOON) after it stored it does not
        ask whether the file is still there. It is in a transaction then, so wait for a moment,
        and for the transactions that are open after it.
        """
        time.sleep(self.pause.total_seconds())
        with_links = OpenTransactions(self.registry.storage)
        if with_links.wait(MAX_WAIT):
            return True
        self.report.errors.append(
            "A transaction of the database does not end: files without links are left alone."
        )
        return False

    def remove(self, files: list[FileStat]) -> None:
        """Delete files that seem to have no link, if they have none indeed."""
        unlinked = {file.key for file in files}
        with transaction.manager:
            if self.dry_run:
                unlinked = self.links.without_links(list(unlinked))
            else:
                entries, unlinked = self.links.move_orphans_to_outbox(unlinked)
        self.report.unlinked += sorted(unlinked)
        self.report.freed += sum(file.size for file in files if file.key in unlinked)
        if not self.dry_run:
            for entry in entries:
                self.finish(entry)

    def listed(self) -> Iterator[FileStat]:
        assert isinstance(self.storage, ListsFiles)  # noqa: S101 - checked by the caller.
        for file in self.storage.list():
            if self.shard.has(file.key):
                self.present.append(int(digest_of(file.key)[:16], 16))
                self.report.scanned += 1
                if self.report.scanned % 1000 == 0:
                    self.progress("files scanned", self.report.scanned)
                yield file

    def find_missing(self) -> None:
        if not isinstance(self.storage, ListsFiles):
            return
        self.present = array("Q", sorted(self.present))
        for page in self.pages():
            for link in page:
                if not self.is_present(link.key) and not self.storage.exists(link.key):
                    self.report_missing(link)

    def report_missing(self, link: Link) -> None:
        with transaction.manager:  # Dropped since we read it, or is it there still?
            if link.record in [other.record for other in self.links.of_key(link.key)]:
                self.report.missing.append(link.record)
                logger.error("The file of %s is missing: %s", link.record, link.key)

    def is_present(self, key: str) -> bool:
        wanted = int(digest_of(key)[:16], 16)
        position = bisect_left(self.present, wanted)
        return position < len(self.present) and self.present[position] == wanted

    def pages(self) -> Iterator[list[Link]]:
        """All links of this shard, each page read in a transaction of its own."""
        prefixes = self.shard.prefixes if self.shard.count > 1 else [""]
        for prefix in prefixes:
            pages = self.links.under(within=prefix)
            while True:
                with transaction.manager:
                    page = next(pages, None)
                if page is None:
                    break
                yield page

    def failed(self, what: str, error: Exception) -> None:
        logger.error("gc: %s: %s", what, error, exc_info=error)
        self.report.errors.append(f"{what}: {error}")


def layout(settings: Settings) -> re.Pattern[str]:
    """The keys that the plugin, as it is configured, gives to files."""
    resources = {(*resource, "")[:2] for resource in settings.overrides}
    of_default = {collection for bucket, collection in resources if bucket == DEFAULT}
    rules = [settings.for_collection(*resource) for resource in resources]
    rules += [
        settings.for_collection(bucket, collection, DEFAULT)
        for bucket, own in resources
        for collection in {own, *of_default}
    ]
    patterns = {_layout_of(each) for each in [*rules, settings.for_collection("", "")]}
    return re.compile("|".join([*sorted(patterns), f"{heartbeat.FOLDER}/{UUID}\\.txt"]))


def _layout_of(rules: CollectionSettings) -> str:
    mark = "\0"
    folder = name = ""
    if rules.folder is not None:
        folder = rules.folder.format(bucket_id=mark, collection_id=mark).strip("/") + "/"
    if rules.randomize:
        return re.escape(folder).replace(re.escape(mark), "[^/]+") + UUID + r"(\.[^/.]+)?"
    name = rules.filename_pattern.format(filename=mark, datetime=mark, rid=mark)
    return re.escape(folder + name).replace(re.escape(mark), "[^/]+") + "(-[0-9]+)?(\\.[^/.]+)?"
