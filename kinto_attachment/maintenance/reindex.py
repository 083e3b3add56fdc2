"""reindex: the links made again from the records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import transaction
from kinto.core.storage import Filter, Sort
from kinto.core.utils import COMPARISON

from kinto_attachment.errors import AttachmentGone
from kinto_attachment.files.locations import own_key
from kinto_attachment.index.links import Link, Links
from kinto_attachment.metadata import FIELD

RECORDS_AT_ONCE = 200


@dataclass
class Rebuilt:
    """What reindex did: how many links it made; URIs of records that it could not match."""

    records: int = 0
    linked: int = 0
    foreign: list[str] = field(default_factory=list)  # Their location is none of ours.
    missing: list[str] = field(default_factory=list)  # Their file is not there.


def reindex(
    registry: Any, *, progress: Callable[[str, int], None] = lambda step, count: None
) -> Rebuilt:
    """Link every record with an attachment of ours to its file, where no link is."""
    report = Rebuilt()
    for collection in _collections(registry):
        for page in _records(registry, collection):
            with transaction.manager:
                for record in page:
                    _relink(registry, f"{collection}/records/{record['id']}", record, report)
            progress("records checked", report.records)
    return report


def _relink(registry: Any, uri: str, record: dict[str, Any], report: Rebuilt) -> None:
    links: Links = registry.attachment_links
    report.records += 1
    attachment = record[FIELD]
    current = [link for link in links.of_record(uri) if link.state == "current"]
    if any(link.describes(attachment) for link in current):
        return
    key = own_key(registry.attachment_settings, registry.route_prefix, attachment)
    if key is None:
        report.foreign.append(uri)
        return
    try:
        links.share(Link.to(uri, key, attachment), is_known=True)
        report.linked += 1
    except AttachmentGone:
        report.missing.append(uri)


def _collections(registry: Any) -> Iterator[str]:
    with transaction.manager:
        buckets = list(_all(registry, "bucket", ""))
    for bucket in buckets:
        bucket_uri = f"/buckets/{bucket['id']}"
        with transaction.manager:
            collections = list(_all(registry, "collection", bucket_uri))
        for collection in collections:
            yield f"{bucket_uri}/collections/{collection['id']}"


def _records(registry: Any, collection: str) -> Iterator[list[dict[str, Any]]]:
    with_attachment = [
        Filter(FIELD, True, COMPARISON.HAS),
        Filter(FIELD, None, COMPARISON.NOT),
    ]
    records = _all(registry, "record", collection, filters=with_attachment)
    while True:
        with transaction.manager:
            page = list(islice(records, RECORDS_AT_ONCE))
        if not page:
            return
        yield page


def _all(
    registry: Any, resource_name: str, parent_id: str, filters: list[Any] | None = None
) -> Iterator[dict[str, Any]]:
    """All objects under a parent, whose timestamps are unique, read page by page."""
    rules: list[list[Filter]] = []
    while True:
        rows = registry.storage.list_all(
            resource_name=resource_name,
            parent_id=parent_id,
            filters=filters,
            sorting=[Sort("last_modified", 1)],
            pagination_rules=rules,
            limit=RECORDS_AT_ONCE,
        )
        yield from rows
        if len(rows) < RECORDS_AT_ONCE:
            return
        rules = [[Filter("last_modified", rows[-1]["last_modified"], COMPARISON.GT)]]
