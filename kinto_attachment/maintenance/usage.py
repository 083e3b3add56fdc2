"""usage: counts files and bytes by bucket, collection, storage and state."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

from kinto_attachment.index.link import Link
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.counters import quotas
from kinto_attachment.maintenance.reports import Progress, Report, no_progress
from kinto_attachment.maintenance.selection import EVERYTHING, Seen, Selection
from kinto_attachment.storage.storages import Storages
from kinto_attachment.uris import RecordURI


@dataclass
class Sum:
    """A shared file counts once per record."""

    files: int = 0
    bytes: int = 0

    def add(self, link: Link) -> None:
        self.files += 1
        self.bytes += link.size


@dataclass
class UsageReport(Report):
    """``collections`` has the sum of each combination; the other fields are totals.

    ``stored`` counts each file once, even if several records share it.
    """

    files: int = 0
    bytes: int = 0
    stored: dict[str, int] = field(default_factory=dict)
    buckets: dict[str, dict[str, int]] = field(default_factory=dict)
    storages: dict[str, dict[str, int]] = field(default_factory=dict)
    states: dict[str, dict[str, int]] = field(default_factory=dict)
    # The counters of buckets and collections with a quota.
    quotas: list[dict[str, Any]] = field(default_factory=list)
    collections: list[dict[str, str | int]] = field(default_factory=list)

    for_information = ("collections", "quotas")


def usage(
    registry: Registry,
    selection: Selection = EVERYTHING,
    *,
    progress: Progress = no_progress,
) -> UsageReport:
    """Read the selected links."""
    by_place: dict[tuple[str, str, str, str], Sum] = defaultdict(Sum)
    stored, seen = Sum(), Seen()
    count = 0
    for page in selection.pages(registry.attachment_links):
        for link in page:
            uri = RecordURI.parse(link.record)
            place = (uri.bucket_id, uri.collection_id, link.storage, link.state)
            by_place[place].add(link)
            if seen.is_first(link):
                stored.add(link)
        count += len(page)
        progress("links read", count)
    report = _report(by_place, stored, registry.attachment_storages)
    report.quotas = quotas(registry, selection.bucket, selection.collection)
    return report


def _report(
    by_place: dict[tuple[str, str, str, str], Sum], stored: Sum, storages: Storages
) -> UsageReport:
    report = UsageReport(stored=asdict(stored))
    for (bucket, collection, storage, state), found in sorted(by_place.items()):
        known = storages.get(storage)
        title = known.title if known else storage
        names = {"bucket": bucket, "collection": collection, "storage": title, "state": state}
        report.collections.append({**names, **asdict(found)})
        report.files += found.files
        report.bytes += found.bytes
        for totals, name in (
            (report.buckets, bucket),
            (report.storages, title),
            (report.states, state),
        ):
            total = totals.setdefault(name, asdict(Sum()))
            total["files"] += found.files
            total["bytes"] += found.bytes
    return report
