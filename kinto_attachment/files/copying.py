"""Copies between records: another record gets a file that is already stored."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from pyramid.httpexceptions import HTTPForbidden

from kinto_attachment.errors import FileNotFound, InvalidForm
from kinto_attachment.files import quotas
from kinto_attachment.files.arrivals import without_id
from kinto_attachment.files.forms import read_json
from kinto_attachment.files.ledger import Ledger, Received, SharedFile
from kinto_attachment.files.permissions import may_now
from kinto_attachment.files.sources import Source, current_source, open_source
from kinto_attachment.files.stored_records import stored_record
from kinto_attachment.files.uploads import announce, check_stored, rules_of, store_again
from kinto_attachment.files.versions import find, readable_versions
from kinto_attachment.http.encodings import encoding_of
from kinto_attachment.kinto_types import Request
from kinto_attachment.metadata import FIELD, Attachment
from kinto_attachment.uris import RecordURI
from kinto_attachment.wsgi.bodies import body_of

RECORD_FIELDS = ("data", "permissions")
DEFAULT_BUCKET = "/buckets/default/"
NO_RECORD = (
    "copy_from in body: should be the URI of a record, such as "
    "/buckets/b/collections/c/records/r, without a host and without /v1"
)


class CopyArrival:
    """JSON that names another record, or one of its versions."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def check(self) -> None:
        encoding_of(self._request.headers.get("Content-Encoding", ""), ())

    def receive(self) -> Received:
        fields = fields_of(self._request, "copy_from", "version")
        uri = _uri_of(self._request, fields.get("copy_from"))
        version = fields.get("version")
        if version is not None and not isinstance(version, str):
            raise InvalidForm("version in body: should be the id of a version")
        attachment = give(self._request, readable_source(self._request, uri, version))
        return Received(attachment, fields.get("data"), fields.get("permissions"))


class NewRecordCopy(CopyArrival):
    """The same for a new record, whose id Kinto makes."""

    def receive(self) -> Received:
        return without_id(super().receive())


def fields_of(request: Request, *names: str, optional: bool = False) -> dict[str, Any]:
    """The members of a JSON body: ``names``, and the fields of the record.

    :raises InvalidForm: it has other members, or a field of the record is not an object.
    """
    fields = read_json("body", body_of(request), optional=optional)
    allowed = (*names, *RECORD_FIELDS)
    if unknown := sorted(fields.keys() - allowed):
        raise InvalidForm(f"body: {unknown[0][:100]!r} not in {allowed}")
    for name in RECORD_FIELDS:
        if name in fields and not isinstance(fields[name], dict):
            raise InvalidForm(f"body: {name} is not a JSON object")
    return fields


def readable_source(request: Request, uri: RecordURI, version: str | None = None) -> Source:
    """The current file of a record, or one of its versions, that the user may read.

    :raises HTTPForbidden: the user may not read the record, whether or not it exists.
    :raises FileNotFound: the record, attachment or version does not exist.
    """
    if not may_now(request, "read", str(uri)):
        raise HTTPForbidden()
    record = stored_record(request.registry, str(uri))
    if version is not None:
        versions = readable_versions(request, uri, exists=record is not None)
        return Source.of(find(versions, version))
    if record is None:
        raise FileNotFound("copy_from in body: There is no such record.")
    attachment = record.get(FIELD)
    # The index does not have the file before the end of the request.
    own = Ledger.of(request).file_of(str(uri), attachment)
    if own is not None:
        return Source(own.storage, own.key, attachment or {})
    return current_source(request.registry, str(uri), attachment)


def give(request: Request, source: Source) -> Attachment:
    """The attachment object that gives the request's record a file.

    Within a storage, the records share the file. Between two, it is stored again in the same form.

    :raises FileNotAllowed, TooLarge, TooSmall, QuotaExceeded: the collection's rules refuse it.
    :raises HTTPException: another plugin refuses it.
    """
    attachment = source.attachment(request)
    rules = rules_of(request)
    sent = attachment.original or attachment
    check_stored(request, sent)
    is_shared = source.storage == rules.storage
    if is_shared:
        quotas.check_shared(request, source.key, attachment.size)
    else:
        quotas.check_file(request, attachment.size)
    announce(request, sent.filename, sent.mimetype, sent.size)
    if is_shared:
        share(request, source, attachment)
        return attachment
    with closing(open_source(request.registry, source)) as reader:
        return store_again(request, attachment, reader)


def share(request: Request, source: Source, attachment: Attachment) -> None:
    """Link the request's record to a stored file, if the record gets this attachment object."""
    uri = str(request.context.uri)
    file = SharedFile(uri, attachment.to_json(), source.storage, source.key, source.link)
    Ledger.of(request).shared_files.append(file)


def _uri_of(request: Request, text: object) -> RecordURI:
    if not isinstance(text, str):
        raise InvalidForm(NO_RECORD)
    if text.startswith(DEFAULT_BUCKET) and request.authenticated_userid is not None:
        text = text.replace(DEFAULT_BUCKET, f"/buckets/{request.default_bucket_id}/", 1)
    try:
        return RecordURI.parse(text)
    except ValueError as error:
        raise InvalidForm(NO_RECORD) from error
