"""Deleting files older than ``kept_max_age`` and ``max_age``, as a part of gc.

Held files stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import transaction
from kinto.core.utils import msec_time

from kinto_attachment.errors import AttachmentGone, Held
from kinto_attachment.files.detaching import detach
from kinto_attachment.index.holds import standing
from kinto_attachment.index.link import Link
from kinto_attachment.index.objects import batches
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.collection import GcReport
from kinto_attachment.maintenance.deletions import EXPIRED, Deletions
from kinto_attachment.maintenance.shards import Shard
from kinto_attachment.settings import CollectionSettings
from kinto_attachment.storage.storages import Storage
from kinto_attachment.uris import RecordURI


class Ageing:
    """Deletes kept files, and detaches current ones, of the given storages."""

    def __init__(
        self,
        registry: Registry,
        storages: Mapping[str, Storage],
        shard: Shard,
        deletions: Deletions,
        report: GcReport,
        *,
        dry_run: bool,
    ) -> None:
        self._registry = registry
        self._links = registry.attachment_links
        self._storages = storages
        self._shard = shard
        self._deletions = deletions
        self._report = report
        self._dry_run = dry_run
        self._now = msec_time()

    def run(self) -> None:
        if not self._has_rules():
            return
        detached: list[Link] = []
        for page in self._shard.pages(self._links):
            ours = [link for link in page if link.storage in self._storages]
            with transaction.manager:
                rules = {link.record: self._rules(link.record) for link in ours}
            ours = [each for each in ours if standing(each, self._now) is None]
            kept = [each for each in ours if _may_expire(each, rules[each.record])]
            self._date([link for link in kept if not link.retired])
            self._drop([each for each in kept if self._is_expired(each, rules[each.record])])
            detached += [each for each in ours if self._is_outdated(each, rules[each.record])]
        for link in detached:
            if self._dry_run or self._detach(link):
                self._report.detached.append(link.record)

    def _has_rules(self) -> bool:
        settings = self._registry.attachment_settings
        every = [settings.values, *settings.overrides.values()]
        return any(each.get("kept_max_age") or each.get("max_age") for each in every)

    def _rules(self, record: str) -> CollectionSettings:
        resolver = self._registry.attachment_collection_settings
        return resolver.without_user(RecordURI.parse(record))

    def _is_expired(self, link: Link, rules: CollectionSettings) -> bool:
        return bool(link.retired and link.retired + rules.kept_max_age * 1000 <= self._now)

    def _is_outdated(self, link: Link, rules: CollectionSettings) -> bool:
        """Whether a current file is too old; False if its age is unknown."""
        since = link.attached or link.created
        if link.state != "current" or not rules.max_age or not since:
            return False
        return bool(since + rules.max_age * 1000 <= self._now)

    def _date(self, links: list[Link]) -> None:
        """Save the current time as the end of use of files that earlier releases kept."""
        for link in links if not self._dry_run else ():
            with transaction.manager:
                self._links.revise(link.key, self._dated)

    def _dated(self, link: Link) -> Link:
        is_known = link.state != "kept" or link.retired
        return link if is_known else replace(link, retired=self._now)

    def _drop(self, links: list[Link]) -> None:
        for batch in batches(links):
            if self._dry_run:
                self._report.expired += [link.key for link in batch]
                continue
            storages = {link.storage: self._storages[link.storage] for link in batch}
            self._registry.attachment_site.check(storages.values())
            with transaction.manager:
                # Versions that have been restored since then stay.
                entries = self._links.outbox.add_files(self._links.drop_kept(batch))
            sizes = {link.key: link.size for link in batch}
            for entry in entries:
                if self._deletions.files_of(entry, EXPIRED):
                    self._report.expired += entry.keys
                    self._report.freed += sum(sizes[key] for key in entry.keys)

    def _detach(self, link: Link) -> bool:
        try:
            return detach(self._registry, link)
        except (AttachmentGone, Held):
            return False  # The file was replaced in the meantime, or is held.


def _may_expire(link: Link, rules: CollectionSettings) -> bool:
    # A readonly file without a record keeps its link permanently.
    is_parked = link.readonly and link.ended
    return link.state == "kept" and bool(rules.kept_max_age) and not is_parked
