"""Adding another link to a file that was stored before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kinto_attachment.errors import AttachmentGone, FileNotFound
from kinto_attachment.index.link import Link
from kinto_attachment.index.link_rows import LinkRows
from kinto_attachment.storage import FileStat


class LinkShares(LinkRows):
    """Links files that may have other links, in the caller's transaction."""

    def share(
        self, link: Link, *, known_in: Sequence[str] = (), is_new: bool | None = None
    ) -> None:
        """Link a file that existed before, such as one whose metadata was copied to a record.

        The index has to know a file with this key and content, unless the caller knows that it is
        in one of the storages ``known_in``. The existence of a file alone proves nothing. For
        ``is_new`` see :meth:`add`.

        :raises AttachmentGone: the file does not exist, or has lost its last link.
        """
        self.locks.lock(link.key)
        try:
            self._share(link, known_in, is_new=is_new)
        except AttachmentGone:
            self.locks.clear(link.key)
            raise

    def confirm(self, link: Link) -> None:
        """Check that the file still exists if its link was written late.

        :raises AttachmentGone: it was deleted before the link was written.
        """
        self.locks.lock(link.key)
        storages = self._take_out_of_outbox(link.key, [link.storage])
        if not storages or not self._stat(link, link.storage):
            raise AttachmentGone()
        self.locks.clear(link.key)

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
        """Give a link the id of a shared link; None if it was dropped in the meantime."""
        if not link.shared:
            if not self._rows.delete(link.parent, link.id):
                return None
            link = replace(link, shared=True)
            self._put(link)
        return link

    def _stat(self, link: Link, storage: str) -> FileStat | None:
        """The metadata of a file in a storage; None unless it exists with the right size."""
        try:
            stat = self.storages[storage].files.stat(link.key)
        except FileNotFound:
            return None
        return stat if stat.size == link.size else None

    def _take_out_of_outbox(self, key: str, known_in: Sequence[str]) -> Sequence[str]:
        """Take a file without links out of the outbox.

        :returns: the storages that may have it; none if the file is being deleted or is unknown.
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
    """A link to a file that has other links, with their data about the file.

    A hold belongs to a record, so only that record's earlier link to the file provides it.
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
