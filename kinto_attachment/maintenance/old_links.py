"""Completing links of earlier releases, as a part of reindex."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any

import transaction

from kinto_attachment.errors import FileNotFound, StorageNotConfigured
from kinto_attachment.index.link import Link, original_of
from kinto_attachment.index.lives import Lives
from kinto_attachment.index.objects import batches
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance import records
from kinto_attachment.maintenance.shards import WHOLE
from kinto_attachment.metadata import FIELD
from kinto_attachment.uris import RecordURI

LINKS_AT_ONCE = 100  # Links per transaction, which locks their files.


def complete(registry: Registry, progress: Callable[[int], None]) -> int:
    """Complete links with missing fields; returns the number of written links.

    The time of a file is that of the storage, and ``original`` is taken from the record. A file
    that was kept for a deleted record belongs to a life that has ended. The links of an existing
    record stay in the life without an id, because a running request may already have read it.
    """
    return _Completion(registry).run(progress)


class _Completion:
    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.links = registry.attachment_links
        self.lives = Lives()

    def run(self, progress: Callable[[int], None]) -> int:
        count = 0
        for page in WHOLE.pages(self.links):
            old = [link for link in page if _lacks_times(link) or _lacks_life(link)]
            for batch in batches(sorted(old, key=attrgetter("id")), LINKS_AT_ONCE):
                count += self.complete(batch)
                progress(count)
        return count

    def complete(self, batch: list[Link]) -> int:
        """Complete links in the order of their ids, in one transaction."""
        stored = {link.key: self.stored_at(link) for link in batch}
        with transaction.manager:
            written = records.by_uri(self.registry, [link.record for link in batch])

            def completed(link: Link) -> Link:
                # Another record's link to the file has its own place among the pages.
                if link.record not in written:
                    return link
                return self.completed(link, stored[link.key], written[link.record])

            return sum(self.links.revise(key, completed) for key in stored)

    def stored_at(self, link: Link) -> int:
        """When a file was stored (ms since the epoch); 0 if unknown.

        :raises StorageError: the storage is configured but does not answer.
        """
        try:
            stat = self.registry.attachment_storages[link.storage].files.stat(link.key)
        except (FileNotFound, StorageNotConfigured):
            return 0
        return int(stat.modified.timestamp() * 1000)

    def completed(self, link: Link, stored: int, record: Mapping[str, Any] | None) -> Link:
        attachment: Any = (record or {}).get(FIELD)
        if _lacks_times(link):
            link = replace(link, created=stored, attached=link.attached or stored)
            if link.state == "current" and link.describes(attachment):
                link = replace(link, original=original_of(attachment))
        if _lacks_life(link):
            link = self.ended(link) if record is None else self.compared(link)
        return link

    def ended(self, link: Link) -> Link:
        is_there = self.links.collections.exists(RecordURI.parse(link.record).collection)
        return self.lives.end(link, "record" if is_there else "collection")

    def compared(self, link: Link) -> Link:
        """The record was deleted and created again if its other links are of a newer life."""
        return self.lives.end(link, "record") if self.links.is_of_earlier_life(link) else link


def _lacks_times(link: Link) -> bool:
    return not link.created


def _lacks_life(link: Link) -> bool:
    """Whether the link does not show if the record's life has ended."""
    return link.state == "kept" and not link.life
