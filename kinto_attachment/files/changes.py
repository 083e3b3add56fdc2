"""Changes of records become changes of links, whichever code wrote the records.

All links are created and dropped here, for uploads as well as for any other write of a record.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from operator import attrgetter
from typing import Any

from kinto.core.errors import ERRORS, http_error
from kinto.core.utils import msec_time
from pyramid.httpexceptions import HTTPPreconditionFailed

from kinto_attachment.errors import AttachmentChanged, AttachmentGone
from kinto_attachment.files import holds
from kinto_attachment.files.ledger import Ledger, NewFile, RecordChange
from kinto_attachment.files.link_steps import LinkSteps
from kinto_attachment.files.locations import own_files, possible_keys
from kinto_attachment.files.stored_records import (
    committed_record,
    delete_records_below,
    stored_record,
)
from kinto_attachment.index.holds import standing
from kinto_attachment.index.link import ENDING, Link
from kinto_attachment.index.lives import Lives, current_life
from kinto_attachment.kinto_types import Registry
from kinto_attachment.metadata import FIELD, same_json
from kinto_attachment.settings import CollectionSettings
from kinto_attachment.uris import RecordURI


def write_links(registry: Registry, ledger: Ledger) -> None:
    """Bring the index in line with the records that a request wrote or deleted.

    :raises AttachmentGone: a record points at a file that was deleted in the meantime.
    :raises VersionInUse: a version to be deleted was restored in the meantime.
    :raises Held: a file that would be deleted or replaced is held.
    :raises HTTPPreconditionFailed: the record is not the one of the client's ``If-Match``.
    """
    if ledger.changes or ledger.deleted_parents or ledger.deleted_versions:
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
        self.deleted_versions = list(ledger.deleted_versions)
        ledger.changes.clear()
        ledger.deleted_parents.clear()
        ledger.deleted_versions.clear()
        self.new_holds = dict(ledger.holds)
        ledger.holds.clear()
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
        for version in self.deleted_versions:
            self.steps.drop_version(version)
        self.steps.write()
        for uri in self.deleted_parents:
            self.drop_links_below(uri)
        self.steps.discard_files()
        for (record, key), hold in self.new_holds.items():
            self.hold(record, key, hold)

    def present_links(self) -> dict[str, list[Link]]:
        """The links, by record, of the records that existed before the request, or once did."""
        by_collection = defaultdict(list)
        for change in self.changes:
            # A new record has no file yet. What an earlier record of its id has left, stays,
            # unless the request makes that record again.
            if not change.created or self.ledger.revived(change.record):
                uri = RecordURI.parse(change.record)
                by_collection[uri.collection].append(uri.record_id)
        found = defaultdict(list)
        for collection, ids in by_collection.items():
            for link in self.links.of_records(collection, ids):
                found[link.record].append(link)
        return found

    def plan(self, change: RecordChange, present: list[Link]) -> None:
        self.find_outcome(change)
        living = self.living(change, present)
        current = [link for link in living if link.state == "current"]
        life = self.life_of(change, living)
        if change.times == 1 and not change.deleted and same_json(change.new, change.old):
            self.check_unchanged(change, current, life)
            return
        self.check_precondition(change, current)
        self.check_renamed(change, current)
        self.check_detached(change, current)
        if change.new is None and change.old is not None and not (change.deleted or current):
            self.check_collection(change)
        key = self.plan_file(change, current, life) if change.new is not None else None
        self.check_holds(change, living, key)
        surplus = self.surplus(change, living, key)
        for link in living:
            if link.key in surplus:
                self.steps.drop(link)
            # A replaced record keeps the links of files from before its current one.
            elif link.key != key and (link.state == "current" or change.let_go):
                self.retire(link, change)
        self.keep_intermediate(change, key, current_life(living) if change.ended else life)

    def living(self, change: RecordChange, present: list[Link]) -> list[Link]:
        """The links of the record's life: the present one, or the one that is revived.

        :raises AttachmentChanged: the life was to be revived, but there is another record now.
        """
        version = None if change.ended else self.ledger.revived(change.record)
        if version is None:
            return [link for link in present if not link.ended]
        if not change.created:
            raise AttachmentChanged()
        revived = [
            replace(link, ended="")
            for link in present
            if (link.life, link.ended) == (version.life, version.ended)
        ]
        restored = self.ledger.shared_file(change.record, change.new)
        for link in revived:
            if restored is None or link.key != restored.key:
                self.steps.update(link)
        return revived

    def surplus(self, change: RecordChange, living: list[Link], key: str | None) -> set[str]:
        """The keys of earlier files that ``max_versions`` leaves no room for: the oldest ones.

        Those that are held stay in addition.
        """
        rules = self.rules(change.record)
        if not (rules.keep_old_files and rules.max_versions):
            return set()
        living = [link for link in living if standing(link, self.now) is None]
        earlier = [link for link in living if link.key != key and link.state not in ENDING]
        earlier.sort(key=attrgetter("age"), reverse=True)
        room = rules.max_versions - len(self.new_intermediate(change, key))
        return {link.key for link in earlier[max(room, 0) :]}

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
        shared = None if file else self.ledger.shared_file(change.record, change.new)
        known = file or shared
        key = known.key if known else self.key_of_other(change.new, current)
        if key is None:
            return None
        link = self.link(change, key, change.new, life, file)
        self.kept_links.add((change.record, key))
        if (before := next((each for each in current if each.key == key), None)) is not None:
            self.update(before, link)
        elif file is not None and file.record == change.record:
            self.steps.add(self.held(link), file, is_new=change.created)
        elif shared is not None and shared.version is not None:
            self.steps.restore(shared.version, self.now, is_new=change.created)
        elif shared is not None:
            # The index knows the file, unless its record is from before the index.
            known_in = [shared.storage] if shared.link is None else []
            self.steps.share(self.held(link), known_in, is_new=change.created)
        else:
            # Only code on the server can do this. It may know a file that the index does not.
            own = own_files(self.settings, self.registry.route_prefix, change.new)
            known_in = [storage for storage, each in own if each == key]
            self.steps.share(self.held(link), known_in, is_new=change.created)
        return key

    def held(self, link: Link) -> Link:
        """The link of a new file, with the hold that the settings give it."""
        return replace(link, hold=holds.by_setting(self.rules(link.record), self.now))

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
        if link.state == "current":
            link = replace(link, retired=self.now)
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
        for file, attachment in self.new_intermediate(change, key):
            link = self.link(change, file.key, attachment, life or "", file)
            kept = replace(self.held(link), state="kept", retired=self.now)
            self.steps.add(self.lives.end(kept, change.ended) if change.ended else kept, file)

    def new_intermediate(self, change: RecordChange, key: str | None) -> list[tuple[NewFile, Any]]:
        """These files, as far as they are kept, with their attachment objects."""
        rules = self.rules(change.record)
        if not (change.intermediate and rules.keep_old_files):
            return []
        files = [(self.ledger.new_file(each), each) for each in change.intermediate]
        kept = [(file, each) for file, each in files if file is not None and file.key != key]
        return kept[-rules.max_versions :]  # All if that is 0.

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

    def check_detached(self, change: RecordChange, current: list[Link]) -> None:
        """Refuse to detach a file that is not the record's any more.

        If the record was deleted in the meantime, Kinto's storage would create it again.

        :raises AttachmentChanged: the record has another file, or is gone.
        """
        key = self.ledger.detached.get(change.record)
        if key is not None and all(link.key != key for link in current):
            raise AttachmentChanged()

    def check_holds(self, change: RecordChange, living: list[Link], key: str | None) -> None:
        """Refuse to delete or replace files that are held; ``key`` is that of the new file.

        :raises Held: there is one.
        """
        outcome = {"let_go": change.let_go, "ended": bool(change.ended)}
        outcome["keeps"] = self.rules(change.record).keep_old_files
        lost = [link for link in living if holds.is_lost(link, stays=link.key == key, **outcome)]
        holds.refuse_loss(self.registry, lost, self.now)

    def hold(self, record: str, key: str, hold: dict[str, Any]) -> None:
        """Hold the current file of a record, which this request has attached."""
        for link in self.links.of_record(record):
            if (link.key, link.state) == (key, "current"):
                self.links.update(replace(link, hold=hold or None))

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
            lost = [link for link in page if link.ended != "collection"]
            holds.refuse_loss(self.registry, lost, self.now)
            for link in page:
                is_left = (link.record, link.key) in self.kept_links
                if not is_left and link.ended != "collection":
                    gone = RecordChange(None, link.record, created=False, old=None, let_go=True)
                    gone.ended = "collection"
                    self.retire(link, gone)
            self.steps.write()
