"""Turning changes of records into changes of links, whichever code wrote the records.

Links are created and dropped here for uploads and for all other writes of records.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

from kinto.core.utils import msec_time

from kinto_attachment.errors import AttachmentChanged
from kinto_attachment.files import holds, look_alikes
from kinto_attachment.files.conflicts import Conflicts
from kinto_attachment.files.earlier_files import EarlierFiles
from kinto_attachment.files.ledger import Ledger, NewFile, RecordChange
from kinto_attachment.files.link_steps import LinkSteps
from kinto_attachment.files.locations import own_files
from kinto_attachment.files.stored_records import (
    delete_records_below,
    stored_record,
)
from kinto_attachment.index.link import Link
from kinto_attachment.index.lives import Lives, current_life
from kinto_attachment.kinto_types import Registry
from kinto_attachment.metadata import FIELD, same_json
from kinto_attachment.uris import RecordURI


def write_links(registry: Registry, ledger: Ledger) -> None:
    """Bring the index in line with the records that a request wrote or deleted.

    :raises AttachmentGone: a record points at a file that was deleted in the meantime.
    :raises VersionInUse: a version to be deleted was restored in the meantime.
    :raises Held: a file that would be deleted or replaced is held.
    :raises DeletesMore: with a bucket, Kinto has deleted records of another one.
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
        self.conflicts = Conflicts(registry, ledger)
        self.now = msec_time()
        self.lives = Lives()
        self.earlier = EarlierFiles(registry, ledger, self.steps, self.lives, self.now)
        self.kept_links: set[tuple[str, str]] = set()  # Pairs of record and key.

    def write(self) -> None:
        look_alikes.refuse_deletion(self.registry, self.deleted_parents)
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
            # A new record has no file yet. The files of an earlier record with its id stay, unless
            # the request restores that record.
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
            self.conflicts.check_unchanged(change, current)
            self.link_again(change, current, life)
            return
        self.conflicts.check_precondition(change, current)
        self.conflicts.check_renamed(change, current)
        self.conflicts.check_expected(change, current)
        if change.new is None and change.old is not None and not (change.deleted or current):
            self.conflicts.check_collection(change)
        key = self.plan_file(change, current, life) if change.new is not None else None
        self.check_holds(change, living, key)
        surplus = self.earlier.surplus(change, living, key)
        for link in living:
            if link.key in surplus:
                self.steps.drop(link)
            # A replaced record keeps the links of files from before its current one.
            elif link.key != key and (link.state == "current" or change.let_go):
                self.earlier.retire(link, change)
        self.keep_intermediate(change, key, current_life(living) if change.ended else life)

    def living(self, change: RecordChange, present: list[Link]) -> list[Link]:
        """The links of the record's current life, or of the life that is revived.

        :raises AttachmentChanged: the life was to be revived, but another record has the id now.
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

    def life_of(self, change: RecordChange, living: list[Link]) -> str:
        """The life of the record at the end of the request."""
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
        """Link the record to its file, if this server has it; returns the file's key, or None."""
        file = self.ledger.new_file(change.new)
        shared = None if file else self.ledger.shared_file(change.record, change.new)
        known = file or shared
        key = known.key if known else self.conflicts.key_of_other(change.new, current)
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
            # The index knows the file, unless the record is older than the index.
            known_in = [shared.storage] if shared.link is None else []
            self.steps.share(self.held(link), known_in, is_new=change.created)
        else:
            # Only code on the server can do this. It may know files that the index does not.
            own = own_files(self.settings, self.registry.route_prefix, change.new)
            known_in = [storage for storage, each in own if each == key]
            self.steps.share(self.held(link), known_in, is_new=change.created)
        return key

    def held(self, link: Link) -> Link:
        """The link of a new file, with the hold from the settings."""
        return replace(link, hold=holds.by_setting(self.earlier.rules(link.record), self.now))

    def link(
        self, change: RecordChange, key: str, attachment: Any, life: str, file: NewFile | None
    ) -> Link:
        known = {"created": file.created, "storage": file.storage} if file else {}
        return Link.to(change.record, key, attachment, attached=self.now, life=life, **known)

    def link_again(self, change: RecordChange, current: list[Link], life: str) -> None:
        """Link the unchanged file of a record that is older than the index."""
        if change.new is not None and not current:
            key = self.conflicts.key_of_other(change.new, current)
            if key is not None:
                self.steps.share_if_known(self.link(change, key, change.new, life, None))

    def update(self, before: Link, link: Link) -> None:
        """Write changed metadata of an unchanged file, such as its name."""
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

    def keep_intermediate(self, change: RecordChange, key: str | None, life: str | None) -> None:
        """Keep the files that were uploaded and then replaced within the same batch.

        If the batch also deleted the record, it is unknown which of them came before the deletion,
        so all belong to the life that has ended.
        """
        for file, attachment in self.earlier.new_intermediate(change, key):
            link = self.link(change, file.key, attachment, life or "", file)
            kept = replace(self.held(link), state="kept", retired=self.now)
            self.steps.add(self.lives.end(kept, change.ended) if change.ended else kept, file)

    def check_holds(self, change: RecordChange, living: list[Link], key: str | None) -> None:
        """Refuse to delete or replace files that are held; ``key`` is that of the new file.

        :raises Held: a file is held.
        """
        outcome = {"let_go": change.let_go, "ended": bool(change.ended)}
        outcome["keeps"] = self.earlier.rules(change.record).keep_old_files
        lost = [link for link in living if holds.is_lost(link, stays=link.key == key, **outcome)]
        holds.refuse_loss(self.registry, lost, self.now)

    def hold(self, record: str, key: str, hold: dict[str, Any]) -> None:
        """Hold the current file of a record, which this request has attached."""
        for link in self.links.of_record(record):
            if (link.key, link.state) == (key, "current"):
                self.links.update(replace(link, hold=hold or None))

    def drops_all(self) -> bool:
        """Whether no file below a deleted parent is kept, counted, or written by this request."""
        keeps = self.settings.are_set("keep_old_files") or self.settings.are_set("linger")
        counts = self.registry.attachment_usage.is_counting
        return not (keeps or counts or self.kept_links)

    def drop_links_below(self, uri: str) -> None:
        """Drop or keep the links of all records below a deleted bucket or collection.

        Links of earlier buckets and collections with that id do not change.
        """
        if self.drops_all():
            self.steps.remove_below(uri)
        for page in self.links.under(f"{uri}/"):
            lost = [link for link in page if link.ended != "collection"]
            holds.refuse_loss(self.registry, lost, self.now)
            for link in page:
                is_left = (link.record, link.key) in self.kept_links
                if not is_left and link.ended != "collection":
                    gone = RecordChange(None, link.record, created=False, old=None, let_go=True)
                    gone.ended = "collection"
                    self.earlier.retire(link, gone)
            self.steps.write()
