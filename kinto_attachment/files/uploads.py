"""Storing an incoming file, and describing it as an attachment object, in one pass."""

from __future__ import annotations

from dataclasses import dataclass

from pyramid.httpexceptions import HTTPException

from kinto_attachment import names
from kinto_attachment.errors import StorageError, StorageUnavailable, TooLarge, TooSmall
from kinto_attachment.errors.file_not_allowed import FileNotAllowed
from kinto_attachment.files import quotas
from kinto_attachment.files.events import AttachmentReceiving, has_subscribers
from kinto_attachment.files.keys import new_key
from kinto_attachment.files.kinto_errors import as_json
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
from kinto_attachment.storage.storages import Storage, metric_of


@dataclass(frozen=True)
class IncomingFile:
    """A file as a client sends it; ``claims`` are the digests that the client claims."""

    filename: str
    declared_type: str | None
    reader: Reader
    claims: ClaimedDigests
    size: int | None = None  # If it is known before the file is read.
    encoding: str = ""  # The Content-Encoding, which the stored bytes keep.


@dataclass(frozen=True)
class Accepted:
    """A file that may be stored: its key, its name and its media type."""

    rules: CollectionSettings
    storage: Storage
    filename: str
    mimetype: str
    allowance: quotas.Allowance | None = None  # The space left by the quota.

    def bound(self, reader: Reader) -> Reader:
        """The bytes to store; reading beyond the quota raises an error."""
        return reader if self.allowance is None else self.allowance.bound(reader)


def store(request: Request, incoming: IncomingFile) -> Attachment:
    """Check, hash, measure and store a file while it arrives.

    The file is entered in the request's ledger. It is deleted unless a record is linked to it at
    the end of the request.

    :raises InvalidForm, FileNotAllowed, TooLarge, TooSmall, DigestMismatch, StorageError: the
        file does not stay stored.
    """
    accepted = accept(request, incoming.filename, incoming.declared_type, incoming.size)
    return store_accepted(request, accepted, incoming)


def store_accepted(request: Request, accepted: Accepted, incoming: IncomingFile) -> Attachment:
    """The same for a file that was approved before."""
    rules, storage = accepted.rules, accepted.storage
    filename, mimetype = accepted.filename, accepted.mimetype
    limited = LimitedReader(incoming.reader, rules.max_size, rules.min_size)
    reader = GzipChecker(limited) if incoming.encoding else limited
    encoding = incoming.encoding
    if not rules.gzipped:
        sent = HashingReader(accepted.bound(reader), incoming.claims.algorithms)
        key = _write(request, rules, storage, filename, mimetype, sent, encoding)
        attachment = _attachment(
            request, storage, key, filename, mimetype, sent, encoding=encoding
        )
    else:
        sent = HashingReader(reader, incoming.claims.algorithms)
        packed = HashingReader(accepted.bound(GzipReader(sent)))
        packed_name, packed_type = names.shortened(filename, ".gz"), "application/gzip"
        key = _write(request, rules, storage, packed_name, packed_type, packed)
        original = Original(filename, sent.sha256, mimetype, sent.size)
        attachment = _attachment(request, storage, key, packed_name, packed_type, packed, original)
    incoming.claims.check(sent)
    count_bytes(request, storage, sent.size)
    return attachment


def accept(
    request: Request,
    sent_name: str,
    declared_type: str | None,
    size: int | None,
    *,
    replaces: bool = True,
) -> Accepted:
    """Approve a file before any of it is stored; ``size`` is in bytes, if known.

    Files that are stored long before they are attached do not ``replace`` the record's file.

    :raises FileNotAllowed, QuotaExceeded, HTTPException: the file is refused, possibly by another
        plugin.
    """
    rules = rules_of(request)
    filename = names.clean_filename(sent_name)
    storage = request.registry.attachment_storages[rules.storage]
    check_extension(request, rules, filename)
    mimetype = names.mimetype(filename, declared_type, rules.mimetypes)
    # The size after compression is not known.
    stored_size = None if rules.gzipped else size
    allowance = quotas.check_file(request, stored_size, replaces=replaces)
    announce(request, filename, mimetype, size)
    return Accepted(rules, storage, filename, mimetype, allowance)


def describe(request: Request, file: NewFile, attachment: Attachment) -> None:
    """Enter a stored file, with the metadata for its record, in the request's ledger."""
    file.attachment = attachment.to_json()
    Ledger.of(request).new_files[file.key] = file


def count_bytes(request: Request, storage: Storage, size: int) -> None:
    metrics = request.registry.metrics
    metrics.count(metric_of(storage.name, "attachments.bytes_in"), size)


def store_again(request: Request, source: Attachment, reader: Reader) -> Attachment:
    """Copy a file from another storage for the request's record, in the same form.

    :raises StorageError: the copy failed or does not match, and is removed.
    """
    rules = rules_of(request)
    storage = request.registry.attachment_storages[rules.storage]
    stored, encoding = HashingReader(reader), source.encoding or ""
    filename, mimetype = source.filename, source.mimetype
    key = _write(request, rules, storage, filename, mimetype, stored, encoding)
    if stored.sha256 != source.hash:
        raise StorageUnavailable("The file to be copied is damaged.")
    return _attachment(
        request, storage, key, filename, mimetype, stored, source.original, encoding=encoding
    )


def check_extension(request: Request, rules: CollectionSettings, filename: str) -> None:
    """Check the extension of a file; ``b.txt.gz`` is also allowed if ``b.txt`` is.

    :raises FileNotAllowed: neither is allowed.
    """
    # The rules for new files also apply to renamed files, whatever their storage.
    allowed = request.registry.attachment_storages[rules.storage].files.filename_allowed
    inner = names.inner_name(filename)
    if allowed(filename, rules.extensions):
        return
    if inner is None or not allowed(inner, rules.extensions):
        setting = rules.setting("extensions")
        raise FileNotAllowed(f"{FileNotAllowed.message} The setting is {setting}.")


def check_stored(request: Request, sent: Attachment | Original) -> None:
    """Apply the rules for the request's record to a file that was stored before or elsewhere.

    :raises FileNotAllowed, TooLarge, TooSmall: as for a file that a client sends.
    """
    rules = rules_of(request)
    check_extension(request, rules, sent.filename)
    if 0 < rules.max_size < sent.size:
        raise TooLarge(f"body: File size exceeds the limit of {rules.max_size} bytes.")
    if sent.size < rules.min_size:
        raise TooSmall(f"body: File size is below the minimum of {rules.min_size} bytes.")


def disposition_of(rules: CollectionSettings, filename: str, mimetype: str) -> str:
    """The ``Content-Disposition`` of a file: ``inline`` for the configured types only."""
    return names.content_disposition(filename, disposition_type_of(rules, mimetype))


def disposition_type_of(rules: CollectionSettings, mimetype: str) -> str:
    media_type = mimetype.partition(";")[0].strip().lower()
    wildcard = f"{media_type.partition('/')[0]}/*"
    inline = media_type in rules.inline_types or wildcard in rules.inline_types
    return "inline" if inline else "attachment"


def rules_of(request: Request) -> CollectionSettings:
    """The settings for the collection of a request's record."""
    uri = request.context.uri
    resolver = request.registry.attachment_collection_settings
    return resolver.of(request, uri.bucket_id, uri.collection_id)


def announce(request: Request, filename: str, mimetype: str, size: int | None) -> None:
    """Notify other plugins of a file before any of it is stored.

    Their reads and writes have a separate transaction, because the body may take hours to arrive.

    :raises HTTPException: a plugin refuses the file.
    """
    event = AttachmentReceiving(request, str(request.context.uri), filename, mimetype, size)
    if not has_subscribers(request.registry, event):
        return
    try:
        with separate_transaction(request):
            request.registry.notify(event)
    except HTTPException as refusal:
        raise as_json(refusal) from refusal


def _attachment(
    request: Request,
    storage: Storage,
    key: str,
    filename: str,
    mimetype: str,
    stored: HashingReader,
    original: Original | None = None,
    *,
    encoding: str = "",
) -> Attachment:
    location = location_of(request, storage, key)
    attachment = Attachment(
        filename, stored.sha256, location, mimetype, stored.size, original, encoding or None
    )
    Ledger.of(request).new_files[key].attachment = attachment.to_json()
    return attachment


def _write(
    request: Request,
    rules: CollectionSettings,
    storage: Storage,
    filename: str,
    mimetype: str,
    reader: HashingReader,
    encoding: str = "",
) -> str:
    key = new_key(request, rules, storage, filename)
    headers = {"disposition": disposition_of(rules, filename, mimetype)}
    if encoding:
        headers["encoding"] = encoding
    try:
        storage.files.write(key, reader, mimetype, **headers)
    except StorageError:
        # The file may be stored nevertheless. The reserved name tells gc which site it belongs to.
        Ledger.of(request).left.add(key)
        raise
    uri = str(request.context.uri)
    Ledger.of(request).new_files[key] = NewFile(key, uri, storage=storage.name)
    return key
