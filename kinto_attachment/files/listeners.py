"""What Kinto tells us: records written or deleted, collections or buckets deleted, all flushed.

Only what is forged is refused here. What was changed is noted down, to be written to the index
when all other listeners of the request have done their work.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from kinto.core.events import ACTIONS
from kinto.core.utils import instance_uri

from kinto_attachment.files import guard
from kinto_attachment.files.changes import discard, write_links
from kinto_attachment.files.collection_settings import CollectionSettingsResolver
from kinto_attachment.files.events import AttachmentAdded, AttachmentRemoved, AttachmentReplaced
from kinto_attachment.files.ledger import Ledger, RecordChange, bucket_of, collection_of
from kinto_attachment.index.links import Links
from kinto_attachment.metadata import FIELD, same_json

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
    """Guard the metadata of created and updated records, and note what they point at."""
    for record, attachment in event.request.bound_data.pop(BEFORE, ()):
        record[FIELD] = attachment  # The event has this very object as the old one.
    guard.check(event)
    for impacted in event.impacted_objects:
        new, old = guard.before_and_after(impacted)
        change = _note(event, impacted, impacted["new"]["id"], old)
        change.new = new
        change.let_go |= new is None
        if not same_json(new, old):
            _announce(event, change.record, new, old)
    _write_now_if_nobody_will(event)


def on_records_deleted(event: Any) -> None:
    """Note the records that are deleted, however many at once."""
    for impacted in event.impacted_objects:
        old = impacted["old"].get(FIELD)
        change = _note(event, impacted, impacted["old"]["id"], old)
        change.new, change.deleted, change.let_go = None, True, True
        if old is not None:
            _announce(event, change.record, None, old)
    _write_now_if_nobody_will(event)


def on_collections_deleted(event: Any) -> None:
    for impacted in event.impacted_objects:
        uri = f"{bucket_of(event, impacted)}/collections/{impacted['old']['id']}"
        Ledger.of(event.request).emptied.append(uri)
    _write_now_if_nobody_will(event)


def on_buckets_created(event: Any) -> None:
    """Mark default buckets."""
    resolver: CollectionSettingsResolver = event.request.registry.attachment_collection_settings
    for impacted in event.impacted_objects:
        bucket_id = impacted["new"]["id"]
        if resolver.names_default and resolver.is_own(event.request, bucket_id):
            resolver.mark(bucket_id)


def before_bucket_deleted(event: Any) -> None:
    """Look whether it is a default bucket while its permissions tell."""
    request = event.request
    service = request.current_service
    if service is not None and service.name == "bucket-object" and request.method == "DELETE":
        request.registry.attachment_collection_settings.is_default(
            request, request.matchdict["id"]
        )


def on_buckets_deleted(event: Any) -> None:
    for impacted in event.impacted_objects:
        bucket_id = impacted["old"]["id"]
        uri = instance_uri(event.request, "bucket", id=bucket_id)
        Ledger.of(event.request).emptied.append(uri)
        resolver: CollectionSettingsResolver = (
            event.request.registry.attachment_collection_settings
        )
        if resolver.is_default(event.request, bucket_id):
            resolver.unmark(bucket_id)
    _write_now_if_nobody_will(event)


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
    request = event.request
    discard(request.registry, Ledger.of(request), request.bound_data.pop(FLUSHED, ()))


def _note(event: Any, impacted: Any, record_id: str, old: Any) -> RecordChange:
    """What has become of a record; the caller adds its new attachment."""
    record = f"{collection_of(event, impacted)}/records/{record_id}"
    changes = Ledger.of(event.request).changes
    if record not in changes:
        created = event.payload["action"] == ACTIONS.CREATE.value
        changes[record] = RecordChange(event.request, record, created=created, old=old)
    change = changes[record]
    if change.times:
        change.passed.append(change.new)
    change.times += 1
    change.deleted = False
    return change


def _announce(event: Any, record: str, new: Any, old: Any) -> None:
    request, ledger = event.request, Ledger.of(event.request)
    announced: object
    if new is None:
        announced = AttachmentRemoved(request, record, old)
    elif old is None:
        announced = AttachmentAdded(request, record, new)
    else:
        announced = AttachmentReplaced(request, record, new, old=old)
    ledger.when_committed(ledger.events, announced)


def _write_now_if_nobody_will(event: Any) -> None:
    """For events of requests that plugins make up, and that pass no tween."""
    ledger = Ledger.of(event.request)
    if not ledger.is_awaited:
        write_links(event.request.registry, ledger)
