"""The deletions of gc. Each file has a line in the log with the reason."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from kinto_attachment.errors import StorageError
from kinto_attachment.files.settling import delete_garbage
from kinto_attachment.index.outbox import Garbage
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.collection import GcReport
from kinto_attachment.storage import ListsUnfinished, Unfinished
from kinto_attachment.storage.storages import Storage

logger = logging.getLogger(__name__)

# The reasons.
LET_GO = "a committed request has replaced or deleted it"
DANGLING = "the record that its link names has another attachment, or is gone"
UNLINKED = "no record has it"
EXPIRED = "it was kept for as long as kept_max_age says"
UNFINISHED = "an upload that was not finished"
SPARE = "a copy of a file that was moved to another storage"


class Deletions:
    """Deletes files in some storages; a dry run only logs them."""

    def __init__(
        self,
        registry: Registry,
        storages: Mapping[str, Storage],
        report: GcReport,
        *,
        dry_run: bool,
    ) -> None:
        self.registry = registry
        self.storages = storages
        self.report = report
        self.dry_run = dry_run

    def files_of(self, entry: Garbage, why: str) -> bool:
        """Delete what an entry of the outbox names; False if that failed, which is reported.

        The entry is then still there, for the next run.
        """
        if self.dry_run:
            return True
        try:
            for key in delete_garbage(self.registry, entry) or ():
                self._log(entry.storage, key, why)
        except StorageError as error:
            more = f" and {len(entry.keys) - 3:,} more" if len(entry.keys) > 3 else ""
            self.report.failed(f"not deleted: {', '.join(entry.keys[:3])}{more}", error)
            return False
        return True

    def remains(self, storage: str, remains: Unfinished) -> bool:
        """Delete the remains of an unfinished write; False if that failed, which is reported."""
        files = self.storages[storage].files
        if self.dry_run or not isinstance(files, ListsUnfinished):
            return True
        try:
            files.discard_unfinished(remains)
        except StorageError as error:
            self.report.failed(f"not deleted: remains of {remains.key}", error)
            return False
        self._log(storage, remains.key, UNFINISHED)
        return True

    def spares(self, storage: str, keys: Iterable[str]) -> None:
        """Report the deletion of copies."""
        for key in keys:
            self._log(storage, key, SPARE)

    def _log(self, storage: str, key: str, why: str) -> None:
        title = self.storages[storage].title
        logger.info("gc: deleted %s from the storage %s: %s", key, title, why)
