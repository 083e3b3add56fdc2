"""Removing the attachment of a record by a command."""

from __future__ import annotations

from kinto_attachment.files.command_writes import update, writing
from kinto_attachment.files.stored_records import stored_record
from kinto_attachment.index.link import Link
from kinto_attachment.kinto_types import Registry, Request
from kinto_attachment.metadata import FIELD
from kinto_attachment.uris import RecordURI


def detach(registry: Registry, link: Link) -> bool:
    """Remove the current file from its record, like a DELETE; False if it was already removed.

    All listeners are notified of the change, as of that of an anonymous request.

    :raises AttachmentGone: in the meantime, the record got another file or was deleted.
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
