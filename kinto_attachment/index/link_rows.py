"""Writing and deleting single rows of links."""

from __future__ import annotations

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from kinto_attachment.errors import AttachmentGone
from kinto_attachment.index.collections import Collections
from kinto_attachment.index.link import Link
from kinto_attachment.index.locks import FileLocks
from kinto_attachment.index.look_alikes import LookAlikes
from kinto_attachment.index.orphans import OrphanNotes
from kinto_attachment.index.postgresql_outbox import outbox
from kinto_attachment.index.postgresql_removals import removals
from kinto_attachment.index.postgresql_replacements import replacements
from kinto_attachment.index.queries import ANY, LinkQueries
from kinto_attachment.index.reservations import Reservations
from kinto_attachment.index.spares import Spares
from kinto_attachment.index.usage import Usage
from kinto_attachment.index.used_storages import UsedStorages
from kinto_attachment.index.verified import VerifiedFiles
from kinto_attachment.kinto_types import StorageBackend
from kinto_attachment.storage.storages import Storages


class LinkRows(LinkQueries):
    """The links and the other parts of the index, in the caller's transaction."""

    def __init__(
        self,
        backend: StorageBackend,
        storages: Storages,
        page_size: int,
        usage: Usage,
        *,
        fast: bool = True,
    ) -> None:
        super().__init__(backend, page_size)
        self.usage = usage
        self.outbox = outbox(backend, fast=fast)
        self.reservations = Reservations(backend)
        self.collections = Collections(backend)
        self.replacements = replacements(backend, self.collections, self.outbox, fast=fast)
        self.removals = removals(backend, self.outbox, page_size, fast=fast)
        self.locks = FileLocks(backend)
        self.look_alikes = LookAlikes(backend)
        self.orphan_notes = OrphanNotes(backend)
        self.used_storages = UsedStorages(backend)
        self.verified = VerifiedFiles(backend)
        self.spares = Spares(backend, page_size)
        self.storages = storages

    def _put(self, link: Link, *, is_new: bool | None = None) -> None:
        if link.storage:
            self.used_storages.note(link.storage)
        if is_new is None:
            self._rows.put(link.parent, link.id, link.dump())
        elif not self.collections.put_link(link, is_new=is_new):
            raise AttachmentGone("The collection was deleted meanwhile.")

    def _delete_sole(self, links: list[Link], *filters: Filter) -> set[str]:
        """Delete sole links in one query; returns the ids of those that existed."""
        if len(links) == 1 and not filters:
            return {link.id for link in links if self._rows.delete(link.parent, link.id)}
        ids = {link.id for link in links}
        deleted = self._rows.delete_all(ANY, *filters, Filter("id", ids, COMPARISON.IN))
        return {row["id"] for row in deleted}
