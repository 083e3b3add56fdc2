"""What Kinto tells us: records written or deleted, collections or buckets deleted, all flushed."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from kinto.core.utils import instance_uri

from kinto_attachment import guard
from kinto_attachment.changes import Change, collection_uri, discard, retire
from kinto_attachment.events import AttachmentRemoved
from kinto_attachment.links import Link, Links
from kinto_attachment.metadata import FIELD
from kinto_attachment.settings import Settings
from kinto_attachment.transactions import Ledger

BEFORE = "kinto_attachment.before"
FLUSHED = "kinto_attachment.flushed"


def before_merge_patch(event: Any) -> None:
    """Remember an attachment: Kinto merges a patch (RFC 7396) into the old object in place."""
    record = getattr(event.request.context, "current_object", None)
    patches = event.request.content_type == "application/merge-patch+json"
    if patches and record is not None and FIELD in record:
        remembered = event.request.bound_data.setdefault(BEFORE, [])
        remembered.append((record, deepcopy(record[FIELD])))


def on_records_changed(event: Any) -> None:
    """Guard the metadata, and link, relink or unlink the files of created and updated records."""
    for record, attachment in event.request.bound_data.pop(BEFORE, ()):
        record[FIELD] = attachment  # The event has this very object as the old one.
    guard.check(event)
    written: set[str] = set()
    for impacted in event.impacted_objects:
        new, old = guard.before_and_after(impacted)
        change = Change(event, impacted["new"]["id"])
        if new != old:
            change.apply(new, old)
        elif change.record not in written:  # From the first write on, nobody else can write it.
            change.check(new)
        written.add(change.record)


def on_records_deleted(event: Any) -> None:
    """Drop the files of deleted records, however many were deleted at once."""
    request = event.request
    registry = request.registry
    ids = [impacted["old"]["id"] for impacted in event.impacted_objects]
    scope = registry.attachment_settings.for_collection(
        event.payload["bucket_id"], event.payload["collection_id"]
    )
    links = registry.attachment_links.of_records(collection_uri(event), ids)
    retire(request, links, keep=scope.keep_old_files)
    ledger = Ledger.of(request)
    for impacted in event.impacted_objects:
        attachment = impacted["old"].get(FIELD)
        if attachment is not None:
            uri = f"{collection_uri(event)}/records/{impacted['old']['id']}"
            removed = AttachmentRemoved(request, uri, attachment)
            ledger.when_committed(ledger.events, removed)


def on_collections_deleted(event: Any) -> None:
    bucket_id = event.payload["bucket_id"]
    for impacted in event.impacted_objects:
        object_id = impacted["old"]["id"]
        uri = instance_uri(event.request, "collection", bucket_id=bucket_id, id=object_id)
        _retire_below(event.request, uri)


def on_buckets_deleted(event: Any) -> None:
    for impacted in event.impacted_objects:
        uri = instance_uri(event.request, "bucket", id=impacted["old"]["id"])
        _retire_below(event.request, uri)


def before_flush(event: Any) -> None:
    """Remember the files while there are links: Kinto tells of a flush only once it is done."""
    request = event.request
    service = request.current_service
    if service is not None and service.name == "flush" and request.method == "POST":
        links: Links = request.registry.attachment_links
        keys = {link.key for page in links.under() for link in page}
        keys.update(key for entry in links.outbox.entries() for key in entry.keys)
        request.bound_data[FLUSHED] = keys


def on_server_flushed(event: Any) -> None:
    discard(event.request, event.request.bound_data.pop(FLUSHED, ()))


def _retire_below(request: Any, uri: str) -> None:
    """Retire all links of records below a bucket or collection."""
    # All in one, so that the storage is asked to delete as many files at once as it can.
    discard(request, _drop_below(request.registry, uri))
    _delete_records_below(request.registry, uri)


def _delete_records_below(registry: Any, uri: str) -> None:
    """Delete all records, where Kinto goes on to delete as many objects as one query gives.

    The others would come back, without their files, with a bucket or collection of that name.
    """
    limit = registry.attachment_links.page_size
    for parent_id in (uri, f"{uri}/*"):
        while limit <= len(
            registry.storage.delete_all(
                resource_name="record", parent_id=parent_id, with_deleted=False
            )
        ):
            pass


def _drop_below(registry: Any, uri: str) -> Iterator[str]:
    links: Links = registry.attachment_links
    for page in links.under(f"{uri}/"):
        dropped = []
        for link in page:
            if _keeps(registry.attachment_settings, link):
                links.keep(link)
            else:
                dropped.append(link)
        yield from links.drop(dropped)


def _keeps(settings: Settings, link: Link) -> bool:
    _, _, bucket_id, _, collection_id, *_ = link.record.split("/")
    return settings.for_collection(bucket_id, collection_id).keep_old_files
