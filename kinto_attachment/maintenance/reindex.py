"""reindex: creates missing links from the records, and completes those of earlier releases."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance import records
from kinto_attachment.maintenance.counters import recount
from kinto_attachment.maintenance.linking import FOREIGN, NO_HASH, Placed, Placer, by_location
from kinto_attachment.maintenance.old_links import complete
from kinto_attachment.maintenance.reports import Progress, Report, no_progress


@dataclass
class ReindexReport(Report):
    """The numbers of links that reindex wrote, and the URIs of records without a match."""

    records: int = 0
    linked: int = 0
    completed: int = 0
    recounted: int = 0  # Counters of quotas that were wrong.
    foreign: list[str] = field(default_factory=list)  # Their location is on another server.
    missing: list[str] = field(default_factory=list)  # Their file does not exist.
    claimed: int = 0  # Storages that now belong to this database.

    def count(self, placed: Placed) -> None:
        if placed.reason:
            is_foreign = placed.reason in (FOREIGN, NO_HASH)
            (self.foreign if is_foreign else self.missing).append(placed.record)
        self.linked += placed.is_new


def reindex(
    registry: Registry, *, claim: bool = False, progress: Progress = no_progress
) -> ReindexReport:
    """Link every record that has an attachment to its file, unless there is a link.

    Then complete the links that earlier releases wrote, and correct the counters of quotas. With
    ``claim``, the storages belong to this database afterwards.

    :raises NotThisSite: the storages or the database cannot be claimed.
    """
    report = ReindexReport()
    total = records.count_with_attachment(registry)
    with Placer(registry, by_location(registry)) as placer:
        for page in records.pages_with_attachment(registry):
            for placed in placer.place(page):
                report.count(placed)
            report.records += len(page)
            progress("records checked", report.records, total)
    report.completed = complete(registry, partial(progress, "links completed"))
    report.recounted = recount(registry, partial(progress, "counters checked"))
    if claim:
        registry.attachment_site.claim()
        report.claimed = len(registry.attachment_storages)
    return report
