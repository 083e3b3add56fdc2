"""Changes of records become changes of links, whichever code wrote the records.

All links are created and dropped here, for uploads as well as for any other write of a record.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

from kinto.core.errors import ERRORS, http_error
from kinto.core.utils import msec_time
from pyramid.httpexceptions import HTTPPreconditionFailed

from kinto_attachment.errors import AttachmentChanged, AttachmentGone
from kinto_attachment.files.ledger import Ledger, NewFile, RecordChange
from kinto_attachment.files.link_steps import LinkSteps
from kinto_attachment.files.locations import own_files, possible_keys
from kinto_attachment.files.stored_records import (
    committed_record,
    delete_records_below,
    stored_record,
)
from kinto_attachment.index.link import ENDING, Link
from kinto_attachment.index.lives import Lives, current_life
from kinto_attachment.kinto_types import Registry
from kinto_attachment.metadata import FIELD, same_json
from kinto_attachment.settings import CollectionSettings
from kinto_attachment.uris import RecordURI


def write_links(registry: Registry, ledger: Ledger) -> None:
    """Bring the index in line with the records that a request wrote or deleted.

    :raises AttachmentGone: a record points at a file that was deleted in the meantime.
    :raises HTTPPreconditionFailed: the record is not the one of the client's ``If-Match``.
    """
    if ledger.changes or ledger.deleted_parents:
        _Changes(registry, ledger).write()


class _Changes:
    """Compares the changes of records with the index, and writes what differs."""

    def __init__(self, registry: Registry, ledger: Ledger) -> None:
        self.registry = registry
        self.ledger = ledger
        self.links = registry.attachment_links
        self.settings = registry.attachment_settings
        self.changes = list(ledger.changes.values())
        self.deleted_parents = list(ledger.deleted_parents)
        ledger.changes.clear()
        ledger.deleted_parents.clear()
        self.steps = LinkSteps(registry, ledger)
        self.now = msec_time()
        self.lives = Lives()
        self.kept_links: set[tuple[str, str]] = set()  # Pairs of record and key.

    def write(self) -> None:
        for uri in self.deleted_parents:
            delete_records_below(self.registry, uri)
        present = self.present_links()
        for change in self.changes:
            self.plan(change, present.get(change.record, []))
        self.steps.write()
        for uri in self.deleted_parents:
            self.drop_links_below(uri)
        self.steps.discard_files()

    def present_links(self) -> dict[str, list[Link]]:
        """The links, by record, of the records that existed before the request."""
        by_collection = defaultdict(list)
        for change in self.changes:
            # A new record has no file yet. What an earlier record of its id has left, stays.
            if not change.created:
                uri = RecordURI.parse(change.record)
                by_collection[uri.collection].append(uri.record_id)
        found = defaultdict(list)
        for collection, ids in by_collection.items():
            for link in self.links.of_records(collection, ids):
                found[link.record].append(link)
        return found

    def plan(self, change: RecordChange, present: list[Link]) -> None:
        self.find_outcome(change)
        living = [link for link in present if not link.ended]
        current = [link for link in living if link.state == "current"]
        life = self.life_of(change, living)
        if change.times == 1 and not change.deleted and same_json(change.new, change.old):
            self.check_unchanged(change, current, life)
            return
        self.check_precondition(change, current)
        self.check_renamed(change, current)
        if change.new is None and change.old is not None and not (change.deleted or current):
            self.check_collection(change)
        key = self.plan_file(change, current, life) if change.new is not None else None
        for link in living:
            # A replaced record keeps the links of files from before its current one.
            if link.key != key and (link.state == "current" or change.let_go):
                self.retire(link, change)
        self.keep_intermediate(change, key, current_life(living) if change.ended else life)

    def life_of(self, change: RecordChange, living: list[Link]) -> str:
        """The life that the record is in when the request has ended."""
        return self.lives.of(change.record, () if change.ended else living)

    def find_outcome(self, change: RecordChange) -> None:
        """Read the outcome of a record written several times: Kinto reorders its events."""
        below = any(change.record.startswith(f"{uri}/") for uri in self.deleted_parents)
        if change.times == 1 and not below:
            return
        change.times += 1
        record = stored_record(self.registry, change.record)
        change.deleted = record is None
        change.new = (record or {}).get(FIELD)
        change.let_go |= change.new is None or below
        if below:
            change.ended = "collection"

    def plan_file(self, change: RecordChange, current: list[Link], life: str) -> str | None:
        """Link the record to its file, if it is one of ours; returns the file's key, or None."""
        file = self.ledger.new_file(change.new)
        key = file.key if file else self.key_of_other(change.new, current)
        if key is None:
            return None
        link = self.link(change, key, change.new, life, file)
        self.kept_links.add((change.record, key))
        if (before := next((each for each in current if each.key == key), None)) is not None:
            self.update(before, link)
        elif file is not None and file.record == change.record:
            self.steps.add(link, file, is_new=change.created)
        else:
            # Only code on the server can do this. It may know a file that the index does not.
            own = own_files(self.settings, self.registry.route_prefix, change.new)
            known_in = [storage for storage, each in own if each == key]
            self.steps.share(link, known_in, is_new=change.created)
        return key

    def link(
        self, change: RecordChange, key: str, attachment: Any, life: str, file: NewFile | None
    ) -> Link:
        known = {"created": file.created, "storage": file.storage} if file else {}
        return Link.to(change.record, key, attachment, attached=self.now, life=life, **known)

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

    def update(self, before: Link, link: Link) -> None:
        """Write what has changed of a file that stays the same, such as its name."""
        changed = replace(
            before,
            filename=link.filename,
            mimetype=link.mimetype,
            original=link.original,
            encoding=link.encoding,
            life=link.life,
        )
        if changed != before:
            self.steps.update(changed)

    def retire(self, link: Link, change: RecordChange) -> None:
        """Drop a link, or change its state if the file is kept for good or for a while."""
        rules = self.rules(change.record)
        withdrawn = change.let_go
        if change.ended:
            link = self.lives.end(link, change.ended)
        if link.state in ENDING:
            if withdrawn and link.state == "lingering":
                self.steps.retain(link, "withdrawn", link.until)
        elif rules.keep_old_files:
            if link.state == "current" or change.ended:
                self.steps.retain(link, "kept")
        elif rules.linger and link.state == "current":
            until = self.now + int(rules.linger * 1000)
            self.steps.let_linger(link, "withdrawn" if withdrawn else "lingering", until)
        else:
            self.steps.drop(link)

    def keep_intermediate(self, change: RecordChange, key: str | None, life: str | None) -> None:
        """Keep the files that were uploaded and then replaced within the same batch.

        If the record was deleted in it, too, nobody knows which of them came before that: all of
        them belong to the life that has ended.
        """
        if not self.rules(change.record).keep_old_files:
            return
        for attachment in change.intermediate:
            file = self.ledger.new_file(attachment)
            if file is not None and file.key != key:
                link = self.link(change, file.key, attachment, life or "", file)
                kept = replace(link, state="kept")
                self.steps.add(self.lives.end(kept, change.ended) if change.ended else kept, file)

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

        If it was kept, or lingers, the record would get it back, and lose the newer one.

        :raises AttachmentChanged: the record has another attachment, or none.
        """
        before = self.ledger.renamed.get(change.record)
        if before is None or change.times > 1 or self.matches_index(before, current):
            return
        # The record may be from before the index. A memory backend has the new name already.
        committed = self.committed_attachment(change)
        if not (same_json(committed, before) or same_json(committed, change.new)):
            raise AttachmentChanged()

    def check_collection(self, change: RecordChange) -> None:
        """Refuse to bring a record back, without its attachment, whose collection was deleted.

        :raises AttachmentGone: the collection is gone.
        """
        if not self.links.collections.exists(RecordURI.parse(change.record).collection):
            raise AttachmentGone("The collection was deleted meanwhile.")

    def check_unchanged(self, change: RecordChange, current: list[Link], life: str) -> None:
        """Refuse an update that brings back what was replaced or removed in the meantime.

        Kinto writes a record as it was read, with the changes of this request. What another
        request changed in between is undone by that, and the file that comes back is gone.

        :raises AttachmentGone: the attachment is not as it was when this request read it.
        """
        if self.matches_index(change.new, current):
            return
        # Record and index differ, but the record may be from before the index.
        if not same_json(self.committed_attachment(change), change.new):
            raise AttachmentChanged()
        if change.new is not None and not current:
            key = self.key_of_other(change.new, current)
            if key is not None:
                self.steps.share_if_known(self.link(change, key, change.new, life, None))

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

    def possible_keys(self, attachment: object) -> set[str]:
        return possible_keys(self.settings, self.registry.route_prefix, attachment)

    def rules(self, record: str) -> CollectionSettings:
        uri = RecordURI.parse(record)
        resolver = self.registry.attachment_collection_settings
        return resolver.without_user(self.ledger, uri.bucket_id, uri.collection_id)

    def drop_links_below(self, uri: str) -> None:
        """Drop or keep the links of all records below a deleted bucket or collection.

        Those of earlier buckets and collections of that name stay as they are.
        """
        for page in self.links.under(f"{uri}/"):
            for link in page:
                is_left = (link.record, link.key) in self.kept_links
                if not is_left and link.ended != "collection":
                    gone = RecordChange(None, link.record, created=False, old=None, let_go=True)
                    gone.ended = "collection"
                    self.retire(link, gone)
            self.steps.write()
