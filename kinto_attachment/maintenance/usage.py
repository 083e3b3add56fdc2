"""usage: how many files and bytes there are, by bucket, collection, storage and state."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

from kinto_attachment.index.link import Link
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.counters import quotas
from kinto_attachment.maintenance.reports import Progress, Report, no_progress
from kinto_attachment.maintenance.shards import WHOLE, Shard
from kinto_attachment.storage.storages import Storages
from kinto_attachment.uris import RecordURI


@dataclass
class Sum:
    """Each record's file counts, also where several records share one."""

    files: int = 0
    bytes: int = 0

    def add(self, link: Link) -> None:
        self.files += 1
        self.bytes += link.size


@dataclass
class UsageReport(Report):
    """``collections`` have the sum of each combination; the others are totals of them.

    ``stored`` counts each file once, however many records share it.
    """

    files: int = 0
    bytes: int = 0
    stored: dict[str, int] = field(default_factory=dict)
    buckets: dict[str, dict[str, int]] = field(default_factory=dict)
    storages: dict[str, dict[str, int]] = field(default_factory=dict)
    states: dict[str, dict[str, int]] = field(default_factory=dict)
    # Buckets and collections with a quota: what their counters say.
    quotas: list[dict[str, Any]] = field(default_factory=list)
    collections: list[dict[str, str | int]] = field(default_factory=list)

    for_information = ("collections", "quotas")


def usage(
    registry: Registry,
    *,
    bucket: str | None = None,
    collection: str | None = None,
    storage: str | None = None,
    shard: Shard = WHOLE,
    progress: Progress = no_progress,
) -> UsageReport:
    """Read all links, or those below a bucket or a collection, or of one storage or shard."""
    by_place: dict[tuple[str, str, str, str], Sum] = defaultdict(Sum)
    stored, shared = Sum(), set[bytes]()
    count = 0
    prefix = _prefix(bucket, collection)
    for page in shard.pages(registry.attachment_links, prefix):
        for link in page:
            uri = RecordURI.parse(link.record)
            is_wanted = collection in (None, uri.collection_id)
            if is_wanted and storage in (None, link.storage):
                place = (uri.bucket_id, uri.collection_id, link.storage, link.state)
                by_place[place].add(link)
                # All links of a file that several records have are marked.
                if not link.shared or _is_first(link, shared):
                    stored.add(link)
        count += len(page)
        progress("links read", count)
    report = _report(by_place, stored, registry.attachment_storages)
    report.quotas = quotas(registry, bucket, collection)
    return report


def _prefix(bucket: str | None, collection: str | None) -> str:
    if bucket is None:
        return ""
    return f"/buckets/{bucket}/" + (f"collections/{collection}/" if collection else "")


def _is_first(link: Link, seen: set[bytes]) -> bool:
    digest = bytes.fromhex(link.version)[:8]
    is_first = digest not in seen
    seen.add(digest)
    return is_first


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
