"""The index: which stored file belongs to which record.

The index is in Kinto's storage backend, and changes in the same transaction as the record. A
**link** is an object for each pair of a record and a file (see ``link.py``), under
``attachments:{record URI}``. Its id is derived only from the object key. So *record -> files* is
one look-up by parent, *file -> records* one by id (PostgreSQL's primary key starts with the id),
and *all below a bucket or collection* one by prefix. Since each record is another parent, two
uploads never conflict on the unique index on (parent, timestamp). The prefix protects links from
Kinto's cascades, which delete all objects under a bucket's URI.

Nearly every file has one link, which is then *sole*. A transaction that deletes it knows without
another query that the file is garbage. A second link makes both *shared* (with another id). From
then on, a transaction that adds or drops a link of the file has to lock it first. To drop a sole
link and to share it both start with deleting its row, so two transactions that do so at the same
time conflict on that row. One of them waits, and then sees the changes of the other one.

Transactions change the links of several files in the order of their ids, to avoid deadlocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kinto_attachment.errors import AttachmentError, AttachmentGone
from kinto_attachment.index.link import Link, State
from kinto_attachment.index.link_drops import LinkDrops
from kinto_attachment.index.link_shares import LinkShares
from kinto_attachment.index.outbox import Garbage


class Links(LinkDrops, LinkShares):
    """The index in a Kinto storage backend; all methods run in the caller's transaction."""

    def confirm_unlinked(self, record: str, key: str) -> bool:
        """Make sure that a file that was stored for a record has no link and will not get one.

        :returns: False if the file has a link.

        If the connection broke at the commit, the database may still be committing. Writing
        the same row waits for the end of that transaction.
        """
        link = Link.to(record, key, {})
        if not self._rows.create(link.parent, link.id, link.dump()):
            return False
        self._rows.delete(link.parent, link.id)
        return not self.of_key(key)

    def add(self, link: Link, *, is_new: bool | None = None) -> None:
        """Link a file that this request has stored, which no other request knows yet.

        Unless ``is_new`` is None, the record's collection has to exist; it says whether this
        request has created the record.

        :raises AttachmentGone: the collection was deleted in the meantime.
        """
        with self.usage.alone():
            self._put(link, is_new=is_new)
            self.usage.added(link)

    def replace(self, link: Link, old: Link) -> Garbage | None:
        """The same, replacing a sole link of the record, whose file is entered in the outbox.

        :returns: the entry; None if the link has become a shared one, which stays.
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
        """Overwrite the link of a record that this transaction has written and thereby locked.

        It may have become a shared link since it was read.
        """
        self.retain(link, link.state, link.until)

    def revise(self, key: str, revised: Callable[[Link], Link]) -> int:
        """Change links of a file whose records are not locked; returns the number of changes.

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
        """Change the storage in the links of a locked file.

        ``readonly`` applies to the copy in ``target``. Returns the old state of the changed links:
        none if the file is no longer in ``source``.
        """
        moved = []
        for link in self.of_key(key):
            if link.storage == source and (link.shared or self._delete_sole([link])):
                self._put(replace(link, storage=target, readonly=readonly))
                moved.append(link)
        return moved

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
        """Make an earlier file of a record its current one again, from ``attached`` (ms) on.

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

    def _may_be_put_back(self, link: Link) -> bool:
        """Whether a link that became shared may be written again, under a lock.

        If gc has deleted the file in the meantime, it has no links. A request that did not lock
        the record may have deleted an earlier file.
        """
        others = self.of_key(link.key)
        own = [other for other in others if other.record == link.record]
        if not own and others and link.state != "kept":
            self.usage.added(link, others)
        return bool(own or (others and link.state != "kept"))

    def _still_kept(self, version: Link) -> Link:
        """The current link of an earlier file, which nobody can drop any more.

        :raises AttachmentGone: the life has no such link.
        """
        for link in self.of_key(version.key):
            same_life = (link.life, link.ended) == (version.life, version.ended)
            is_same = link.record == version.record and link.state == "kept" and same_life
            # Whoever drops a sole link deletes its row without a lock.
            if is_same and (link.shared or self._delete_sole([link])):
                return link
        raise AttachmentGone()
