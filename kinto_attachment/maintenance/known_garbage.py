"""Garbage that gc can remove without checking records."""

from __future__ import annotations

import transaction
from kinto.core.utils import msec_time

from kinto_attachment.maintenance.deletions import LET_GO, Deletions
from kinto_attachment.maintenance.old_sessions import OldSessions
from kinto_attachment.maintenance.own_names import OwnNames
from kinto_attachment.maintenance.remains import Remains
from kinto_attachment.maintenance.reports import Progress
from kinto_attachment.maintenance.shards import Shard
from kinto_attachment.maintenance.spare_copies import SpareCopies
from kinto_attachment.storage import ListsUnfinished
from kinto_attachment.storage.storages import Storage


class KnownGarbage:
    """The known garbage of a shard, in the storages of ``deletions``."""

    def __init__(
        self, deletions: Deletions, own: OwnNames, shard: Shard, progress: Progress
    ) -> None:
        self.registry = deletions.registry
        self.report = deletions.report
        self.deletions = deletions
        self.own = own
        self.shard = shard
        self.progress = progress
        self.remains = Remains(self.registry, own, shard)

    def empty_outbox(self, storage: str) -> None:
        """Delete the files of a storage that committed transactions have entered in the outbox."""
        outbox = self.registry.attachment_links.outbox
        done: set[str] = set()
        while True:
            with transaction.manager:
                waiting = outbox.entries(storage=storage)
            now = msec_time()
            entries = [entry for entry in waiting if entry.id not in done and entry.due <= now]
            if not entries:
                return
            for entry in entries:
                done.add(entry.id)
                if self.shard.has(entry.id) and self.deletions.files_of(entry, LET_GO):
                    self.report.finished += entry.keys
                    self.progress("deletions finished", len(self.report.finished))

    def remove_spares(self, storage: str) -> None:
        """Delete the copies of moved files, unless a running move needs them."""
        spares = self.registry.attachment_links.spares
        copies = SpareCopies(self.registry, self.own.owner, abandoned=self.own.abandoned)
        before, now = int(self.own.before.timestamp() * 1000), msec_time()
        for page in self.shard.spares(spares, storage):
            old = [
                spare
                for spare in page
                if spare.since < before and spare.due <= now and not spare.readonly
            ]
            if self.deletions.dry_run:
                continue
            deleted = copies.settle(old).deleted
            self.deletions.spares(storage, deleted)
            self.report.spare += deleted

    def remove_old_sessions(self) -> None:
        """Remove the stored bytes of uploads in several requests that have ended.

        Before, the bytes belong to the upload, whatever their age.
        """
        storages, dry_run = self.deletions.storages, self.deletions.dry_run
        old = OldSessions(self.registry, storages, self.shard, dry_run=dry_run)
        for session, is_removed in old.remove():
            if is_removed:
                # An upload that received no bytes at the server's URL has no key.
                self.report.uploads.append(session.key or session.record)
            else:
                self.report.errors.append(f"not removed: what an upload has left: {session.key}")

    def remove_unfinished(self, storage: Storage) -> None:
        """Remove the remains of unfinished writes."""
        files = storage.files
        if not isinstance(files, ListsUnfinished):
            return
        for remains in self.remains.in_storage(files):
            if not self.deletions.remains(storage.name, remains):
                continue
            self.report.unfinished.append(remains.key)
            self.report.freed += remains.size
            self.progress("remains removed", len(self.report.unfinished))
