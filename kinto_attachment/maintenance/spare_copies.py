"""Settling spare copies that moves have left: deleting them, or accepting them as the file.

A transaction that began before the links were changed may still write old data: it may link the
file in the old storage, or drop the link and delete the copy there. So nothing is decided before
all transactions that were open at that time have ended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import transaction

from kinto_attachment import names
from kinto_attachment.files.repeating import repeated
from kinto_attachment.index.bulk import BulkLinks
from kinto_attachment.index.link import Link
from kinto_attachment.index.objects import batches, digest_of
from kinto_attachment.index.open_transactions import OpenTransactions
from kinto_attachment.index.spares import Spare
from kinto_attachment.kinto_types import KintoObject, Registry
from kinto_attachment.maintenance import records
from kinto_attachment.metadata import FIELD
from kinto_attachment.names import key_from_url, public_url

AT_ONCE = 500
MAX_WAIT = 60.0  # Seconds.


@dataclass
class Settled:
    """The keys of settled copies."""

    deleted: list[str] = field(default_factory=list)
    pointed_at: list[str] = field(default_factory=list)  # By the location of a record.
    is_settled: bool = True  # False if a transaction of the database does not end.


class SpareCopies:
    """Settles copies; ``owner`` is the id of the site.

    A key that is made from a filename may be that of a new file by now, for which it is reserved.
    Reservations of ``abandoned`` keys have no meaning.
    """

    def __init__(self, registry: Registry, owner: str, *, abandoned: Collection[str] = ()) -> None:
        self._registry = registry
        self._links = registry.attachment_links
        self._bulk = BulkLinks(registry.storage, self._links)
        self._owner = owner
        self._abandoned = abandoned

    def settle(self, spares: Iterable[Spare], *, deletes: bool = True) -> Settled:
        """Delete unneeded copies in one storage, and the rows of those that are now the files.

        The copies were read before this call; rows that changed since then are left alone. Without
        ``deletes``, unneeded copies are left, too.

        :raises StorageError: these copies stay, and so do their rows.
        """
        settled, spares = Settled(), list(spares)
        if not spares:
            return settled
        if not OpenTransactions(self._registry.storage).wait(MAX_WAIT):
            settled.is_settled = False
            return settled
        for batch in batches(spares, AT_ONCE):
            found = {spare.key: spare for spare in batch}
            deleted, pointed_at = repeated(partial(self._settle, found, deletes=deletes))
            settled.deleted += deleted
            settled.pointed_at += pointed_at
        return settled

    def is_random(self, key: str) -> bool:
        """Whether the key is random, so that no other file ever has it."""
        return names.is_name_of(self._owner, key.rpartition("/")[2])

    def _settle(
        self, spares: Mapping[str, Spare], *, deletes: bool
    ) -> tuple[list[str], list[str]]:
        """The keys of copies that were deleted, and of those that locations point at."""
        with transaction.manager:
            return self._settle_locked(spares, deletes=deletes)

    def _settle_locked(
        self, spares: Mapping[str, Spare], *, deletes: bool
    ) -> tuple[list[str], list[str]]:
        storage = next(iter(spares.values())).storage
        claimed = [key for key in by_digest(spares) if self._claim(key)]
        ours = {
            key: spare
            for key, spare in spares.items()
            if key in claimed or key in self._abandoned or self.is_random(key)
        }
        self._bulk.lock(ours)
        present = self._links.spares.of_keys(storage, ours)
        ours = {key: spare for key, spare in ours.items() if present.get(key) == spare}
        linked = self._links.of_keys(ours)
        is_file = {key for key in ours if any(each.storage == storage for each in linked[key])}
        rest = [key for key in ours if key not in is_file and not ours[key].readonly]
        rest = rest if deletes else []
        pointed_at = self._pointed_at(storage, {key: linked[key] for key in rest})
        deleted = [key for key in rest if key not in pointed_at]
        if deleted:
            self._registry.attachment_storages[storage].files.delete(*deleted)
        self._links.spares.delete(storage, [*is_file, *deleted])
        self._bulk.unlock(ours)
        for key in claimed:
            self._links.reservations.release(key)
        return deleted, pointed_at

    def _claim(self, key: str) -> bool:
        """Reserve a key that a new file may get, unless it needs no reservation."""
        if self.is_random(key) or key in self._abandoned:
            return False
        return self._links.reservations.claim(key)

    def _pointed_at(self, storage: str, linked: Mapping[str, list[Link]]) -> list[str]:
        """The keys of files that a record's location still places in a storage."""
        settings = self._registry.attachment_settings.storages.get(storage)
        if settings is None:
            return []
        bases = [settings["base_url"], *settings["former_base_urls"]]
        bases = [base for base in bases if base is not None]
        if not bases:
            return []
        current = [link for links in linked.values() for link in links if link.state == "current"]
        written = records.by_uri(self._registry, {link.record for link in current})
        return sorted(
            {link.key for link in current if self._points(written[link.record], link, bases)}
        )

    def _points(self, record: KintoObject | None, link: Link, bases: list[str]) -> bool:
        attachment = (record or {}).get(FIELD)
        location = attachment.get("location") if isinstance(attachment, dict) else None
        if not isinstance(location, str):
            return False
        now = self._registry.attachment_storages.get(link.storage)
        # Two storages may be served at one address.
        own = now.base_url if now is not None else None
        if own is not None and location == public_url(own, link.key):
            return False
        return any(key_from_url(base, location) == link.key for base in bases)


def by_digest(keys: Iterable[str]) -> list[str]:
    return sorted(keys, key=digest_of)
