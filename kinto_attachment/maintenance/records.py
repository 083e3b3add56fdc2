"""The records of all collections, read page by page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import transaction
from kinto.core.storage import Filter, Sort
from kinto.core.utils import COMPARISON

from kinto_attachment.index.objects import batches
from kinto_attachment.kinto_types import KintoObject, Registry
from kinto_attachment.metadata import FIELD
from kinto_attachment.uris import CollectionURI

RECORDS_AT_ONCE = 200
HAS_ATTACHMENT = (Filter(FIELD, True, COMPARISON.HAS), Filter(FIELD, None, COMPARISON.NOT))


def collections(registry: Registry) -> Iterator[CollectionURI]:
    """The URIs of all collections."""
    return (uri for uri, _ in collections_with_data(registry))


def collections_with_data(registry: Registry) -> Iterator[tuple[CollectionURI, KintoObject]]:
    """The same with their attributes."""
    with transaction.manager:
        buckets = list(_all(registry, "bucket", ""))
    for bucket in buckets:
        bucket_uri = f"/buckets/{bucket['id']}"
        with transaction.manager:
            collections = list(_all(registry, "collection", bucket_uri))
        for collection in collections:
            yield CollectionURI(bucket["id"], collection["id"]), collection


def with_attachment(
    registry: Registry, collection: CollectionURI, *more: Filter
) -> Iterator[list[dict[str, Any]]]:
    """The records of a collection that have an attachment, each page in its own transaction.

    ``more`` are additional filters.
    """
    records = _all(registry, "record", str(collection), filters=[*HAS_ATTACHMENT, *more])
    while True:
        with transaction.manager:
            page = list(islice(records, RECORDS_AT_ONCE))
        if not page:
            return
        yield page


def pages_with_attachment(registry: Registry) -> Iterator[dict[str, KintoObject]]:
    """The same records of all collections, by URI."""
    for collection in collections(registry):
        for page in with_attachment(registry, collection):
            yield {f"{collection.records}{record['id']}": record for record in page}


def by_uri(registry: Registry, uris: Iterable[str]) -> dict[str, KintoObject | None]:
    """The records with these URIs, in the caller's transaction; None for deleted ones."""
    found: dict[str, KintoObject | None] = dict.fromkeys(uris)
    by_collection = defaultdict(set)
    for uri in found:
        collection, _, object_id = uri.rpartition("/records/")
        by_collection[collection].add(object_id)
    for collection, ids in by_collection.items():
        for batch in batches(ids):
            rows = registry.storage.list_all(
                resource_name="record",
                parent_id=collection,
                filters=[Filter("id", set(batch), COMPARISON.IN)],
            )
            found |= {f"{collection}/records/{row['id']}": row for row in rows}
    return found


def count_with_attachment(registry: Registry) -> int:
    """The number of records with an attachment in all collections."""
    with transaction.manager:
        count: int = registry.storage.count_all(
            resource_name="record", parent_id="/buckets/*", filters=[*HAS_ATTACHMENT]
        )
    return count


def _all(
    registry: Registry, resource_name: str, parent_id: str, filters: list[Filter] | None = None
) -> Iterator[dict[str, Any]]:
    """All objects under a parent, page by page, by their timestamps, which are unique."""
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
