"""The options and the report of gc."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import timedelta

from kinto_attachment.maintenance.application import reason
from kinto_attachment.maintenance.reports import Report
from kinto_attachment.maintenance.shards import Shard

logger = logging.getLogger(__name__)


@dataclass
class GcReport(Report):
    """The findings of gc by kind: object keys, or URIs of records where a comment says so."""

    finished: list[str] = field(default_factory=list)  # In the outbox, waiting to be deleted.
    spare: list[str] = field(default_factory=list)  # Copies that moves have left behind.
    orphaned: list[str] = field(default_factory=list)  # Without a record for a short time.
    unlinked: list[str] = field(default_factory=list)  # Stored, but without a record.
    unfinished: list[str] = field(default_factory=list)  # Left behind by writes of dead processes.
    uploads: list[str] = field(default_factory=list)  # Sessions that have expired, or ended.
    dangling: list[str] = field(default_factory=list)  # URIs of records, deleted or changed.
    expired: list[str] = field(default_factory=list)  # Kept for longer than kept_max_age.
    detached: list[str] = field(default_factory=list)  # URIs of records: files beyond max_age.
    missing: list[str] = field(default_factory=list)  # URIs of records whose file is missing.
    errors: list[str] = field(default_factory=list)
    scanned: int = 0
    freed: int = 0  # Bytes.

    def failed(self, what: str, error: Exception) -> None:
        logger.error("gc: %s: %s", what, reason(error), exc_info=error)
        self.errors.append(f"{what}: {reason(error)}")


@dataclass(frozen=True)
class Options:
    """The options of a gc."""

    grace: timedelta
    orphan_age: timedelta
    dry_run: bool
    really: bool
    shard: Shard
    pause: timedelta
