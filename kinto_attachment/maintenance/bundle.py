"""bundle: stores the archives of collections that ask for one and have changed.

An archive contains the data that is committed when it begins. It replaces the old one only if the
collection has not changed when it is stored. A process that dies leaves a file without a link,
which gc deletes.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import transaction
from kinto.core.storage.exceptions import BackendError
from kinto.core.storage.postgresql import Storage as PostgreSQLStorage
from kinto.core.utils import msec_time

from kinto_attachment.errors import AttachmentGone, FileNotFound, StorageError, cause
from kinto_attachment.files.archiving import CollectionArchive
from kinto_attachment.files.list_queries import ListQuery
from kinto_attachment.files.listing import Current, item_of, totals
from kinto_attachment.files.settling import try_to_delete
from kinto_attachment.http.archives import WrongSize
from kinto_attachment.http.streams import ChunksReader, HashingReader
from kinto_attachment.index.bulk import BulkLinks
from kinto_attachment.index.bundles import Bundles, asks_for_bundle, is_bundle, record_of
from kinto_attachment.index.link import Link
from kinto_attachment.index.objects import batches
from kinto_attachment.index.open_transactions import OpenTransactions
from kinto_attachment.index.outbox import Garbage
from kinto_attachment.kinto_types import KintoObject, Registry
from kinto_attachment.maintenance import records
from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.maintenance.reports import Progress, Report, no_progress
from kinto_attachment.maintenance.selection import EVERYTHING, Selection
from kinto_attachment.maintenance.server_address import request_at_server
from kinto_attachment.metadata import FIELD
from kinto_attachment.names import content_disposition
from kinto_attachment.storage.storages import Storage
from kinto_attachment.uris import CollectionURI

logger = logging.getLogger(__name__)

COLLECTIONS_AT_ONCE = 200
MAX_FILES = 100_000  # Each file needs a kilobyte of memory until the archive ends.
ATTEMPTS = 3  # The collection may change while its archive is made.
MAX_WAIT = 60.0  # Seconds.
MIMETYPE = "application/zip"
NOT_A_BOOLEAN = "attachment.bundle in its data should be true or false"


@dataclass
class BundleReport(Report):
    """``collections`` are those that ask for a bundle."""

    collections: int = 0
    fresh: int = 0  # Collections whose bundle is up to date.
    made: int = 0
    bytes: int = 0  # Bytes of the bundles that were made.
    removed: int = 0  # Bundles of collections that no longer ask for one.
    # URIs of collections.
    changing: list[str] = field(default_factory=list)  # Changed while their bundle was made.
    too_large: list[str] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)  # `attachment.bundle` is not a boolean.
    failed: list[str] = field(default_factory=list)  # A file is missing or damaged.
    errors: list[str] = field(default_factory=list)  # A storage or the database has failed.

    for_information: ClassVar[tuple[str, ...]] = ("changing",)


def bundle(
    registry: Registry,
    selection: Selection = EVERYTHING,
    *,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> BundleReport:
    """Make, replace and remove the bundles of the selected collections.

    :raises NotThisSite: a storage belongs to another database; nothing was done.
    """
    return _Bundling(registry, selection, dry_run).run(progress)


class _Bundling:
    def __init__(self, registry: Registry, selection: Selection, dry_run: bool) -> None:
        self.registry = registry
        self.links = registry.attachment_links
        self.bundles = Bundles(registry.storage, self.links)
        self.bulk = BulkLinks(registry.storage, self.links)
        self.selection = selection
        self.dry_run = dry_run
        self.report = BundleReport()
        try:
            self.request = request_at_server(registry, None, registry.attachment_storages)
            self.knows_address = True
        except CommandError:
            self.request = request_at_server(registry, None, ())
            self.knows_address = False

    def run(self, progress: Progress) -> BundleReport:
        if not self.registry.attachment_site.is_in_memory:
            self.registry.attachment_site.check_not_of_others()
        for page in batches(self.selected(), COLLECTIONS_AT_ONCE):
            with transaction.manager:
                present = self.bulk.of_records(record_of(uri) for uri, _ in page)
            for uri, data in page:
                links = [link for link in present[record_of(uri)] if is_bundle(link)]
                if asks_for_bundle(data):
                    self.report.collections += 1
                    self.renew(uri, links)
                elif links:
                    self.remove(uri)
                self.check(uri, data)
                progress("collections with a bundle", self.report.collections)
        return self.report

    def selected(self) -> Iterator[tuple[CollectionURI, KintoObject]]:
        for uri, data in records.collections_with_data(self.registry):
            chosen = self.selection.storage in (None, self.storage_of(uri).name)
            is_ours = self.selection.has_collection(uri) and self.selection.shard.has(str(uri))
            if chosen and is_ours:
                yield uri, data

    def storage_of(self, uri: CollectionURI) -> Storage:
        resolver = self.registry.attachment_collection_settings
        return self.registry.attachment_storages[resolver.without_user(uri).storage]

    def check(self, uri: CollectionURI, data: KintoObject) -> None:
        own = data.get(FIELD)
        if isinstance(own, dict) and not isinstance(own.get("bundle", False), bool):
            self.report.invalid.append(f"{uri}: {NOT_A_BOOLEAN}")

    def renew(self, uri: CollectionURI, present: list[Link]) -> None:
        try:
            if self.is_fresh(uri, present):
                self.report.fresh += 1
            elif self.is_too_large(uri):
                self.report.too_large.append(str(uri))
                if present:
                    self.remove(uri)
            elif self.dry_run:
                self.report.made += 1
            else:
                self.make(uri, present)
        except (FileNotFound, WrongSize) as error:
            self.report.failed.append(f"{uri}: {cause(error)}")
        except StorageError as error:
            logger.error("bundle: %s: %s", uri, cause(error))
            self.report.errors.append(f"{uri}: {cause(error)}")

    def is_fresh(self, uri: CollectionURI, present: list[Link]) -> bool:
        with transaction.manager:
            timestamp = self.bundles.timestamp(uri)
        for link in present:
            storage = self.registry.attachment_storages.get(link.storage)
            if link.as_of == timestamp and storage is not None:
                with contextlib.suppress(FileNotFound):
                    return storage.files.stat(link.key).size == link.size
        return False

    def is_too_large(self, uri: CollectionURI) -> bool:
        with transaction.manager:
            return totals(self.registry, uri, ListQuery()).files > MAX_FILES

    def make(self, uri: CollectionURI, present: list[Link]) -> None:
        for _ in range(ATTEMPTS):
            timestamp = self.settled_timestamp(uri)
            if timestamp is None:
                continue
            link = self.stored(uri, timestamp)
            try:
                with transaction.manager:
                    garbage = self.bundles.put(link, self.lingering(), present)
            except AttachmentGone:
                self.discard(link)
                if self.is_made_by_others(uri):
                    return
                continue
            except BackendError:
                with contextlib.suppress(BackendError):  # Otherwise, gc deletes it.
                    self.discard(link)
                raise
            self.report.made += 1
            self.report.bytes += link.size
            self.delete(garbage)
            return
        self.report.changing.append(str(uri))

    def is_made_by_others(self, uri: CollectionURI) -> bool:
        """Whether another run was faster, or the bundle is no longer needed."""
        with transaction.manager:
            is_done = not self.bundles.wants_one(uri) or self.bundles.fresh(uri) is not None
        self.report.fresh += is_done
        return is_done

    def settled_timestamp(self, uri: CollectionURI) -> int | None:
        """The timestamp of a collection, unless an earlier one may still be committed."""
        with transaction.manager:
            before = self.bundles.timestamp(uri)
        have_ended = OpenTransactions(self.registry.storage).wait(MAX_WAIT)
        if not have_ended and isinstance(self.registry.storage, PostgreSQLStorage):
            return None
        with transaction.manager:
            return before if self.bundles.timestamp(uri) == before else None

    def stored(self, uri: CollectionURI, timestamp: int) -> Link:
        """Store the archive; returns its link, which has not been written yet."""
        storage, filename = self.storage_of(uri), f"{uri.collection_id}.zip"
        key = self.registry.attachment_site.random_name(storage, "bundle.zip")
        filters = ListQuery().filters
        chunks = CollectionArchive(self.registry, uri, filters, self.item).chunks()
        with contextlib.closing(chunks):
            reader = HashingReader(ChunksReader(chunks))
            disposition = content_disposition(filename, "attachment")
            storage.files.write(key, reader, MIMETYPE, disposition=disposition)
        now = msec_time()
        return Link(
            record_of(uri),
            key,
            filename,
            reader.sha256,
            MIMETYPE,
            reader.size,
            state="bundle",
            created=now,
            attached=now,
            storage=storage.name,
            as_of=timestamp,
        )

    def item(self, current: Current) -> dict[str, Any]:
        item = item_of(self.request, current)
        if not self.knows_address and current.metadata.get("location") is None:
            item["location"] = None
        return item

    def discard(self, link: Link) -> None:
        """Delete the file of a bundle that was not put in place."""
        with transaction.manager:
            is_unlinked = self.links.confirm_unlinked(link.record, link.key)
        if is_unlinked:
            self.registry.attachment_storages[link.storage].files.delete(link.key)

    def remove(self, uri: CollectionURI) -> None:
        self.report.removed += 1
        if not self.dry_run:
            with transaction.manager:
                garbage = self.bundles.drop(uri, self.lingering())
            self.delete(garbage)

    def lingering(self) -> dict[str, int]:
        """Until when replaced bundles stay for URLs that their storages have just signed."""
        return {
            storage.name: msec_time() + storage.signed_url_ttl * 1000
            for storage in self.registry.attachment_storages
            if storage.downloads.mode == "redirect"
        }

    def delete(self, garbage: list[Garbage]) -> None:
        for entry in garbage:
            if not entry.due:  # gc deletes the others.
                try_to_delete(self.registry, entry)
