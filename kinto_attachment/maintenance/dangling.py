"""Dangling links: links whose record was deleted or has another attachment.

Methods run in the caller's transaction unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any

import transaction
from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from kinto_attachment.errors import AttachmentGone
from kinto_attachment.files.locations import possible_keys
from kinto_attachment.index.link import Link
from kinto_attachment.index.lives import Lives
from kinto_attachment.index.objects import batches
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance import records
from kinto_attachment.metadata import FIELD
from kinto_attachment.uris import RecordURI


class DanglingLinks:
    """Dangling links to files in some storages, given by their names in the index."""

    def __init__(self, registry: Registry, storages: Collection[str]) -> None:
        self.registry = registry
        self.links = registry.attachment_links
        self.storages = storages

    def among(self, links: list[Link]) -> list[Link]:
        # Links of other states may outlive their record.
        current = [
            link for link in links if link.state == "current" and link.storage in self.storages
        ]
        found = []
        for batch in batches(current):
            written = records.by_uri(self.registry, [link.record for link in batch])
            found += [link for link in batch if self._is_dangling(written[link.record], link)]
        return found + [link for link in links if self._is_dead_bundle(link)]

    def _is_dead_bundle(self, link: Link) -> bool:
        if link.state != "bundle" or link.storage not in self.storages:
            return False
        return not self.links.collections.exists(RecordURI.parse(link.record).collection)

    def relink(self, dangling: list[Link]) -> None:
        """Link the files to the records that have them, each in a separate transaction.

        Their links may name other records.
        """
        keys = {link.key for link in dangling}
        for batch in batches({link.hash for link in dangling}):
            same_content = Filter(f"{FIELD}.hash", batch, COMPARISON.IN)
            for collection in records.collections(self.registry):
                for page in records.with_attachment(self.registry, collection, same_content):
                    for record in page:
                        uri = f"{collection.records}{record['id']}"
                        self._relink_to(uri, record[FIELD], keys)

    def _relink_to(self, uri: str, attachment: Any, keys: set[str]) -> None:
        possible = self._possible_keys(attachment)
        with transaction.manager:
            links = self.links.of_record(uri)
            if all(link.state != "current" for link in links):
                life = Lives().of(uri, links)
                for key in possible & keys:
                    with suppress(AttachmentGone):
                        self.links.share(Link.to(uri, key, attachment, life=life))

    def _is_dangling(self, record: Any, link: Link) -> bool:
        if record is None or record.get(FIELD) is None:
            return True
        keys = self._possible_keys(record[FIELD])
        if not keys or link.key in keys:  # No keys: the location is from an earlier `base_url`.
            return False
        # The location may be from an earlier `base_url` all the same, in a folder of the present
        # one. If the record has no other current file, and its attachment has this content, it is
        # the record's file.
        others = self.links.of_record(link.record)
        is_only = all(other.state != "current" or other.key == link.key for other in others)
        return not (is_only and link.describes(record[FIELD]))

    def _possible_keys(self, attachment: Any) -> set[str]:
        settings, prefix = self.registry.attachment_settings, self.registry.route_prefix
        return possible_keys(settings, prefix, attachment)
