"""Dropping links, and finding the files to delete.

The caller deletes the files that no longer have a link. Files that belong to others stay, with a
link of a life that has ended.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import replace
from operator import attrgetter

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON, msec_time

from kinto_attachment.errors import VersionInUse
from kinto_attachment.index import holds
from kinto_attachment.index.link import ENDING, Link, State
from kinto_attachment.index.link_rows import LinkRows
from kinto_attachment.index.objects import batches, digest_of
from kinto_attachment.index.outbox import Garbage, StoredFile
from kinto_attachment.index.queries import in_storage_filter


class LinkDrops(LinkRows):
    """Drops links, in the caller's transaction."""

    def drop(self, links: list[Link]) -> list[Link]:
        """Remove links; returns those of files that no longer have a link."""
        return self._without_readonly(self._drop(links))

    def remove_below(self, uri: str) -> list[Garbage]:
        """Remove links below a deleted bucket or collection: see :class:`Removals`.

        Only without quotas, because removed files are not counted.

        :returns: the entries of the outbox with the files that no longer have a link.
        """
        entries = self.removals.remove_below(uri)
        if entries:
            self.usage.changed_uncounted()
        return entries

    def drop_dangling(self, links: list[Link]) -> list[Link]:
        """Like :meth:`drop`, for bundles and links whose record does not have the file.

        Only current links are removed, as a record may have kept its file since the links were
        read. Held files stay.
        """
        bundles = [link for link in links if link.state == "bundle"]
        others = [link for link in links if link.state != "bundle"]
        return self._without_readonly(
            [*self._drop(others, "current"), *self._drop(bundles, "bundle")]
        )

    def drop_kept(self, links: list[Link]) -> list[Link]:
        """Remove links to earlier files of records that are not locked, like :meth:`drop`.

        Restored and held files stay.
        """
        return self._without_readonly(self._drop(links, "kept"))

    def drop_version(self, link: Link) -> list[Link]:
        """Remove the link to one earlier file, like :meth:`drop_kept`.

        :raises VersionInUse: it has become the current file in the meantime.
        :raises Held: it is held.
        """
        orphans = self.drop_kept([link])
        if not orphans:
            own = [other for other in self.of_key(link.key) if other.record == link.record]
            if any(other.state == "current" for other in own):
                raise VersionInUse()
            holds.refuse(own, msec_time())
        return orphans

    def end_lingering(self, files: Iterable[StoredFile]) -> list[StoredFile]:
        """Drop the expired links of files; returns the files that no longer have a link.

        Their links show which storage they are in now.
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

    def move_orphans_to_outbox(
        self, keys: Iterable[str], storage: str = "", *, abandoned: Container[str] = ()
    ) -> tuple[list[Garbage], set[str]]:
        """Enter files that seem to have no link in the outbox, after checking it under a lock.

        If a link says that the file is in another storage, this file is unknown. Reserved keys are
        left out, because newer files may have them. The reservations of ``abandoned`` keys belong
        to these files, and end.

        :returns: the entries of the outbox, and the keys in them.
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

    def put_back(self, links: Iterable[Link]) -> None:
        """Give readonly files that no longer have a link a link of a life that has ended.

        So nobody can read or restore them, and gc does not treat them as orphans.
        """
        for link in links:
            with self.usage.alone():
                self._put(replace(link, shared=False, state="kept", ended="collection"))
                self.usage.added(link)

    def _drop(self, links: list[Link], state: State | None = None) -> list[Link]:
        """Remove links.

        With a ``state``, their records are not locked, and only links that are now in this state
        and not held are removed.
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
            # It is no longer a sole link, because another transaction has shared the file.
            links = links + [replace(link, shared=True) for link in batch if link.id not in gone]
        for link in links:
            dropped_last = self._drop_shared(link, state) if link.shared else None
            if dropped_last is not None:
                orphans.append(dropped_last)
        return orphans

    def _delete_free(self, links: list[Link], state: State) -> set[str]:
        """Delete sole links that are still in a state and in their storage, and not held."""
        in_state = Filter("state", state, COMPARISON.EQ)
        gone = set()
        for storage in {link.storage for link in links}:
            there = [link for link in links if link.storage == storage]
            in_storage = in_storage_filter(storage)
            for some, filters in holds.by_hold(there, msec_time()):
                gone |= self._delete_sole(some, *filters, in_state, in_storage)
        return gone

    def _without_readonly(self, orphans: list[Link]) -> list[Link]:
        """Those of the files without links that may be deleted."""
        self.put_back(link for link in orphans if link.readonly)
        return [link for link in orphans if not link.readonly]

    def _drop_revised(self, link: Link) -> bool:
        """Drop a sole link that was written again before the file was locked."""
        return self._rows.delete(link.parent, link.version)

    def _drop_shared(self, link: Link, state: State | None) -> Link | None:
        """Drop a shared link, if it is in this state; returns it if it was the last one."""
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
        """The record's current link to the file, if it is in a state and not held."""
        now = msec_time()
        for other in self.of_key(link.key):
            is_own = other.record == link.record and other.state == state
            if is_own and holds.standing(other, now) is None:
                return other
        return None
