"""adopt: takes over a site of the kinto-attachment on PyPI, or of an earlier release.

First, the rows of the other plugin are read, which have the file of each record. Then come the
records without such a row: copies of other records, and records that this plugin wrote. Finally,
the files that no record has are listed. They are never deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from typing import ClassVar

import transaction

from kinto_attachment import names
from kinto_attachment.errors import AttachmentGone, FileNotFound
from kinto_attachment.index.bulk import BulkLinks
from kinto_attachment.index.link import Link
from kinto_attachment.index.lives import Lives
from kinto_attachment.index.objects import batches
from kinto_attachment.index.old_rows import OldRow
from kinto_attachment.kinto_types import KintoObject, Registry
from kinto_attachment.maintenance import records
from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.maintenance.digests import Digests
from kinto_attachment.maintenance.linking import (
    FOREIGN,
    Candidate,
    Placed,
    Placer,
    is_described,
    milliseconds,
    sha256_of,
)
from kinto_attachment.maintenance.listing import Listing
from kinto_attachment.maintenance.old_links import complete
from kinto_attachment.maintenance.old_locations import by_old_location, names_key
from kinto_attachment.maintenance.reports import Progress, Report, no_progress
from kinto_attachment.maintenance.rollback import pages_of
from kinto_attachment.maintenance.shards import WHOLE
from kinto_attachment.metadata import FIELD
from kinto_attachment.storage import ListsFiles
from kinto_attachment.storage.storages import Storage
from kinto_attachment.uris import RecordURI

logger = logging.getLogger(__name__)

UNKNOWN = "its location is under no known address (--old-base-url): {}"


@dataclass
class AdoptReport(Report):
    """The records and files that adopt took over, and those that it could not."""

    records: int = 0
    linked: int = 0  # Records that got a link to their file.
    kept: int = 0  # Earlier files of records, which are now kept versions.
    completed: int = 0  # Links of an earlier release of this plugin.
    unplaced: list[str] = field(default_factory=list)  # URIs of records, each with the reason.
    unnamed: list[str] = field(default_factory=list)  # Files that no record has.

    for_information: ClassVar[tuple[str, ...]] = ("unnamed",)

    def count(self, placed: Placed, reason: str = "") -> None:
        """Count a record; ``reason`` replaces its own reason."""
        self.linked += placed.is_new
        if placed.reason:
            self.unplaced.append(f"{placed.record}: {reason or placed.reason}")
            logger.warning("Not adopted: %s", self.unplaced[-1])


def adopt(
    registry: Registry,
    *,
    old_base_urls: Sequence[str] = (),
    verify: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> AdoptReport:
    """Link every record that has an attachment to the file at its location.

    ``old_base_urls`` are former addresses of the files. With ``verify``, the content of each file
    is compared with the record.

    :raises NotThisSite: a storage belongs to another database; nothing was done.
    :raises CommandError: there are no files at all; nothing was done.
    """
    return _Adoption(registry, old_base_urls, verify, dry_run, progress).run()


class _Adoption:
    def __init__(
        self,
        registry: Registry,
        old_base_urls: Sequence[str],
        verify: bool,
        dry_run: bool,
        progress: Progress,
    ) -> None:
        self.registry = registry
        self.links = registry.attachment_links
        self.bulk = BulkLinks(registry.storage, self.links)
        self.by_location = by_old_location(registry, old_base_urls)
        self.verify = verify
        self.dry_run = dry_run
        self.progress = progress
        self.report = AdoptReport()
        self.started = datetime.now(timezone.utc)
        # Why rows were not used, by the URIs of records.
        self.reasons: dict[str, str] = {}
        # Records that need no second check: their file was verified, or a dry run would link it.
        self.done = Digests()
        # The files that a dry run would have linked.
        self.dry_keys: set[str] = set()

    def run(self) -> AdoptReport:
        self.registry.attachment_site.check_not_of_others()
        self.check_not_empty()
        self.follow_rows()
        self.place_records()
        if not self.dry_run:
            self.report.completed = complete(
                self.registry, partial(self.progress, "links completed")
            )
        for storage in self.registry.attachment_storages:
            self.list_unnamed(storage)
        if not self.dry_run:
            self.claim()
        return self.report

    def check_not_empty(self) -> None:
        """:raises CommandError: there are rows but no files, so this is another folder."""
        if any(map(may_have_files, self.registry.attachment_storages)):
            return
        if any(pages_of(self.registry)):
            places = [each.files.place or each.name for each in self.registry.attachment_storages]
            raise CommandError(
                "The database knows files of the other release, but there is no file in "
                f"{', '.join(places)}: do the settings name the right folder or bucket?"
            )

    def claim(self) -> None:
        """Make the storages belong to this database.

        The site then has a new id, unless it already had one. The names of existing files are not
        sealed with it, so gc leaves them alone unless they have been linked.
        """
        self.registry.attachment_site.claim()

    def follow_rows(self) -> None:
        """Take over the files in the other plugin's rows."""
        count = 0
        for rows in pages_of(self.registry):
            with transaction.manager:
                written = records.by_uri(self.registry, {row.record for row in rows})
            current = {row.record: row for row in rows if _is_of(row, written[row.record])}
            self.place_rows(current, written)
            for row in rows:
                if current.get(row.record) != row:
                    self.keep(row, written[row.record])
            count += len(rows)
            self.progress("old rows followed", count)

    def place_rows(self, rows: dict[str, OldRow], written: dict[str, KintoObject | None]) -> None:
        def locate(uri: str, record: KintoObject) -> list[Candidate]:
            key = rows[uri].key
            return [Candidate(each.name, key) for each in self.registry.attachment_storages]

        page = {uri: record for uri, record in written.items() if record and uri in rows}
        with Placer(self.registry, locate, verify=self.verify, dry_run=self.dry_run) as placer:
            for placed in placer.place(page):
                # Records without a file are tried by location, and reported, along with all
                # records.
                self.report.linked += placed.is_new
                if placed.reason:
                    self.reasons[placed.record] = placed.reason
                    continue
                if self.dry_run or self.verify:
                    self.done.add(placed.record)
                if self.dry_run:
                    self.dry_keys.add(placed.key)

    def keep(self, row: OldRow, record: KintoObject | None) -> None:
        """Keep the file of a row whose record has another one or none, or was deleted.

        Its name and type are unknown.
        """
        for storage in self.registry.attachment_storages:
            try:
                stat = storage.files.stat(row.key)
            except FileNotFound:
                continue
            if self.is_known(row):
                return
            if self.dry_run:
                self.report.kept += row.key not in self.dry_keys
                self.dry_keys.add(row.key)
                return
            at = milliseconds(stat)
            filename = row.key.rpartition("/")[2]
            described = {
                "filename": filename,
                "hash": sha256_of(self.registry, storage.name, row.key),
                "mimetype": names.mimetype(filename, None, {}),
                "size": stat.size,
            }
            link = Link.to(row.record, row.key, described, storage=storage.name)
            self.write_kept(replace(link, state="kept", created=at, attached=at), record)
            return

    def is_known(self, row: OldRow) -> bool:
        """Whether the record has a link to the file, in any state."""
        with transaction.manager:
            return any(link.record == row.record for link in self.links.of_key(row.key))

    def write_kept(self, link: Link, record: KintoObject | None) -> None:
        with transaction.manager:
            present = self.links.of_record(link.record)
            locked = self.bulk.locked_records([link.record], wait=True)
            if record is None or not locked:
                collection = RecordURI.parse(link.record).collection
                is_there = self.links.collections.exists(collection)
                link = Lives().end(link, "record" if is_there else "collection")
            else:
                link = replace(link, life=Lives().of(link.record, present))
            try:
                self.links.share(link, known_in=[link.storage])
            except AttachmentGone:
                return  # It is now a file of another record.
            self.links.locks.clear(link.key)
            self.report.kept += 1

    def place_records(self) -> None:
        total = records.count_with_attachment(self.registry)
        with Placer(
            self.registry, self.by_location, verify=self.verify, dry_run=self.dry_run
        ) as placer:
            for page in records.pages_with_attachment(self.registry):
                self.report.records += len(page)
                todo = {uri: page[uri] for uri in page if uri not in self.done}
                for placed in placer.place(todo):
                    self.report.count(placed, self.reason(placed, page[placed.record]))
                    if self.dry_run:
                        self.dry_keys.add(placed.key)
                self.progress("records checked", self.report.records, total)

    def reason(self, placed: Placed, record: KintoObject) -> str:
        """The result for a record without a file at its location."""
        if placed.reason != FOREIGN:
            return ""
        location = record[FIELD].get("location")
        return self.reasons.get(placed.record, UNKNOWN.format(location))

    def list_unnamed(self, storage: Storage) -> None:
        """List files without a link, except those that may belong to running requests."""
        if not isinstance(storage.files, ListsFiles):
            return
        listing = (
            file.key for file in Listing(storage.files, WHOLE) if self.is_old(file.modified)
        )
        for batch in batches(listing):
            with transaction.manager:
                unnamed = self.links.without_links(batch)
            self.report.unnamed += sorted(unnamed - self.dry_keys)

    def is_old(self, modified: datetime) -> bool:
        return modified < self.started


def may_have_files(storage: Storage) -> bool:
    """Whether a storage has a file, as far as it can be listed."""
    files = storage.files
    return not isinstance(files, ListsFiles) or any(True for _ in files.list())


def _is_of(row: OldRow, record: KintoObject | None) -> bool:
    """Whether a row is about the record's current attachment."""
    if record is None or not is_described(record.get(FIELD)):
        return False
    return names_key(record, row.key)
