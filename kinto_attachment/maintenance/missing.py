"""Missing files: those of links, and all files of a storage that is not configured."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping

import transaction

from kinto_attachment.index.link import Link
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.collection import GcReport
from kinto_attachment.maintenance.dangling import DanglingLinks
from kinto_attachment.maintenance.listing import Listing
from kinto_attachment.maintenance.shards import WHOLE, Shard

logger = logging.getLogger(__name__)


class Missing:
    """Reports missing files. ``listings`` are those of storages, by name."""

    def __init__(
        self,
        registry: Registry,
        shard: Shard,
        listings: Mapping[str, Listing],
        dangling: DanglingLinks,
        report: GcReport,
    ) -> None:
        self.registry = registry
        self.links = registry.attachment_links
        self.shard = shard
        self.listings = listings
        self.dangling = dangling
        self.report = report
        # The number of links to storages that are not configured.
        self.elsewhere: Counter[str] = Counter()

    def count_elsewhere(self, links: Iterable[Link]) -> None:
        storages = self.registry.attachment_storages
        self.elsewhere.update(link.storage for link in links if link.storage not in storages)

    def report_files(self) -> None:
        """Report links whose file is missing in storages that were listed completely."""
        complete = {name: each for name, each in self.listings.items() if each.is_complete}
        for page in self.shard.pages(self.links) if complete else ():
            for link in page:
                if link.storage in complete and not self._is_there(link, complete[link.storage]):
                    self._report(link)

    def report_storages(self, *, dry_run: bool) -> None:
        """Report storages that have files but no settings. Their files are left alone.

        The index lists the storages with files. Missing ones are added, and a storage that is not
        configured is removed when it has no files any more.
        """
        used, storages = self.links.used_storages, self.registry.attachment_storages
        with transaction.manager:
            noted = {name for name in used.names() if name not in storages}
            waiting = {name: self.links.outbox.entries(storage=name) for name in noted}
            for name in sorted(noted | {*self.elsewhere}):
                if self.elsewhere[name] or waiting.get(name):
                    self._report_storage(name)
                    if not dry_run:
                        used.note(name)
                elif self.shard == WHOLE and not dry_run:
                    used.forget(name)

    def _is_there(self, link: Link, listing: Listing) -> bool:
        files = self.registry.attachment_storages[link.storage].files
        return link.key in listing or files.exists(link.key)

    def _report(self, link: Link) -> None:
        with transaction.manager:
            # The link may have been dropped, or the file moved to another storage, in the
            # meantime.
            is_there = (link.record, link.storage) in {
                (other.record, other.storage) for other in self.links.of_key(link.key)
            }
            # A deleted record has no missing file.
            is_missed = is_there and not self.dangling.among([link])
        if is_missed:
            self.report.missing.append(link.record)
            logger.error("The file of %s is missing: %s", link.record, link.key)

    def _report_storage(self, name: str) -> None:
        message = f"The storage {name!r} is not configured: its files are left as they are."
        logger.error("gc: %s", message)
        self.report.errors.append(message)
