"""Storing an incoming file, and describing it as an attachment object, in one pass."""

from __future__ import annotations

from dataclasses import dataclass

from kinto_attachment import names
from kinto_attachment.errors import FileNotAllowed
from kinto_attachment.files.keys import new_key
from kinto_attachment.files.ledger import Ledger, NewFile
from kinto_attachment.files.locations import location_of
from kinto_attachment.http.streams import (
    ClaimedDigests,
    GzipReader,
    HashingReader,
    LimitedReader,
    Reader,
)
from kinto_attachment.kinto_types import Request
from kinto_attachment.metadata import Attachment, Original
from kinto_attachment.settings import CollectionSettings
from kinto_attachment.storage.storages import Storage, metric_of


@dataclass(frozen=True)
class IncomingFile:
    """A file as a client sends it; ``claims`` are the digests that the client claims."""

    filename: str
    declared_type: str | None
    reader: Reader
    claims: ClaimedDigests


def store(request: Request, incoming: IncomingFile) -> Attachment:
    """Check, hash, count and store a file while it arrives.

    The file is entered in the request's ledger: it is deleted again unless a record is linked to
    it when the request has ended.

    :raises InvalidForm, FileNotAllowed, TooLarge, DigestMismatch, StorageError: the file
        does not stay stored.
    """
    rules = rules_of(request)
    filename = names.clean_filename(incoming.filename)
    storage = request.registry.attachment_storages[rules.storage]
    if not storage.files.filename_allowed(filename, rules.extensions):
        raise FileNotAllowed()
    mimetype = names.mimetype(filename, incoming.declared_type, rules.mimetypes)
    limited = LimitedReader(incoming.reader, rules.max_size)
    sent = HashingReader(limited, incoming.claims.algorithms)
    if not rules.gzipped:
        key = _write(request, rules, storage, filename, mimetype, sent)
        attachment = _attachment(request, storage, key, filename, mimetype, sent)
    else:
        packed = HashingReader(GzipReader(sent))
        packed_name, packed_type = names.shortened(filename, ".gz"), "application/gzip"
        key = _write(request, rules, storage, packed_name, packed_type, packed)
        original = Original(filename, sent.sha256, mimetype, sent.size)
        attachment = _attachment(request, storage, key, packed_name, packed_type, packed, original)
    incoming.claims.check(sent)
    metrics = request.registry.metrics
    metrics.count(metric_of(storage.name, "attachments.bytes_in"), sent.size)
    return attachment


def disposition_of(rules: CollectionSettings, filename: str, mimetype: str) -> str:
    """The ``Content-Disposition`` of a file: ``inline`` for the configured types only."""
    media_type = mimetype.partition(";")[0].strip().lower()
    wildcard = f"{media_type.partition('/')[0]}/*"
    inline = media_type in rules.inline_types or wildcard in rules.inline_types
    return names.content_disposition(filename, "inline" if inline else "attachment")


def rules_of(request: Request) -> CollectionSettings:
    """The settings for the collection of a request's record."""
    uri = request.context.uri
    resolver = request.registry.attachment_collection_settings
    return resolver.of(request, uri.bucket_id, uri.collection_id)


def _attachment(
    request: Request,
    storage: Storage,
    key: str,
    filename: str,
    mimetype: str,
    stored: HashingReader,
    original: Original | None = None,
) -> Attachment:
    location = location_of(request, storage, key)
    attachment = Attachment(filename, stored.sha256, location, mimetype, stored.size, original)
    Ledger.of(request).new_files[key].attachment = attachment.to_json()
    return attachment


def _write(
    request: Request,
    rules: CollectionSettings,
    storage: Storage,
    filename: str,
    mimetype: str,
    reader: HashingReader,
) -> str:
    key = new_key(request, rules, storage, filename)
    storage.files.write(
        key, reader, mimetype, disposition=disposition_of(rules, filename, mimetype)
    )
    uri = str(request.context.uri)
    Ledger.of(request).new_files[key] = NewFile(key, uri, storage=storage.name)
    return key
