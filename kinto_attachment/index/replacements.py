"""Replacing the file of a record: a new link, no old link, and its file in the outbox.

Kinto's storage needs three writes. PostgreSQL needs one statement: see
``postgresql_replacements.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kinto_attachment.index.collections import Collections
from kinto_attachment.index.link import Link
from kinto_attachment.index.objects import Objects
from kinto_attachment.index.outbox import Garbage, Outbox
from kinto_attachment.kinto_types import StorageBackend


@dataclass(frozen=True)
class Replaced:
    """Whether the new link was ``added``, and the old one ``removed``."""

    added: bool
    removed: bool


class Replacements(Protocol):
    """Replaces links, in the caller's transaction."""

    def replace_link(self, link: Link, old: Link, entry: Garbage) -> Replaced:
        """Write the link of a record and delete a sole link of it, whose file is in ``entry``.

        Nothing is added if the record's collection was deleted. If the old link is no longer sole,
        it stays, and the entry is not written.
        """
        ...


class SeparateReplacements:
    """Replacements in any Kinto storage backend."""

    def __init__(self, backend: StorageBackend, collections: Collections, outbox: Outbox) -> None:
        self._rows = Objects(backend, "attachment")
        self._collections = collections
        self._outbox = outbox

    def replace_link(self, link: Link, old: Link, entry: Garbage) -> Replaced:
        if not self._collections.put_link(link, is_new=False):
            return Replaced(added=False, removed=False)
        removed = self._rows.delete(old.parent, old.id)
        if removed:
            self._outbox.put(entry)
        return Replaced(added=True, removed=removed)
