"""A reader becomes a stored file and the attachment object that describes it, in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from kinto_attachment import names
from kinto_attachment.context import RecordContext
from kinto_attachment.errors import FileNotAllowed, KeyTaken
from kinto_attachment.ledger import Ledger, NewFile
from kinto_attachment.links import Links
from kinto_attachment.locations import location_of
from kinto_attachment.metadata import Attachment, Original
from kinto_attachment.settings import Scope
from kinto_attachment.storage import FileStorage
from kinto_attachment.streams import (
    ClaimedDigests,
    GzipReader,
    HashingReader,
    LimitedReader,
    Reader,
)
from kinto_attachment.transactions import separate_transaction


@dataclass(frozen=True)
class IncomingFile:
    """A file as a client sends it; ``claims`` are the digests that it says the bytes have."""

    filename: str
    declared_type: str | None
    reader: Reader
    claims: ClaimedDigests


def store(request: Any, incoming: IncomingFile) -> Attachment:
    """Check, hash, count and store a file while it comes in.

    From here on the file is in the request's ledger: unless a record is linked to it when the
    request has ended, it is deleted again.

    :raises InvalidForm, FileNotAllowed, TooLarge, DigestMismatch, StorageError: nothing is kept.
    """
    scope = _scope(request)
    filename = names.clean_filename(incoming.filename)
    storage: FileStorage = request.registry.attachment_storage
    if not storage.filename_allowed(filename, scope.extensions):
        raise FileNotAllowed()
    mimetype = names.mimetype(filename, incoming.declared_type, scope.mimetypes)
    limited = LimitedReader(incoming.reader, scope.max_size)
    sent = HashingReader(limited, incoming.claims.algorithms)
    if not scope.gzipped:
        key = _write(request, scope, filename, mimetype, sent)
        attachment = _attachment(request, key, filename, mimetype, sent)
    else:
        packed = HashingReader(GzipReader(sent))
        packed_name, packed_type = names.fitting(filename, ".gz"), "application/gzip"
        key = _write(request, scope, packed_name, packed_type, packed)
        original = Original(filename, sent.sha256, mimetype, sent.size)
        attachment = _attachment(request, key, packed_name, packed_type, packed, original)
    incoming.claims.check(sent)
    request.registry.metrics.count("attachments.bytes_in", sent.size)
    return attachment


def served_as(scope: Scope, filename: str, mimetype: str) -> str:
    """The ``Content-Disposition`` of a file: shown in place only if that runs nothing."""
    media_type = mimetype.partition(";")[0].strip().lower()
    wildcard = f"{media_type.partition('/')[0]}/*"
    inline = media_type in scope.inline_types or wildcard in scope.inline_types
    return names.content_disposition(filename, "inline" if inline else "attachment")


def _scope(request: Any) -> Scope:
    context: RecordContext = request.context
    scope: Scope = request.registry.attachment_scopes.of(
        request, context.bucket_id, context.collection_id
    )
    return scope


def _attachment(
    request: Any,
    key: str,
    filename: str,
    mimetype: str,
    stored: HashingReader,
    original: Original | None = None,
) -> Attachment:
    location = location_of(request, request.registry.attachment_settings, key)
    attachment = Attachment(filename, stored.sha256, location, mimetype, stored.size, original)
    Ledger.of(request).new_files[key].attachment = attachment.to_json()
    return attachment


def _write(request: Any, scope: Scope, filename: str, mimetype: str, reader: HashingReader) -> str:
    key = (
        _random_key(request, scope, filename)
        if scope.randomize
        else _free_key(request, scope, filename)
    )
    request.registry.attachment_storage.write(
        key, reader, mimetype, disposition=served_as(scope, filename, mimetype)
    )
    Ledger.of(request).new_files[key] = NewFile(key, request.context.record_uri)
    return key


def _random_key(request: Any, scope: Scope, filename: str) -> str:
    return _folder(request, scope) + names.random_name(filename)


def _free_key(request: Any, scope: Scope, filename: str) -> str:
    """Reserve a key made of the client's filename, ``-1``, ``-2`` … added where it is taken.

    Reserved until the request has ended, so that two uploads of one name that are under way at
    the same time both find a place: the bytes can be read only once.
    """
    ledger = Ledger.of(request)
    links: Links = request.registry.attachment_links
    storage: FileStorage = request.registry.attachment_storage
    with separate_transaction(request):
        for key in _candidates(request, scope, filename):
            # Before it is claimed, too: uploads of a name that many files have would wait for
            # each other at every one of them.
            if storage.exists(key) or not links.reservations.claim(key):
                continue
            # A name in the outbox is not free either: its file is about to be deleted.
            if not storage.exists(key) and not links.outbox.entries(key):
                ledger.reserved.append(key)
                return key
            links.reservations.release(key)
    raise KeyTaken()


def _candidates(request: Any, scope: Scope, filename: str) -> Iterator[str]:
    now = datetime.now(timezone.utc)
    name = scope.filename_pattern.format(
        filename=filename,
        datetime=now.strftime("%Y%m%d%H%M%S"),
        rid=request.context.record_id,
    )
    folder = _folder(request, scope)
    return (folder + candidate for candidate in names.numbered(names.safe_name(name)))


def _folder(request: Any, scope: Scope) -> str:
    if scope.folder is None:
        return ""
    context: RecordContext = request.context
    folder = scope.folder.format(bucket_id=context.bucket_id, collection_id=context.collection_id)
    return folder.strip("/") + "/"
