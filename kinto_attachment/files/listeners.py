"""Subscribers to Kinto's events: writes and deletions of records, collections and buckets.

Changes of ``attachment`` that are not allowed are refused here. Everything else is collected in
the ledger, and written to the index when all other listeners of the request have run.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from kinto.core.events import ACTIONS
from kinto.core.utils import instance_uri, msec_time

from kinto_attachment.files import guard, held_events
from kinto_attachment.files.changes import write_links
from kinto_attachment.files.deletions import old_of
from kinto_attachment.files.events import AttachmentAdded, AttachmentRemoved, AttachmentReplaced
from kinto_attachment.files.holds import refuse_loss
from kinto_attachment.files.ledger import Ledger, RecordChange, bucket_of, collection_of
from kinto_attachment.files.link_steps import discard
from kinto_attachment.index.outbox import StoredFile
from kinto_attachment.kinto_types import Impacted, RequestEvent, ResourceEvent
from kinto_attachment.metadata import FIELD, same_json

BEFORE = "kinto_attachment.before"
FLUSHED = "kinto_attachment.flushed"


def before_merge_patch(event: RequestEvent) -> None:
    """Keep a copy of the attachment: Kinto merges patches (RFC 7396) into the old object."""
    if event.request.content_type != "application/merge-patch+json":
        return  # Before the context reads its object, which other requests may not need yet.
    record = getattr(event.request.context, "current_object", None)
    if record is not None and FIELD in record:
        remembered = event.request.bound_data.setdefault(BEFORE, [])
        remembered.append((record, deepcopy(record[FIELD])))


def on_records_changed(event: ResourceEvent) -> None:
    """Check the attachments of created and updated records, and collect the changes."""
    for record, attachment in event.request.bound_data.pop(BEFORE, ()):
        record[FIELD] = attachment  # The event has the same object as the old one.
    guard.check(event)
    held_events.refuse(event)
    for impacted in event.impacted_objects:
        new, old = guard.before_and_after(impacted)
        change = _collect(event, impacted, impacted["new"]["id"], old)
        change.new = new
        change.let_go |= new is None
        if not same_json(new, old):
            _announce(event, change.record, new, old)
    _write_unless_tween_does(event)


def on_records_deleted(event: ResourceEvent) -> None:
    """Collect the records that were deleted."""
    held_events.refuse(event)
    for impacted in event.impacted_objects:
        old = old_of(impacted).get(FIELD)
        change = _collect(event, impacted, impacted["new"]["id"], old)
        change.new, change.deleted, change.let_go = None, True, True
        change.ended = "record"
        # Kinto reorders the events of a batch: it may have been created after it was deleted.
        change.created = False
        if old is not None:
            _announce(event, change.record, None, old)
    _write_unless_tween_does(event)


def on_collections_deleted(event: ResourceEvent) -> None:
    held_events.refuse(event)
    for impacted in event.impacted_objects:
        uri = f"{bucket_of(event, impacted)}/collections/{impacted['new']['id']}"
        Ledger.of(event.request).deleted_parents.append(uri)
    _write_unless_tween_does(event)


def on_buckets_created(event: ResourceEvent) -> None:
    """Remember which buckets are default buckets."""
    resolver = event.request.registry.attachment_collection_settings
    for impacted in event.impacted_objects:
        bucket_id = impacted["new"]["id"]
        if resolver.names_default and resolver.is_own(event.request, bucket_id):
            resolver.remember(bucket_id)


def before_bucket_deleted(event: RequestEvent) -> None:
    """Check whether it is a default bucket while its permissions still exist."""
    request = event.request
    service = request.current_service
    if service is not None and service.name == "bucket-object" and request.method == "DELETE":
        request.registry.attachment_collection_settings.is_default(
            request, request.matchdict["id"]
        )


def on_buckets_deleted(event: ResourceEvent) -> None:
    held_events.refuse(event)
    for impacted in event.impacted_objects:
        bucket_id = impacted["new"]["id"]
        uri = instance_uri(event.request, "bucket", id=bucket_id)
        Ledger.of(event.request).deleted_parents.append(uri)
        resolver = event.request.registry.attachment_collection_settings
        if resolver.is_default(event.request, bucket_id):
            resolver.forget(bucket_id)
    _write_unless_tween_does(event)


def before_flush(event: RequestEvent) -> None:
    """Collect all keys before the links are gone: Kinto's event comes after the flush.

    :raises Held: a file is held.
    """
    request = event.request
    service = request.current_service
    if service is not None and service.name == "flush" and request.method == "POST":
        links = request.registry.attachment_links
        links.collections.wait_for_all()
        every = [link for page in links.under() for link in page]
        refuse_loss(request.registry, every, msec_time())
        readonly = {link.key: link for link in every if link.readonly}
        files = {StoredFile(link.storage, link.key) for link in every if not link.readonly}
        entries = links.outbox.entries()
        files.update(StoredFile(entry.storage, key) for entry in entries for key in entry.keys)
        spares = links.spares.all()
        files.update(StoredFile(each.storage, each.key) for each in spares if not each.readonly)
        site_rows = request.registry.attachment_site.rows()
        storages = links.used_storages.names()
        request.bound_data[FLUSHED] = files, [*readonly.values()], storages, site_rows


def on_server_flushed(event: RequestEvent) -> None:
    request = event.request
    files, readonly, used_storages, site_rows = request.bound_data.pop(FLUSHED, ((), (), (), ()))
    discard(request.registry, Ledger.of(request), files)
    request.registry.attachment_links.put_back(readonly)
    request.registry.attachment_links.used_storages.put_back(used_storages)
    request.registry.attachment_site.put_back(site_rows)


def _collect(event: ResourceEvent, impacted: Impacted, record_id: str, old: Any) -> RecordChange:
    """Add a change of a record to the ledger; the caller sets the new attachment."""
    record = f"{collection_of(event, impacted)}/records/{record_id}"
    changes = Ledger.of(event.request).changes
    if record not in changes:
        created = event.payload["action"] == ACTIONS.CREATE.value
        changes[record] = RecordChange(event.request, record, created=created, old=old)
    change = changes[record]
    if change.times:
        change.intermediate.append(change.new)
    change.times += 1
    change.deleted = False
    return change


def _announce(event: ResourceEvent, record: str, new: Any, old: Any) -> None:
    request, ledger = event.request, Ledger.of(event.request)
    announced: object
    if new is None:
        announced = AttachmentRemoved(request, record, old)
    elif old is None:
        announced = AttachmentAdded(request, record, new)
    else:
        announced = AttachmentReplaced(request, record, new, old=old)
    ledger.when_committed(ledger.events, announced)


def _write_unless_tween_does(event: ResourceEvent) -> None:
    """Write the links of requests that plugins construct, as these do not pass the tweens."""
    ledger = Ledger.of(event.request)
    if not ledger.written_by_tween:
        write_links(event.request.registry, ledger)
