"""The index: which stored file belongs to which record.

It is kept in Kinto's own storage backend, and changed in the same transaction as the record. A
**link** is an object for each pair of a record and a file (see ``link.py``), under
``attachments:{record URI}``. Its id is derived from the object key alone. So *record -> files* is
one look-up by parent, *file -> records* one by id (PostgreSQL's primary key starts with the id),
and *all below a bucket or collection* one by prefix. Since each record is a parent of its own, two
uploads never conflict on the unique index on (parent, timestamp). The prefix protects links from
Kinto's cascades, which delete all objects under a bucket's URI.

Nearly every file has one link. Such a link is *sole*: a transaction that deletes it knows, without
another query, that the file is garbage. A second link makes both *shared* (with another id). From
then on, a transaction that adds or drops a link of the file has to lock it first. To drop a sole
link and to share it both start with deleting its row, so two transactions that do so at the same
time conflict on that row: one of them waits, and then sees what the other one did.

Transactions change the links of several files in the order of their ids, to avoid deadlocks.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from operator import attrgetter

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON, msec_time

from kinto_attachment.errors import (
    AttachmentError,
    AttachmentGone,
    FileNotFound,
    VersionInUse,
)
from kinto_attachment.index import holds
from kinto_attachment.index.collections import Collections
from kinto_attachment.index.link import ENDING, Link, State
from kinto_attachment.index.locks import FileLocks
from kinto_attachment.index.look_alikes import LookAlikes
from kinto_attachment.index.objects import batches, digest_of
from kinto_attachment.index.orphans import OrphanNotes
from kinto_attachment.index.outbox import Garbage, StoredFile
from kinto_attachment.index.postgresql_outbox import outbox
from kinto_attachment.index.postgresql_removals import removals
from kinto_attachment.index.postgresql_replacements import replacements
from kinto_attachment.index.queries import ANY, LinkQueries, in_storage_filter
from kinto_attachment.index.reservations import Reservations
from kinto_attachment.index.spares import Spares
from kinto_attachment.index.usage import Usage
from kinto_attachment.index.used_storages import UsedStorages
from kinto_attachment.index.verified import VerifiedFiles
from kinto_attachment.kinto_types import StorageBackend
from kinto_attachment.storage import FileStat
from kinto_attachment.storage.storages import Storages


class Links(LinkQueries):
    """The index in a Kinto storage backend; all methods run in the caller's transaction."""

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
        self.removals = removals(backend, page_size, fast=fast)
        self.locks = FileLocks(backend)
        self.look_alikes = LookAlikes(backend)
        self.orphan_notes = OrphanNotes(backend)
        self.used_storages = UsedStorages(backend)
        self.verified = VerifiedFiles(backend)
        self.spares = Spares(backend, page_size)
        self.storages = storages

    def confirm_unlinked(self, record: str, key: str) -> bool:
        """Make sure that a file which was stored for a record has no link, and will get none.

        :returns: False if the file has a link after all.

        If the connection broke at the commit, the database may still be committing. Writing
        the same row waits for the end of that transaction.
        """
        link = Link.to(record, key, {})
        if not self._rows.create(link.parent, link.id, link.dump()):
            return False
        self._rows.delete(link.parent, link.id)
        return not self.of_key(key)

    def add(self, link: Link, *, is_new: bool | None = None) -> None:
        """Link a file that this request has stored, so that no other request knows it yet.

        Unless ``is_new`` is None, the record's collection has to exist; it tells whether this
        request has created the record.

        :raises AttachmentGone: the collection was deleted in the meantime.
        """
        with self.usage.alone():
            self._put(link, is_new=is_new)
            self.usage.added(link)

    def replace(self, link: Link, old: Link) -> Garbage | None:
        """The same in place of a sole link of the record, whose file is entered in the outbox.

        :returns: the entry; None if the link is a shared one by now, which stays.
        :raises AttachmentGone: the collection was deleted in the meantime.
        """
        if link.storage:
            self.used_storages.note(link.storage)
        entry = Garbage.of([old.key], storage=old.storage)
        with self.usage.alone():
            replaced = self.replacements.replace_link(link, old, entry)
            if not replaced.added:
                raise AttachmentGone("The collection was deleted meanwhile.")
            self.usage.added(link)
            if replaced.removed:
                self.usage.removed(old)
        return entry if replaced.removed else None

    def update(self, link: Link) -> None:
        """Overwrite the link of a record that this transaction has written, and so locked.

        It may have become a shared one since it was read.
        """
        self.retain(link, link.state, link.until)

    def revise(self, key: str, revised: Callable[[Link], Link]) -> int:
        """Change links of a file whose records are not locked; returns how many have changed.

        ``revised`` may raise an AttachmentError: then nothing has changed.
        """
        self.locks.lock(key)
        count = 0
        try:
            changes = [(link, revised(link)) for link in self.of_key(key)]
        except AttachmentError:
            self.locks.clear(key)
            raise
        for link, new in changes:
            if new != link and (link.shared or self._delete_sole([link])):
                self._put(new)
                count += 1
        self.locks.clear(key)
        return count

    def move(self, key: str, source: str, target: str, *, readonly: bool) -> list[Link]:
        """Have the links of a locked file say that it is in another storage.

        Whether the copy in ``target`` is ``readonly`` is known there. Returns the links that have
        changed, as they were: none if the file is not in ``source`` any more.
        """
        moved = []
        for link in self.of_key(key):
            if link.storage == source and (link.shared or self._delete_sole([link])):
                self._put(replace(link, storage=target, readonly=readonly))
                moved.append(link)
        return moved

    def share(
        self, link: Link, *, known_in: Sequence[str] = (), is_new: bool | None = None
    ) -> None:
        """Link a file that existed before, such as one whose metadata was copied to a record.

        The index has to know a file with this key and content, unless the caller knows that it
        is in one of the storages ``known_in``: the existence of a file proves nothing. For
        ``is_new`` see :meth:`add`.

        :raises AttachmentGone: there is no such file, or it has lost its last link.
        """
        self.locks.lock(link.key)
        try:
            self._share(link, known_in, is_new=is_new)
        except AttachmentGone:
            self.locks.clear(link.key)
            raise

    def confirm(self, link: Link) -> None:
        """Check that the file of a link which was written late still exists.

        :raises AttachmentGone: it was deleted before the link was written.
        """
        self.locks.lock(link.key)
        storages = self._take_out_of_outbox(link.key, [link.storage])
        if not storages or not self._stat(link, link.storage):
            raise AttachmentGone()
        self.locks.clear(link.key)

    def retain(self, link: Link, state: State, until: int = 0) -> None:
        """Keep an earlier file of a record, by the new state of its link."""
        # The link is deleted and written again: nobody may share the file in between.
        self.locks.lock(link.key)
        if not link.shared and not self._delete_sole([link]):
            link = replace(link, shared=True)
        if not link.shared or self._may_be_put_back(link):
            self._put(replace(link, state=state, until=until))
        self.locks.clear(link.key)

    def restore(self, version: Link, attached: int, *, is_new: bool) -> None:
        """Make an earlier file of a record its current one again, since ``attached`` (ms).

        ``version`` is the record's link as it was read. For ``is_new`` see :meth:`add`.

        :raises AttachmentGone: it was deleted, or its life has ended, in the meantime.
        """
        self.locks.lock(version.key)
        try:
            own = self._still_kept(version)
            current = replace(own, state="current", attached=attached, retired=0, ended="")
            self._put(current, is_new=is_new)
        except AttachmentGone:
            self.locks.clear(version.key)
            raise
        self.locks.clear(version.key)

    def end_lingering(self, files: Iterable[StoredFile]) -> list[StoredFile]:
        """Drop the expired links of files; returns the files that have no link any more.

        Their links know in which storage they are by now.
        """
        orphans, now = [], msec_time()
        for file in sorted(files, key=lambda each: digest_of(each.key)):
            self.locks.lock(file.key)
            expired = [
                link
                for link in self.of_key(file.key)
                if link.state in ENDING and link.until <= now
            ]
            self.drop(expired)
            if not self.of_key(file.key):
                storage = expired[0].storage if expired else file.storage
                orphans.append(StoredFile(storage, file.key))
            self.locks.clear(file.key)
        return orphans

    def drop(self, links: list[Link]) -> list[Link]:
        """Remove links; returns those of files that have no link any more."""
        return self._without_readonly(self._drop(links))

    def remove_below(self, uri: str) -> list[StoredFile]:
        """Remove links below a deleted bucket or collection: see :class:`Removals`.

        Only where there are no quotas: nobody counts what is removed.

        :returns: the files that have no link any more.
        """
        removed = self.removals.remove_below(uri)
        if removed:
            self.usage.changed_uncounted()
        return removed

    def drop_dangling(self, links: list[Link]) -> list[Link]:
        """The same for links whose record does not point at the file, and for bundles.

        Only current ones are dropped: a record may have kept its file since the links were read.
        Those that are held stay.
        """
        bundles = [link for link in links if link.state == "bundle"]
        others = [link for link in links if link.state != "bundle"]
        return self._without_readonly(
            [*self._drop(others, "current"), *self._drop(bundles, "bundle")]
        )

    def drop_kept(self, links: list[Link]) -> list[Link]:
        """The same for earlier files of records that are not locked.

        Restored ones stay, and those that are held.
        """
        return self._without_readonly(self._drop(links, "kept"))

    def drop_version(self, link: Link) -> list[Link]:
        """The same for one file.

        :raises VersionInUse: it has become the current one in the meantime.
        :raises Held: it is held.
        """
        orphans = self.drop_kept([link])
        if not orphans:
            own = [other for other in self.of_key(link.key) if other.record == link.record]
            if any(other.state == "current" for other in own):
                raise VersionInUse()
            holds.refuse(own, msec_time())
        return orphans

    def move_orphans_to_outbox(
        self, keys: Iterable[str], storage: str = "", *, abandoned: Container[str] = ()
    ) -> tuple[list[Garbage], set[str]]:
        """Put files that seem to have no link in the outbox, if they have none under a lock.

        A link may say that the file is in another storage: then it is not known what this one is.

        :returns: the entries of the outbox, and the keys that are in them.

        Keys that are reserved are left out: they may be those of newer files by now. The
        reservations of ``abandoned`` keys are those of the files themselves, and end.
        """
        orphans = set()
        for key in sorted(keys, key=digest_of):
            if key not in abandoned and not self.reservations.claim(key):
                continue
            self.locks.lock(key)
            if not self.of_key(key) and not self.outbox.entries(key):
                orphans.add(key)
            self.locks.clear(key)
            self.reservations.release(key)
        return self.outbox.add(sorted(orphans), storage=storage), orphans

    def _may_be_put_back(self, link: Link) -> bool:
        """Whether a link that became a shared one may be written again, under a lock.

        There are no links if gc has deleted the file in the meantime. An earlier file may have
        been deleted by somebody who did not lock the record.
        """
        others = self.of_key(link.key)
        own = [other for other in others if other.record == link.record]
        if not own and others and link.state != "kept":
            self.usage.added(link, others)
        return bool(own or (others and link.state != "kept"))

    def _still_kept(self, version: Link) -> Link:
        """The present link of an earlier file, which nobody can drop any more.

        :raises AttachmentGone: there is none in that life.
        """
        for link in self.of_key(version.key):
            same_life = (link.life, link.ended) == (version.life, version.ended)
            is_same = link.record == version.record and link.state == "kept" and same_life
            # Whoever drops a sole link deletes its row without a lock.
            if is_same and (link.shared or self._delete_sole([link])):
                return link
        raise AttachmentGone()

    def _put(self, link: Link, *, is_new: bool | None = None) -> None:
        if link.storage:
            self.used_storages.note(link.storage)
        if is_new is None:
            self._rows.put(link.parent, link.id, link.dump())
        elif not self.collections.put_link(link, is_new=is_new):
            raise AttachmentGone("The collection was deleted meanwhile.")

    def _drop(self, links: list[Link], state: State | None = None) -> list[Link]:
        """Remove links.

        If there is a ``state``, their records are not locked: only links that are in this state
        by now, and not held, are removed.
        """
        orphans = []
        links = sorted(links, key=attrgetter("id"))
        for batch in batches(link for link in links if not link.shared):
            with self.usage.alone():
                gone = self._delete_free(batch, state) if state else self._delete_sole(batch)
                dropped = [link for link in batch if link.id in gone]
                for link in dropped:
                    self.usage.removed(link)
            orphans += dropped
            # It is no longer a sole link: another transaction has shared it since it was read.
            links = links + [replace(link, shared=True) for link in batch if link.id not in gone]
        for link in links:
            dropped_last = self._drop_shared(link, state) if link.shared else None
            if dropped_last is not None:
                orphans.append(dropped_last)
        return orphans

    def _delete_sole(self, links: list[Link], *filters: Filter) -> set[str]:
        """Delete sole links in one query; returns the ids of those that existed."""
        if len(links) == 1 and not filters:
            return {link.id for link in links if self._rows.delete(link.parent, link.id)}
        ids = {link.id for link in links}
        deleted = self._rows.delete_all(ANY, *filters, Filter("id", ids, COMPARISON.IN))
        return {row["id"] for row in deleted}

    def _delete_free(self, links: list[Link], state: State) -> set[str]:
        """The same for those that are in a state, in their storage, and not held, by now."""
        in_state = Filter("state", state, COMPARISON.EQ)
        gone = set()
        for storage in {link.storage for link in links}:
            there = [link for link in links if link.storage == storage]
            in_storage = in_storage_filter(storage)
            for some, filters in holds.by_hold(there, msec_time()):
                gone |= self._delete_sole(some, *filters, in_state, in_storage)
        return gone

    def put_back(self, links: Iterable[Link]) -> None:
        """Give readonly files that have no link any more one of a life that has ended.

        So nobody can read or restore them, and gc does not take them for files that are left.
        """
        for link in links:
            with self.usage.alone():
                self._put(replace(link, shared=False, state="kept", ended="collection"))
                self.usage.added(link)

    def _without_readonly(self, orphans: list[Link]) -> list[Link]:
        """The files that may be deleted, of those that have lost their last link."""
        self.put_back(link for link in orphans if link.readonly)
        return [link for link in orphans if not link.readonly]

    def _drop_revised(self, link: Link) -> bool:
        """Drop a sole link that was written again before the file was locked."""
        return self._rows.delete(link.parent, link.version)

    def _share(self, link: Link, known_in: Sequence[str], *, is_new: bool | None) -> None:
        others = self.of_key(link.key)
        if others and not any(other.describes(link.attachment) for other in others):
            raise AttachmentGone()
        shared = [each for each in map(self._make_shared, others) if each is not None]
        if shared:
            with self.usage.alone():
                self._put(_one_more(link, shared), is_new=is_new)
                self.usage.added(link, shared)
            return
        for storage in self._take_out_of_outbox(link.key, known_in):
            stat = self._stat(link, storage)
            if stat is not None:
                created = link.created or int(stat.modified.timestamp() * 1000)
                attached = link.attached or created
                found = replace(link, storage=storage, created=created, attached=attached)
                with self.usage.alone():
                    self._put(found, is_new=is_new)
                    self.usage.added(found)
                self.locks.clear(link.key)
                return
        raise AttachmentGone()

    def _make_shared(self, link: Link) -> Link | None:
        """Give a link the id of a shared one; None if it was dropped in the meantime."""
        if not link.shared:
            if not self._rows.delete(link.parent, link.id):
                return None
            link = replace(link, shared=True)
            self._put(link)
        return link

    def _drop_shared(self, link: Link, state: State | None) -> Link | None:
        """Drop one of several links, if it is in this state; returns it if it was the last one."""
        self.locks.lock(link.key)
        with self.usage.alone():
            present = link if state is None else self._free(link, state)
            is_dropped = present is not None and (
                self._rows.delete(link.parent, link.id) or self._drop_revised(link)
            )
            others = self.of_key(link.key)
            if is_dropped:
                self.usage.removed(link, others)
        if others:
            return None
        self.locks.clear(link.key)
        return present if is_dropped else None

    def _free(self, link: Link, state: State) -> Link | None:
        """The record's link to the file, if it is in a state, and not held, by now."""
        now = msec_time()
        for other in self.of_key(link.key):
            is_own = other.record == link.record and other.state == state
            if is_own and holds.standing(other, now) is None:
                return other
        return None

    def _stat(self, link: Link, storage: str) -> FileStat | None:
        """What a storage has of a file; None unless it is there and has the right size."""
        try:
            stat = self.storages[storage].files.stat(link.key)
        except FileNotFound:
            return None
        return stat if stat.size == link.size else None

    def _take_out_of_outbox(self, key: str, known_in: Sequence[str]) -> Sequence[str]:
        """Take a file without links out of the outbox.

        :returns: the storages that may have it; none if the file is being deleted, or nothing is
            known about it.
        """
        entries = self.outbox.entries(key)
        for entry in entries:
            # Another transaction deletes the file. Its absence would be noticed later, too.
            if not self.outbox.take(entry):
                return ()
            rest = entry.without(key)
            if rest.keys:
                self.outbox.put(rest)
        return [entry.storage for entry in entries] or known_in


def _one_more(link: Link, others: list[Link]) -> Link:
    """A link to a file that has other links; what they know of the file holds for it too.

    A hold belongs to a record: only that record's earlier link to the file can have it.
    """
    created, storage = others[0].created or link.created, others[0].storage
    own = [other.hold for other in others if other.record == link.record and other.hold]
    return replace(
        link,
        shared=True,
        created=created,
        attached=link.attached or created,
        storage=storage,
        readonly=others[0].readonly,
        hold=next(iter(own), link.hold),
    )
