"""Detecting what other requests did to a record's file after this request had read it.

At this point, the record is locked, and the index shows what was committed in the meantime.
"""

from __future__ import annotations

from typing import Any

from kinto.core.errors import ERRORS, http_error
from pyramid.httpexceptions import HTTPPreconditionFailed

from kinto_attachment.errors import AttachmentChanged, AttachmentGone
from kinto_attachment.files.ledger import Ledger, RecordChange
from kinto_attachment.files.locations import possible_keys
from kinto_attachment.files.stored_records import committed_record
from kinto_attachment.index.link import Link
from kinto_attachment.kinto_types import Registry
from kinto_attachment.metadata import FIELD, same_json
from kinto_attachment.uris import RecordURI


class Conflicts:
    """Compares the changes of a request with the index; ``current`` are links of the record."""

    def __init__(self, registry: Registry, ledger: Ledger) -> None:
        self.registry = registry
        self.ledger = ledger
        self.links = registry.attachment_links

    def check_precondition(self, change: RecordChange, current: list[Link]) -> None:
        """Check ``If-Match`` again, now that the record is locked.

        Kinto checks it before it waits for other requests that write the record.
        """
        if (
            change.request is None
            or "If-Match" not in change.request.headers
            or self.matches_index(change.old, current)
        ):
            return
        if not same_json(self.committed_attachment(change), change.old):
            raise http_error(
                HTTPPreconditionFailed(),
                errno=ERRORS.MODIFIED_MEANWHILE,
                message="Resource was modified meanwhile",
            )

    def check_renamed(self, change: RecordChange, current: list[Link]) -> None:
        """Refuse to rename a file that was replaced or removed in the meantime.

        If it was kept or lingers, the record would get it back and lose the newer one.

        :raises AttachmentChanged: the record has another attachment, or none.
        """
        before = self.ledger.renamed.get(change.record)
        if before is None or change.times > 1 or self.matches_index(before, current):
            return
        # The record may be older than the index. A memory backend already has the new name.
        committed = self.committed_attachment(change)
        if not (same_json(committed, before) or same_json(committed, change.new)):
            raise AttachmentChanged()

    def check_expected(self, change: RecordChange, current: list[Link]) -> None:
        """Refuse the write of a command about a file that is no longer the record's.

        If the record was deleted in the meantime, Kinto's storage would create it again.

        :raises AttachmentChanged: the record has another file, or was deleted.
        """
        key = self.ledger.expected.get(change.record)
        if key is not None and all(link.key != key for link in current):
            raise AttachmentChanged()

    def check_collection(self, change: RecordChange) -> None:
        """Refuse to recreate a record without its attachment after its collection was deleted.

        :raises AttachmentGone: the collection was deleted.
        """
        if not self.links.collections.exists(RecordURI.parse(change.record).collection):
            raise AttachmentGone("The collection was deleted meanwhile.")

    def check_unchanged(self, change: RecordChange, current: list[Link]) -> None:
        """Refuse an update that brings back an attachment that was replaced or removed.

        Kinto writes a record as it was read, with the changes of this request. This undoes the
        changes of other requests in between, and would bring back a deleted file.

        :raises AttachmentChanged: the attachment has changed since this request read it.
        """
        # If record and index differ, the record may be older than the index.
        if not (
            self.matches_index(change.new, current)
            or same_json(self.committed_attachment(change), change.new)
        ):
            raise AttachmentChanged()

    def matches_index(self, attachment: object, current: list[Link]) -> bool:
        """Whether the links of a record agree with its attachment."""
        if attachment is None:
            return not current
        possible = self.possible_keys(attachment)
        if not current:
            return not possible
        return all(
            link.describes(attachment) and (link.key in possible or not possible)
            for link in current
        )

    def committed_attachment(self, change: RecordChange) -> Any:
        """The committed attachment of a record, which this request is overwriting."""
        return (committed_record(self.registry, change.record) or {}).get(FIELD)

    def key_of_other(self, attachment: object, current: list[Link]) -> str | None:
        """The key of a file that this request did not store; None for an external location."""
        possible = self.possible_keys(attachment)
        for link in current:
            if link.describes(attachment) and link.key in possible:
                return link.key
        for key in sorted(possible):
            if any(link.describes(attachment) for link in self.links.of_key(key)):
                return key
        return min(possible, default=None)

    def possible_keys(self, attachment: object) -> set[str]:
        registry = self.registry
        settings = registry.attachment_settings
        return possible_keys(settings, registry.route_prefix, attachment)
