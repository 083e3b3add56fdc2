"""The index: which stored file belongs to which record.

It is kept in Kinto's own storage backend, and changed in the same transaction as the record. A
**link** is an object for each pair of a record and a file, ``{key, record, filename, hash,
mimetype, size, state, until}`` under ``attachments:{record URI}``. Its id is derived from the
object key alone. So *record -> files* is one look-up by parent, *file -> records* one by id
(PostgreSQL's primary key starts with the id), and *all below a bucket or collection* one by
prefix. Since each record is a parent of its own, two uploads never conflict on the unique index
on (parent, timestamp). The prefix protects links from Kinto's cascades, which delete all objects
under a bucket's URI.

Nearly every file has one link. Such a link is *sole*: a transaction that deletes it knows, without
another query, that the file is garbage. A second link makes both *shared* (with another id). From
then on, a transaction that adds or drops a link of the file has to lock it first. To drop a sole
link and to share it both start with deleting its row, so two transactions that do so at the same
time conflict on that row: one of them waits, and then sees what the other one did.

Transactions change the links of several files in the order of their ids, to avoid deadlocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from operator import attrgetter

from kinto.core.storage import Filter, Sort
from kinto.core.utils import COMPARISON, msec_time

from kinto_attachment.errors import AttachmentGone, FileNotFound
from kinto_attachment.index.link import ENDING, Link, State
from kinto_attachment.index.objects import Objects, batches, digest_of
from kinto_attachment.index.outbox import Garbage, Outbox
from kinto_attachment.index.reservations import Reservations
from kinto_attachment.kinto_types import StorageBackend
from kinto_attachment.storage import FileStorage

DIGEST_LENGTH = 64
FEW_RECORDS = 50  # Up to that many are looked up one by one.
ANY = "attachments:*"


class Links:
    """The index in a Kinto storage backend; all methods run in the caller's transaction."""

    def __init__(self, backend: StorageBackend, storage: FileStorage, page_size: int) -> None:
        self.outbox = Outbox(backend)
        self.reservations = Reservations(backend)
        self.storage = storage
        self.page_size = page_size  # Kinto's ``storage_max_fetch_size``.
        self._rows = Objects(backend, "attachment")
        self._locks = Objects(backend, "attachment-lock")

    # Queries.

    def of_record(self, record: str) -> list[Link]:
        """The links of a record, in any state."""
        rows = self._rows.list(f"attachments:{record}")
        return [Link.load(row) for row in rows]

    def of_records(self, collection: str, ids: list[str]) -> list[Link]:
        """The links of several records; ``collection`` is a URI."""
        records = [f"{collection}/records/{object_id}" for object_id in ids]
        if len(records) <= FEW_RECORDS:
            return [link for record in records for link in self.of_record(record)]
        rows = []
        for batch in batches(records):
            rows += self._rows.list(
                f"attachments:{collection}/records/*", Filter("record", batch, COMPARISON.IN)
            )
        return [Link.load(row) for row in rows]

    def of_key(self, key: str) -> list[Link]:
        """The links of a file."""
        digest = digest_of(key)
        rows = self._rows.list(ANY, Filter("id", [digest, f"{digest}-shared"], COMPARISON.IN))
        return [link for link in map(Link.load, rows) if link.key == key]

    def under(self, prefix: str = "", within: str = "") -> Iterator[list[Link]]:
        """All links of records whose URI starts with ``prefix``, a page at a time.

        Kinto's storage returns a limited number of objects. A full page is queried again in
        sixteen parts, by the next hexadecimal digit of the ids; so links may be dropped during
        the iteration. ``within`` are the first digits of the ids, to get a part of the links.
        """
        rows = self._rows.list(
            f"attachments:{prefix}*",
            Filter("id", within, COMPARISON.MIN),
            Filter("id", f"{within}g", COMPARISON.LT),
        )
        if len(rows) >= self.page_size and len(within) == DIGEST_LENGTH:
            yield from self._under_of_one_file(prefix, within)
        elif len(rows) >= self.page_size:
            for digit in "0123456789abcdef":
                yield from self.under(prefix, within + digit)
        elif rows:
            # In PostgreSQL's LIKE, the ``_`` of a bucket's name matches any character.
            yield [link for link in map(Link.load, rows) if link.record.startswith(prefix)]

    def _under_of_one_file(self, prefix: str, digest: str) -> Iterator[list[Link]]:
        """The same for a single file that has more links than a page holds."""
        last = ""
        while rows := self._rows.list(
            f"attachments:{prefix}*",
            Filter("id", [digest, f"{digest}-shared"], COMPARISON.IN),
            Filter("record", last, COMPARISON.GT),
            sorting=[Sort("record", 1)],
            limit=self.page_size,
        ):
            last = rows[-1]["record"]
            yield [link for link in map(Link.load, rows) if link.record.startswith(prefix)]

    def without_links(self, keys: list[str]) -> set[str]:
        """The keys among ``keys`` that have no link."""
        ids = {key: digest_of(key) for key in keys}
        linked: set[str] = set()
        for batch in batches(ids.values()):
            both = {*batch, *(f"{digest}-shared" for digest in batch)}
            rows = self._rows.list(ANY, Filter("id", both, COMPARISON.IN))
            linked.update(row["key"] for row in rows)
        return set(keys) - linked

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

    # Changes.

    def add(self, link: Link) -> None:
        """Link a file that this request has stored, so that no other request knows it yet."""
        self._put(link)

    def update(self, link: Link) -> None:
        """Overwrite the link of a record that this transaction has written, and so locked."""
        self._put(link)

    def share(self, link: Link, *, is_known: bool = False) -> None:
        """Link a file that existed before, such as one whose metadata was copied to a record.

        The index has to know a file with this key and content, unless the caller knows where
        the file comes from (``is_known``): the existence of a file proves nothing.

        :raises AttachmentGone: there is no such file, or it has lost its last link.
        """
        self._lock(link.key)
        others = self.of_key(link.key)
        if others and not any(other.describes(link.dump()) for other in others):
            raise AttachmentGone()
        still_linked = [self._make_shared(other) for other in others]
        if any(still_linked):
            self._put(replace(link, shared=True))
        elif self._take_out_of_outbox(link.key, is_known=is_known) and self._has_size(link):
            self._put(link)
            self._unlock(link.key)
        else:
            raise AttachmentGone()

    def confirm(self, link: Link) -> None:
        """Check that the file of a link which was written late still exists.

        :raises AttachmentGone: it was deleted before the link was written.
        """
        self._lock(link.key)
        if not self._take_out_of_outbox(link.key, is_known=True) or not self._has_size(link):
            raise AttachmentGone()
        self._unlock(link.key)

    def retain(self, link: Link, state: State, until: int = 0) -> None:
        """Keep an earlier file of a record, by the new state of its link."""
        # The link is deleted and written again: nobody may share the file in between.
        self._lock(link.key)
        if not link.shared and not self._delete_sole([link]):
            link = replace(link, shared=True)
        # There are no links if gc has deleted the file in the meantime.
        if not link.shared or self.of_key(link.key):
            self._put(replace(link, state=state, until=until))
        self._unlock(link.key)

    def end_lingering(self, keys: Iterable[str]) -> list[str]:
        """Drop the expired links of files; returns the keys that have no link any more."""
        orphans, now = [], msec_time()
        for key in sorted(keys, key=digest_of):
            self._lock(key)
            expired = [
                link for link in self.of_key(key) if link.state in ENDING and link.until <= now
            ]
            self.drop(expired)
            if not self.of_key(key):
                orphans.append(key)
            self._unlock(key)
        return orphans

    def drop(self, links: list[Link]) -> list[str]:
        """Remove links; returns the keys that have no link any more."""
        orphans = []
        links = sorted(links, key=attrgetter("id"))
        for batch in batches(link for link in links if not link.shared):
            gone = self._delete_sole(batch)
            orphans += [link.key for link in batch if link.id in gone]
            # It is no longer a sole link: another transaction has shared it since it was read.
            links = links + [replace(link, shared=True) for link in batch if link.id not in gone]
        for link in links:
            if link.shared and self._drop_shared(link):
                orphans.append(link.key)
        return orphans

    def drop_dangling(self, links: list[Link]) -> list[str]:
        """The same for links whose record does not point at the file.

        Only current ones are dropped: a record may have kept its file since the links were read.
        """
        orphans = []
        for batch in batches(link for link in links if not link.shared):
            gone = self._delete_sole(batch, Filter("state", "current", COMPARISON.EQ))
            orphans += [link.key for link in batch if link.id in gone]
            links = links + [replace(link, shared=True) for link in batch if link.id not in gone]
        for link in links:
            if link.shared and self._drop_shared(link, state="current"):
                orphans.append(link.key)
        return orphans

    def move_orphans_to_outbox(self, keys: Iterable[str]) -> tuple[list[Garbage], set[str]]:
        """Put files that seem to have no link in the outbox, if they have none under a lock.

        :returns: the entries of the outbox, and the keys that are in them.

        Keys that are reserved are left out: they may be those of newer files by now.
        """
        orphans = set()
        for key in sorted(keys, key=digest_of):
            if not self.reservations.claim(key):
                continue
            self._lock(key)
            if not self.of_key(key) and not self.outbox.entries(key):
                orphans.add(key)
            self._unlock(key)
            self.reservations.release(key)
        return self.outbox.add(sorted(orphans)), orphans

    # Rows and locks.

    def _put(self, link: Link) -> None:
        self._rows.put(link.parent, link.id, link.dump())

    def _delete_sole(self, links: list[Link], *filters: Filter) -> set[str]:
        """Delete sole links in one query; returns the ids of those that existed."""
        if len(links) == 1 and not filters:
            return {link.id for link in links if self._rows.delete(link.parent, link.id)}
        ids = {link.id for link in links}
        deleted = self._rows.delete_all(ANY, Filter("id", ids, COMPARISON.IN), *filters)
        return {row["id"] for row in deleted}

    def _lock(self, key: str) -> None:
        """Lock a file against other transactions that share or unshare it, until the commit."""
        self._locks.put(f"attachments-lock:{digest_of(key)}", "lock", {})

    def _unlock(self, key: str) -> None:
        """Delete the row of the lock; the database keeps it locked until the commit."""
        self._locks.delete(f"attachments-lock:{digest_of(key)}", "lock")

    def _make_shared(self, link: Link) -> Link | None:
        """Give a link the id of a shared one; None if it was dropped in the meantime."""
        if not link.shared:
            if not self._rows.delete(link.parent, link.id):
                return None
            link = replace(link, shared=True)
            self._put(link)
        return link

    def _drop_shared(self, link: Link, state: str = "") -> bool:
        """Drop one of several links, if it is in this state; True if it was the last one."""
        self._lock(link.key)
        if state and link.record not in [
            other.record for other in self.of_key(link.key) if other.state == state
        ]:
            return False
        is_there = self._rows.delete(link.parent, link.id)
        if self.of_key(link.key):
            return False
        self._unlock(link.key)
        return is_there

    def _has_size(self, link: Link) -> bool:
        try:
            return self.storage.stat(link.key).size == link.size
        except FileNotFound:
            return False

    def _take_out_of_outbox(self, key: str, *, is_known: bool) -> bool:
        """Take a file without links out of the outbox.

        :returns: False if the file is being deleted, or nothing is known about it.
        """
        entries = self.outbox.entries(key)
        if not entries and not is_known:
            return False
        for entry in entries:
            # Another transaction deletes the file. Its absence would be noticed later, too.
            if not self.outbox.take(entry):
                return False
            rest = entry.without(key)
            if rest.keys:
                self.outbox.put(rest)
        return True
