"""Storing an incoming file, and describing it as an attachment object, in one pass."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

from pyramid.httpexceptions import HTTPException

from kinto_attachment import names
from kinto_attachment.errors import FileNotAllowed, KeyTaken, as_json
from kinto_attachment.files.events import AttachmentReceiving
from kinto_attachment.files.ledger import Ledger, NewFile
from kinto_attachment.files.locations import location_of
from kinto_attachment.files.transactions import separate_transaction
from kinto_attachment.http.encodings import GzipChecker
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


@dataclass(frozen=True)
class IncomingFile:
    """A file as a client sends it; ``claims`` are the digests that the client claims."""

    filename: str
    declared_type: str | None
    reader: Reader
    claims: ClaimedDigests
    size: int | None = None  # As far as it is known before the file is read.
    encoding: str = ""  # The Content-Encoding, which the stored bytes keep.


def store(request: Request, incoming: IncomingFile) -> Attachment:
    """Check, hash, count and store a file while it arrives.

    The file is entered in the request's ledger: it is deleted again unless a record is linked to
    it when the request has ended.

    :raises InvalidForm, FileNotAllowed, TooLarge, TooSmall, DigestMismatch, StorageError: the
        file does not stay stored.
    """
    rules = rules_of(request)
    filename = names.clean_filename(incoming.filename)
    check_extension(request, rules, filename)
    mimetype = names.mimetype(filename, incoming.declared_type, rules.mimetypes)
    _announce(request, filename, mimetype, incoming.size)
    limited = LimitedReader(incoming.reader, rules.max_size, rules.min_size)
    reader = GzipChecker(limited) if incoming.encoding else limited
    sent = HashingReader(reader, incoming.claims.algorithms)
    encoding = incoming.encoding
    if not rules.gzipped:
        key = _write(request, rules, filename, mimetype, sent, encoding)
        attachment = _attachment(request, key, filename, mimetype, sent, encoding=encoding)
    else:
        packed = HashingReader(GzipReader(sent))
        packed_name, packed_type = names.shortened(filename, ".gz"), "application/gzip"
        key = _write(request, rules, packed_name, packed_type, packed)
        original = Original(filename, sent.sha256, mimetype, sent.size)
        attachment = _attachment(request, key, packed_name, packed_type, packed, original)
    incoming.claims.check(sent)
    request.registry.metrics.count("attachments.bytes_in", sent.size)
    return attachment


def check_extension(request: Request, rules: CollectionSettings, filename: str) -> None:
    """Refuse files by their extension; ``b.txt.gz`` is also allowed where ``b.txt`` is.

    :raises FileNotAllowed: neither is allowed.
    """
    allowed = request.registry.attachment_storage.filename_allowed
    inner = names.inner_name(filename)
    if allowed(filename, rules.extensions):
        return
    if inner is None or not allowed(inner, rules.extensions):
        setting = rules.setting("extensions")
        raise FileNotAllowed(f"{FileNotAllowed.message} The setting is {setting}.")


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


def _announce(request: Request, filename: str, mimetype: str, size: int | None) -> None:
    """Tell other plugins of a file before any of it is stored.

    What they read or write is a transaction of its own: the body may take hours to arrive.

    :raises HTTPException: one of them refuses the file.
    """
    uri = str(request.context.uri)
    try:
        with separate_transaction(request):
            request.registry.notify(AttachmentReceiving(request, uri, filename, mimetype, size))
    except HTTPException as refusal:
        raise as_json(refusal) from refusal


def _attachment(
    request: Request,
    key: str,
    filename: str,
    mimetype: str,
    stored: HashingReader,
    original: Original | None = None,
    *,
    encoding: str = "",
) -> Attachment:
    location = location_of(request, request.registry.attachment_settings, key)
    attachment = Attachment(
        filename, stored.sha256, location, mimetype, stored.size, original, encoding or None
    )
    Ledger.of(request).new_files[key].attachment = attachment.to_json()
    return attachment


def _write(
    request: Request,
    rules: CollectionSettings,
    filename: str,
    mimetype: str,
    reader: HashingReader,
    encoding: str = "",
) -> str:
    key = (
        _random_key(request, rules, filename)
        if rules.randomize
        else _free_key(request, rules, filename)
    )
    headers = {"disposition": disposition_of(rules, filename, mimetype)}
    if encoding:
        headers["encoding"] = encoding
    request.registry.attachment_storage.write(key, reader, mimetype, **headers)
    Ledger.of(request).new_files[key] = NewFile(key, str(request.context.uri))
    return key


def _random_key(request: Request, rules: CollectionSettings, filename: str) -> str:
    name = names.random_name(filename)
    return _folder(request, rules, fan=name[:2]) + name


def _free_key(request: Request, rules: CollectionSettings, filename: str) -> str:
    """Reserve a key made from the client's filename, with ``-1``, ``-2`` … if it is taken.

    The reservation lasts until the end of the request. Concurrent uploads of the same name get
    different keys: an upload cannot try again with another key, as its body is read only once.
    """
    ledger = Ledger.of(request)
    links = request.registry.attachment_links
    storage = request.registry.attachment_storage
    with separate_transaction(request):
        for key in _candidates(request, rules, filename):
            # Checked before the claim, too: otherwise, concurrent uploads of a common name would
            # wait for each other at each taken key.
            if storage.exists(key) or not links.reservations.claim(key):
                continue
            # A key in the outbox is not free either: its file is about to be deleted.
            if not storage.exists(key) and not links.outbox.entries(key):
                ledger.reserved.append(key)
                return key
            links.reservations.release(key)
    raise KeyTaken()


def _candidates(request: Request, rules: CollectionSettings, filename: str) -> Iterator[str]:
    now = datetime.now(timezone.utc)
    name = rules.filename_pattern.format(
        filename=filename,
        datetime=now.strftime("%Y%m%d%H%M%S"),
        rid=request.context.uri.record_id,
    )
    folder = _folder(request, rules, fan=secrets.token_hex(1))
    return (folder + candidate for candidate in names.numbered(names.safe_name(name)))


def _folder(request: Request, rules: CollectionSettings, *, fan: str) -> str:
    if rules.folder is None:
        return ""
    uri = request.context.uri
    folder = rules.folder.format(bucket_id=uri.bucket_id, collection_id=uri.collection_id, fan=fan)
    return folder.strip("/") + "/"
