"""The remains of unfinished writes in a storage, whose processes died or gave up."""

from __future__ import annotations

from collections.abc import Iterator

import transaction

from kinto_attachment.index.objects import batches
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.own_names import OwnNames
from kinto_attachment.maintenance.shards import Shard
from kinto_attachment.storage import ListsUnfinished, Unfinished


class Remains:
    """Those that are old enough, from this plugin, and not needed by an upload."""

    def __init__(self, registry: Registry, own: OwnNames, shard: Shard) -> None:
        self._links = registry.attachment_links
        self._sessions = registry.attachment_sessions
        self._own = own
        self._shard = shard

    def in_storage(self, files: ListsUnfinished) -> Iterator[Unfinished]:
        for batch in batches(files.list_unfinished()):
            old = [
                each
                for each in batch
                if each.modified < self._own.before and self._shard.has(each.id)
            ]
            with transaction.manager:
                abandoned = self._without_session(self._ours(old))
            yield from abandoned

    def _ours(self, remains: list[Unfinished]) -> list[Unfinished]:
        """Those that an upload of this plugin has left; other programs may use the same bucket."""
        unsure = {each.key for each in remains if not self._own.has_remains(each)}
        # A file that is linked has the key from the plugin, reserved or not. An upload that was
        # attached may have left what it had sent, but not kept.
        foreign = self._links.without_links(sorted(unsure))
        return [each for each in remains if each.key not in foreign or each.is_private]

    def _without_session(self, remains: list[Unfinished]) -> list[Unfinished]:
        """Those that do not belong to an unfinished upload in several requests."""
        partials = self._sessions.owned_partials({each.partial_id for each in remains})
        keys = self._sessions.owned_keys({each.key for each in remains})
        return [
            each for each in remains if each.partial_id not in partials and each.key not in keys
        ]
