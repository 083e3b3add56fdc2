"""reindex: creates missing links from the records, and completes those of earlier releases."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import transaction

from kinto_attachment.errors import AttachmentGone
from kinto_attachment.files.locations import own_files
from kinto_attachment.index.link import Link
from kinto_attachment.index.lives import Lives
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance import records
from kinto_attachment.maintenance.old_links import complete
from kinto_attachment.maintenance.reports import Progress, Report, no_progress
from kinto_attachment.metadata import FIELD


@dataclass
class ReindexReport(Report):
    """How many links reindex wrote, and the URIs of records that it could not match."""

    records: int = 0
    linked: int = 0
    completed: int = 0
    foreign: list[str] = field(default_factory=list)  # Their location is not one of this server.
    missing: list[str] = field(default_factory=list)  # Their file does not exist.
    claimed: int = 0  # Storages that belong to this database from now on.


def reindex(
    registry: Registry, *, claim: bool = False, progress: Progress = no_progress
) -> ReindexReport:
    """Link every record that has an attachment to its file, unless there is a link.

    Then complete the links that earlier releases wrote. With ``claim``, the storages belong to
    this database afterwards.

    :raises NotThisSite: the storages or the database cannot be claimed.
    """
    report = ReindexReport()
    total = records.count_with_attachment(registry)
    for collection in records.collections(registry):
        for page in records.with_attachment(registry, collection):
            with transaction.manager:
                for record in page:
                    _relink(registry, f"{collection}/records/{record['id']}", record, report)
            progress("records checked", report.records, total)
    report.completed = complete(registry, partial(progress, "links completed"))
    if claim:
        registry.attachment_site.claim()
        report.claimed = len(registry.attachment_storages)
    return report


def _relink(registry: Registry, uri: str, record: dict[str, Any], report: ReindexReport) -> None:
    links = registry.attachment_links
    report.records += 1
    attachment = record[FIELD]
    present = links.of_record(uri)
    if any(link.state == "current" and link.describes(attachment) for link in present):
        return
    life = Lives().of(uri, present)
    files = own_files(registry.attachment_settings, registry.route_prefix, attachment)
    for storage, key in files:
        # The one that has the file, where several storages may.
        with suppress(AttachmentGone):
            links.share(Link.to(uri, key, attachment, life=life), known_in=[storage])
            links.locks.clear(key)  # Records that share a file leave the row for the next of them.
            report.linked += 1
            return
    (report.missing if files else report.foreign).append(uri)
