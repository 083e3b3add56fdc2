"""Removing the attachment of a record by a command."""

from __future__ import annotations

from kinto_attachment.files.command_writes import update, writing
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
    with writing(registry, RecordURI.parse(link.record)) as request:
        return _write(request, link)


def _write(request: Request, link: Link) -> bool:
    registry, uri = request.registry, RecordURI.parse(link.record)
    old = stored_record(registry, link.record)
    if old is None or not link.describes(old.get(FIELD)):
        return False
    rules = registry.attachment_collection_settings.of(request, uri.bucket_id, uri.collection_id)
    new = {name: value for name, value in old.items() if name != FIELD}
    if rules.delete_on_omission:
        new[FIELD] = None
    update(request, old, new, key=link.key)
    return True
