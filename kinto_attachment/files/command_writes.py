"""Writing records by a command, which has no client and no request.

All listeners are notified of the changes, as of those of an anonymous request.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import transaction

from kinto_attachment.files.guard import allow_metadata_changes
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.own_requests import request_about
from kinto_attachment.files.own_writes import note_change, notify
from kinto_attachment.files.settling import settle
from kinto_attachment.kinto_types import KintoObject, Registry, Request
from kinto_attachment.uris import RecordURI


@contextmanager
def writing(registry: Registry, uri: RecordURI) -> Iterator[Request]:
    """A transaction and a request about a record, to change records of its collection.

    :raises AttachmentGone: in the meantime, a record got another file or was deleted.
    """
    request = request_about(registry, str(uri))
    try:
        with transaction.manager:
            yield request
            notify(request)
    finally:
        settle(registry, Ledger.of(request))
    notify(request, after_commit=True)


def update(request: Request, old: KintoObject, new: KintoObject, *, key: str) -> None:
    """Write a record of the request's collection whose file has had this key so far."""
    uri = RecordURI.parse(f"{_collection_of(request)}/records/{old['id']}")
    # Whether this is still the record's file is checked again when the record is locked.
    Ledger.of(request).expected[str(uri)] = key
    without_timestamp = {name: new[name] for name in new if name != "last_modified"}
    storage = request.registry.storage
    written = storage.update("record", uri.collection, uri.record_id, without_timestamp)
    with allow_metadata_changes(request):
        note_change(request, "record", uri.collection, written, old)


def _collection_of(request: Request) -> str:
    ids = request.matchdict
    return f"/buckets/{ids['bucket_id']}/collections/{ids['collection_id']}"
