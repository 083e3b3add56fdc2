"""A reader becomes a stored file and the attachment object that describes it, in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from kinto_attachment import names
from kinto_attachment.errors import FileNotAllowed, KeyTaken
from kinto_attachment.files.collection_settings import CollectionSettingsResolver
from kinto_attachment.files.ledger import Ledger, NewFile
from kinto_attachment.files.locations import location_of
from kinto_attachment.files.transactions import separate_transaction
from kinto_attachment.http.streams import (
    ClaimedDigests,
    GzipReader,
    HashingReader,
    LimitedReader,
    Reader,
)
from kinto_attachment.index.links import Links
from kinto_attachment.metadata import Attachment, Original
from kinto_attachment.settings import CollectionSettings
from kinto_attachment.storage import FileStorage
from kinto_attachment.uris import RecordURI


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
    rules = rules_of(request)
    filename = names.clean_filename(incoming.filename)
    storage: FileStorage = request.registry.attachment_storage
    if not storage.filename_allowed(filename, rules.extensions):
        raise FileNotAllowed()
    mimetype = names.mimetype(filename, incoming.declared_type, rules.mimetypes)
    limited = LimitedReader(incoming.reader, rules.max_size)
    sent = HashingReader(limited, incoming.claims.algorithms)
    if not rules.gzipped:
        key = _write(request, rules, filename, mimetype, sent)
        attachment = _attachment(request, key, filename, mimetype, sent)
    else:
        packed = HashingReader(GzipReader(sent))
        packed_name, packed_type = names.fitting(filename, ".gz"), "application/gzip"
        key = _write(request, rules, packed_name, packed_type, packed)
        original = Original(filename, sent.sha256, mimetype, sent.size)
        attachment = _attachment(request, key, packed_name, packed_type, packed, original)
    incoming.claims.check(sent)
    request.registry.metrics.count("attachments.bytes_in", sent.size)
    return attachment


def served_as(rules: CollectionSettings, filename: str, mimetype: str) -> str:
    """The ``Content-Disposition`` of a file: shown in place only if that runs nothing."""
    media_type = mimetype.partition(";")[0].strip().lower()
    wildcard = f"{media_type.partition('/')[0]}/*"
    inline = media_type in rules.inline_types or wildcard in rules.inline_types
    return names.content_disposition(filename, "inline" if inline else "attachment")


def rules_of(request: Any) -> CollectionSettings:
    """The settings that hold in the collection of the record that a request is about."""
    uri: RecordURI = request.context.uri
    resolver: CollectionSettingsResolver = request.registry.attachment_collection_settings
    return resolver.of(request, uri.bucket_id, uri.collection_id)


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


def _write(
    request: Any, rules: CollectionSettings, filename: str, mimetype: str, reader: HashingReader
) -> str:
    key = (
        _random_key(request, rules, filename)
        if rules.randomize
        else _free_key(request, rules, filename)
    )
    request.registry.attachment_storage.write(
        key, reader, mimetype, disposition=served_as(rules, filename, mimetype)
    )
    Ledger.of(request).new_files[key] = NewFile(key, str(request.context.uri))
    return key


def _random_key(request: Any, rules: CollectionSettings, filename: str) -> str:
    return _folder(request, rules) + names.random_name(filename)


def _free_key(request: Any, rules: CollectionSettings, filename: str) -> str:
    """Reserve a key made of the client's filename, ``-1``, ``-2`` … added where it is taken.

    Reserved until the request has ended, so that two uploads of one name that are under way at
    the same time both find a place: the bytes can be read only once.
    """
    ledger = Ledger.of(request)
    links: Links = request.registry.attachment_links
    storage: FileStorage = request.registry.attachment_storage
    with separate_transaction(request):
        for key in _candidates(request, rules, filename):
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


def _candidates(request: Any, rules: CollectionSettings, filename: str) -> Iterator[str]:
    now = datetime.now(timezone.utc)
    name = rules.filename_pattern.format(
        filename=filename,
        datetime=now.strftime("%Y%m%d%H%M%S"),
        rid=request.context.uri.record_id,
    )
    folder = _folder(request, rules)
    return (folder + candidate for candidate in names.numbered(names.safe_name(name)))


def _folder(request: Any, rules: CollectionSettings) -> str:
    if rules.folder is None:
        return ""
    uri: RecordURI = request.context.uri
    folder = rules.folder.format(bucket_id=uri.bucket_id, collection_id=uri.collection_id)
    return folder.strip("/") + "/"
