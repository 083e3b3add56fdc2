"""Removing the attachment of a record by a command, which has no client and no request."""

from __future__ import annotations

import transaction
from kinto.core.events import ACTIONS, notify_resource_event

from kinto_attachment.files.guard import allow_metadata_changes
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.own_requests import request_about
from kinto_attachment.files.settling import settle
from kinto_attachment.files.stored_records import stored_record
from kinto_attachment.index.link import Link
from kinto_attachment.kinto_types import Registry, Request
from kinto_attachment.metadata import FIELD
from kinto_attachment.uris import RecordURI


def detach(registry: Registry, link: Link) -> bool:
    """Remove a current file from its record, as a DELETE does; False if it is not there any more.

    The change is notified to all listeners, as that of a request without a user.

    :raises AttachmentGone: the record has got another file, or was deleted, in the meantime.
    """
    request = request_about(registry, link.record)
    try:
        with transaction.manager:
            is_done = _write(request, link)
    finally:
        settle(registry, Ledger.of(request))
    for event in request.get_resource_events(after_commit=True) if is_done else ():
        registry.notify(event)
    return is_done


def _write(request: Request, link: Link) -> bool:
    registry, uri = request.registry, RecordURI.parse(link.record)
    old = stored_record(registry, link.record)
    if old is None or not link.describes(old.get(FIELD)):
        return False
    # Whether it is still the record's file is asked again when the record is locked.
    Ledger.of(request).detached[link.record] = link.key
    rules = registry.attachment_collection_settings.of(request, uri.bucket_id, uri.collection_id)
    new = {name: value for name, value in old.items() if name not in (FIELD, "last_modified")}
    if rules.delete_on_omission:
        new[FIELD] = None
    written = registry.storage.update("record", uri.collection, uri.record_id, new)
    with allow_metadata_changes(request):
        notify_resource_event(
            request,
            uri.collection,
            written["last_modified"],
            written,
            ACTIONS.UPDATE,
            old=old,
            resource_name="record",
        )
    for event in request.get_resource_events():
        registry.notify(event)
    return True
