"""A record with its file from an export: checked, stored and linked like an upload.

There is neither a client nor a user. Kinto's storage gets the unchanged record, with its timestamp
if possible, and listeners are notified as of any other write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import transaction
from kinto.core.storage.exceptions import ObjectNotFoundError
from kinto.core.utils import msec_time
from kinto.views.records import Record

from kinto_attachment.errors import AttachmentChanged, AttachmentGone
from kinto_attachment.files import holds, locks, quotas
from kinto_attachment.files.changes import write_links
from kinto_attachment.files.guard import allow_metadata_changes
from kinto_attachment.files.ledger import LEDGER, CollectedEvents, Ledger, SharedFile
from kinto_attachment.files.own_requests import request_about
from kinto_attachment.files.own_writes import Permissions, dated, note_change, notify
from kinto_attachment.files.record_schemas import check_whole
from kinto_attachment.files.repeating import repeated
from kinto_attachment.files.settling import settle
from kinto_attachment.files.sources import Source, current_link
from kinto_attachment.files.target import KnownTarget
from kinto_attachment.files.transactions import EVENTS
from kinto_attachment.files.uploads import announce, check_stored, rules_of, store_again
from kinto_attachment.http.streams import Reader
from kinto_attachment.index.bulk import BulkLinks
from kinto_attachment.kinto_types import KintoObject, Registry, Request
from kinto_attachment.metadata import FIELD, Attachment, same_json
from kinto_attachment.uris import RecordURI

# The fields that the server sets, which are not part of a record's content.
NOT_COMPARED = ("id", "last_modified", Record.schema_field, FIELD)
SAME, CREATED, REPLACED = "same", "created", "replaced"

OpenFile = Callable[[], AbstractContextManager[Reader]]


@dataclass(frozen=True)
class Imported:
    """A record to import: its attributes, its file (without a location), its permissions.

    ``extra`` are members of the attachment that other code has added. If the permissions are None,
    they do not change.
    """

    uri: RecordURI
    data: KintoObject
    file: Attachment | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    permissions: Permissions | None = None

    def attachment(self, stored: Attachment) -> dict[str, Any]:
        """The attachment object, with the location of the stored file."""
        return {**self.extra, **stored.to_json()}

    def has_file_of(self, record: KintoObject | None) -> bool:
        """Whether a record already has the same file, or both have none."""
        attachment = (record or {}).get(FIELD)
        if self.file is None or not isinstance(attachment, dict):
            return self.file is attachment
        described = {name: value for name, value in attachment.items() if name != "location"}
        wanted = self.attachment(self.file)
        del wanted["location"]
        return same_json(described, wanted)

    def is_same(self, record: KintoObject, permissions: Mapping[str, Any]) -> bool:
        """Whether the record already exists, disregarding its timestamp."""
        if self.permissions is not None:
            wanted = {name: {*many} for name, many in self.permissions.items() if many}
            if wanted != {name: {*many} for name, many in permissions.items() if many}:
                return False
        return self.has_file_of(record) and same_json(_content(self.data), _content(record))


@dataclass(frozen=True)
class Terms:
    """How records are imported; ``server`` is its URL without the API version."""

    server: str
    replaces: bool = False


class Differs(Exception):
    """The record exists with other content, and must not be replaced."""


def request_for(
    registry: Registry, wanted: Imported, old: KintoObject | None, terms: Terms
) -> Request:
    """A request about the record, which was read as ``old``."""
    request = request_about(registry, str(wanted.uri), terms.server)
    request.context = KnownTarget(wanted.uri, old)
    return request


def refuse(request: Request, wanted: Imported, collection: KintoObject | None) -> None:
    """Refuse a record whose file its collection does not allow.

    :raises Locked, Held, FileNotAllowed, TooLarge, TooSmall:
    """
    old = request.context.record
    if wanted.has_file_of(old):
        return
    rules = rules_of(request)
    locks.refuse(rules, collection)
    if old is not None and old.get(FIELD) is not None:
        _refuse_loss(request, wanted, keeps=rules.keep_old_files)
    if wanted.file is not None:
        check_stored(request, wanted.file.original or wanted.file)


def bring(
    registry: Registry,
    wanted: Imported,
    old: KintoObject | None,
    terms: Terms,
    open_file: OpenFile | None,
    like: str | None = None,
) -> str:
    """Store a record with its file; returns SAME, CREATED or REPLACED.

    ``old`` is the existing record, as it was read. ``open_file`` opens the file, if any, and is
    called at most once. ``like`` is a record with the same file, which the two then share.

    :raises Differs: somebody has written the record in the meantime.
    :raises AttachmentError, HTTPException: refused; nothing has changed.
    """
    request = request_for(registry, wanted, old, terms)
    ledger = Ledger.of(request)
    ledger.written_by_tween = True  # Links are written below, after all listeners.
    outcome = SAME
    try:
        attachment = _receive(request, wanted, open_file, like)

        def write() -> str:
            with transaction.manager:
                return _write(request, wanted, attachment, terms)

        outcome = repeated(write, begin_again=lambda: _begin_again(request, ledger))
    finally:
        settle(registry, ledger)
    if outcome != SAME:
        notify(request, after_commit=True)
    return outcome


def _receive(
    request: Request, wanted: Imported, open_file: OpenFile | None, like: str | None
) -> dict[str, Any] | None:
    """Store or share the file; returns the attachment object, if any."""
    old = request.context.record
    if wanted.file is None or open_file is None:
        return None
    if old is not None and wanted.has_file_of(old):
        return dict(old[FIELD])
    sent = wanted.file.original or wanted.file
    shared = None if like is None else _source(request, wanted.file, like)
    if shared is None:
        quotas.check_file(request, wanted.file.size)
    else:
        quotas.check_shared(request, shared.key, wanted.file.size)
    announce(request, sent.filename, sent.mimetype, sent.size)
    ledger, uri = Ledger.of(request), str(wanted.uri)
    if shared is not None:
        attachment = wanted.attachment(shared.attachment(request))
        file = SharedFile(uri, attachment, shared.storage, shared.key, shared.link)
        ledger.shared_files.append(file)
        return attachment
    with open_file() as reader:
        stored = store_again(request, wanted.file, reader)
    attachment = wanted.attachment(stored)
    (new,) = ledger.new_files.values()
    new.attachment = attachment
    return attachment


def _source(request: Request, file: Attachment, like: str) -> Source | None:
    """The file of another record, if it is the same and in the right storage."""
    with transaction.manager:
        link = current_link(request.registry, like)
    if link is None or link.ended or link.storage != rules_of(request).storage:
        return None
    source = Source.of(link)
    found = source.attachment(request).to_json()
    return source if {**found, "location": ""} == file.to_json() else None


def _write(
    request: Request, wanted: Imported, attachment: dict[str, Any] | None, terms: Terms
) -> str:
    """Write record, permissions, links and counters, in the caller's transaction."""
    registry, uri = request.registry, wanted.uri
    collection = _collection(registry, uri)
    old = _locked(registry, uri)
    if old is not None:
        found = registry.permission.get_objects_permissions([str(uri)])[0]
        if wanted.is_same(old, found):
            return SAME
        if not terms.replaces:
            raise Differs()
    is_received = attachment is not None and _is_received(request, attachment)
    # Otherwise, the record already had this file when it was read.
    if attachment and not is_received and not same_json((old or {}).get(FIELD), attachment):
        raise AttachmentChanged()
    request.context = KnownTarget(uri, old)
    refuse(request, wanted, collection)
    new = {**wanted.data}
    if attachment is not None:
        new[FIELD] = attachment
    check_whole(request, new, collection)
    new = dated(registry, "record", uri.collection, new)
    with quotas.entered(request, attachment) if attachment and is_received else nullcontext():
        if old is None:
            written = registry.storage.create("record", uri.collection, new)
        else:
            written = registry.storage.update("record", uri.collection, uri.record_id, new)
        if wanted.permissions is not None:
            every = {name: wanted.permissions.get(name, []) for name in Record.permissions}
            registry.permission.replace_object_permissions(str(uri), every)
        with allow_metadata_changes(request):
            note_change(request, "record", uri.collection, written, old)
        notify(request)
        ledger = Ledger.of(request)
        write_links(registry, ledger)
        resolver = registry.attachment_collection_settings
        registry.attachment_usage.book(lambda scope: resolver.quota(ledger, scope))
    return CREATED if old is None else REPLACED


def _is_received(request: Request, attachment: dict[str, Any]) -> bool:
    uri = str(request.context.uri)
    return Ledger.of(request).file_of(uri, attachment) is not None


def _collection(registry: Registry, uri: RecordURI) -> KintoObject:
    try:
        return registry.storage.get("collection", uri.bucket, uri.collection_id)
    except ObjectNotFoundError as error:
        raise AttachmentGone("The collection was deleted meanwhile.") from error


def _locked(registry: Registry, uri: RecordURI) -> KintoObject | None:
    """The record, which nobody else can change until the commit."""
    bulk = BulkLinks(registry.storage, registry.attachment_links)
    if not bulk.locked_records([str(uri)], wait=True):
        return None
    return registry.storage.get("record", uri.collection, uri.record_id)


def _refuse_loss(request: Request, wanted: Imported, *, keeps: bool) -> None:
    """:raises Held: a file that the record would lose is held."""
    registry, now = request.registry, msec_time()
    outcome = {"stays": False, "keeps": keeps, "let_go": wanted.file is None, "ended": False}
    links = [
        link
        for link in registry.attachment_links.of_record(str(wanted.uri))
        if not link.ended and holds.is_lost(link, **outcome)
    ]
    holds.refuse_loss(registry, links, now)


def _begin_again(request: Request, ledger: Ledger) -> None:
    """Forget the data that was read and written in an aborted transaction."""
    ledger.forget_changes()
    request.bound_data.clear()
    request.bound_data |= {LEDGER: ledger, EVENTS: CollectedEvents()}


def _content(record: KintoObject) -> KintoObject:
    return {name: value for name, value in record.items() if name not in NOT_COMPARED}
