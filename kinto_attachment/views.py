"""The endpoints, each a list of steps."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, TypeVar

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from kinto.core.errors import http_error, raise_invalid
from kinto.core.storage.exceptions import BackendError
from kinto.core.utils import msec_time, reapply_cors
from kinto.core.views.errors import authorization_required
from pyramid.httpexceptions import (
    HTTPException,
    HTTPForbidden,
    HTTPNoContent,
    status_map,
)
from pyramid.request import Request
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED

from kinto_attachment import downloads, openapi, records
from kinto_attachment.bodies import FORM_OVERHEAD, body_of, check_length
from kinto_attachment.context import RecordContext, may_read, may_read_now
from kinto_attachment.errors import (
    AttachmentError,
    FileNotFound,
    InvalidForm,
    StorageError,
    modified_meanwhile,
)
from kinto_attachment.events import AttachmentRead
from kinto_attachment.ledger import Ledger
from kinto_attachment.links import Link, Links
from kinto_attachment.locations import FILES_ROUTE, check_host, own_key
from kinto_attachment.metadata import FIELD, Attachment
from kinto_attachment.multipart import FilePart, Form, read_form
from kinto_attachment.names import disposition_filename
from kinto_attachment.settings import Scope
from kinto_attachment.streams import ClaimedDigests, HashingReader
from kinto_attachment.transactions import in_batch, restart_transaction
from kinto_attachment.uploads import IncomingFile, store

RECORD_PATH = "/buckets/{bucket_id}/collections/{collection_id}/records/{id}/attachment"
# Where the plugin of that name has /buckets/default, whichever of us is included first.
NOT_DEFAULT_PATH = RECORD_PATH.replace("{bucket_id}", "{bucket_id:(?!default/)[^/]+}")
RECORD_ROUTE = "attachment"
FILE_PATH = "/attachments/{key:.+}"

EXPOSED_HEADERS = (
    "Accept-Ranges",
    "Cache-Control",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Last-Modified",
    "Location",
    "Repr-Digest",
)

View = Callable[[Any], Any]
T = TypeVar("T")


class NoContent(HTTPNoContent):  # type: ignore[misc]
    """A 204 that can be part of a batch's answer: Kinto asks each part for its JSON."""

    json = property(lambda self: {})


def services(*, readonly: bool, default_bucket: bool) -> list[Service]:
    """The Cornice services; made once Kinto has read its settings, CORS among them."""
    attachment = Service(
        name=RECORD_ROUTE,
        path=NOT_DEFAULT_PATH if default_bucket else RECORD_PATH,
        description="The file attached to a record",
        factory=RecordContext,
    )
    file = Service(name=FILES_ROUTE, path=FILE_PATH, description="A stored file")
    # Cornice answers HEAD wherever it answers GET.
    views: list[tuple[str, View, dict[str, Any]]] = [
        ("GET", get_attachment, openapi.download_of_record())
    ]
    if not readonly:
        views += [
            ("POST", post_attachment, openapi.upload_of_form()),
            ("PUT", put_attachment, openapi.upload_of_body()),
            ("DELETE", delete_attachment, openapi.removal()),
        ]
    for method, view, described in views:
        attachment.add_view(
            method, view, permission=DYNAMIC, cors_headers=EXPOSED_HEADERS, **described
        )
    # Whether the user may read is a question to the index, asked by the view.
    file.add_view(
        "GET",
        get_file,
        permission=NO_PERMISSION_REQUIRED,
        cors_headers=EXPOSED_HEADERS,
        **openapi.download_of_file(),
    )
    return [attachment, file]


def counted(view: View) -> View:
    """Count uploads by their result."""

    @wraps(view)
    def counting(request: Any) -> Any:
        result = "failed"
        try:
            response = view(request)
            result = "created" if response.status_code == 201 else "updated"
            return response
        except AttachmentError as error:
            result = "refused" if error.status < 500 else "failed"
            raise
        except HTTPException:
            result = "refused"
            raise
        except BackendError:
            result = "repeated"  # Or failed, when Kinto's storage does.
            raise
        finally:
            metrics = request.registry.metrics
            metrics.count("attachments.uploads", unique=[("result", result)])

    return counting


@counted
def post_attachment(request: Any) -> Response:
    """Attach the file of a form to the record, and set its attributes and permissions."""
    check_preconditions(request)
    form = once(request, receive_form)
    written = records.write(request, form.data, form.permissions, form.file.to_json())
    return uploaded(request, written, form.file)


@counted
def put_attachment(request: Any) -> Response:
    """Attach the request's body, as it is, to the record."""
    check_preconditions(request)
    attachment = once(request, receive_body)
    written = records.write(request, None, None, attachment.to_json())
    return uploaded(request, written, attachment)


def delete_attachment(request: Any) -> Response:
    """Detach the file from the record, and delete it."""
    record = request.context.existing_record()
    check_preconditions(request)
    if record.get(FIELD) is not None:
        records.write(request, None, None, None)
    return NoContent()


def get_attachment(request: Any) -> Response:
    """The record's current file."""
    context: RecordContext = request.context
    metadata: Any = context.existing_record().get(FIELD)
    key, described = current_file(request, context.record_uri, metadata)
    file = downloads.StoredFile.find(request.registry.attachment_storage, key, described)
    response = downloads.respond(request, file, scope_of(request), downloads.CURRENT)
    announce_read(request, response, context.record_uri, metadata)
    return response


def get_file(request: Any) -> Response:
    """One stored file, by the object key in its location."""
    check_host(request)
    registry = request.registry
    public = registry.attachment_settings["public"]
    link = readable_link(request, request.matchdict["key"], public=public)
    file = downloads.StoredFile.find(registry.attachment_storage, link.key, link.dump())
    _, _, bucket_id, _, collection_id, *_ = link.record.split("/")
    scope = registry.attachment_scopes.of(request, bucket_id, collection_id)
    response = downloads.respond(
        request, file, scope, downloads.PUBLIC if public else downloads.PRIVATE
    )
    announce_read(request, response, link.record, link.dump())
    return response


def default_bucket_attachment(request: Any) -> Response:
    """The same endpoints below ``/buckets/default``.

    Kinto's own view of the default bucket would read the body into memory to pass it on.
    """
    if request.authenticated_userid is None:
        raise HTTPForbidden()  # Kinto makes a 401 of it.
    real = f"/buckets/{request.default_bucket_id}/"
    environ = {k: v for k, v in request.environ.items() if not k.startswith(("webob.", "bfg."))}
    environ["PATH_INFO"] = environ["PATH_INFO"].replace("/buckets/default/", real, 1)
    subrequest = Request(environ)
    subrequest.registry = request.registry
    subrequest.parent = request
    subrequest.implicit_parents = True
    return request.invoke_subrequest(subrequest)


def forbidden_view(error: HTTPForbidden, request: Any) -> Response:
    """Kinto's 401 or 403, which makes no browser ask for a password in the middle of a page."""
    response = authorization_required(error, request)
    of_a_file = request.matched_route.name == FILES_ROUTE
    part_of_a_page = request.headers.get("Sec-Fetch-Dest", "empty") not in ("empty", "document")
    if (of_a_file or part_of_a_page) and "WWW-Authenticate" in response.headers:
        del response.headers["WWW-Authenticate"]
    if response.status_code == 401:
        response.headers["Vary"] = downloads.IDENTITY
    return reapply_cors(request, response)


def error_view(error: AttachmentError, request: Any) -> Response:
    """Our errors, as Kinto's JSON errors."""
    response = http_error(
        status_map[error.status](), errno=error.errno, message=str(error), details=error.details
    )
    if error.status in (409, 503, 507):
        response.headers["Retry-After"] = str(request.registry.settings["retry_after_seconds"])
    if error.status == 404:
        response.headers["Vary"] = downloads.IDENTITY
    if isinstance(error, StorageError):
        downloads.logger.error("The attachments' storage fails: %s", error, exc_info=error)
    return reapply_cors(request, response)


# The steps.


def once(request: Any, receive: Callable[[Any], T]) -> T:
    """Receive the body of an upload, or find what came of it when the request is repeated."""
    ledger = Ledger.of(request)
    if ledger.received is None or in_batch(request):
        ledger.received = receive(request)
    received: T = ledger.received
    return received


def receive_form(request: Any) -> Form[Attachment]:
    check_length(request, scope_of(request).max_size, overhead=FORM_OVERHEAD)
    # In the headers of the request, they are those of the whole form.
    claims = ClaimedDigests.parse(request.headers)
    body = body_of(request)
    hashed = HashingReader(body, claims.algorithms)
    restart_transaction(request)
    content_type = request.headers.get("Content-Type", "")
    form = read_form(hashed if claims else body, content_type, partial(store_part, request))
    claims.check(hashed)
    return form


def receive_body(request: Any) -> Attachment:
    check_length(request, scope_of(request).max_size)
    incoming = IncomingFile(
        filename=requested_filename(request),
        declared_type=request.headers.get("Content-Type"),
        reader=body_of(request),
        claims=ClaimedDigests.parse(request.headers),
    )
    restart_transaction(request)
    return store(request, incoming)


def scope_of(request: Any) -> Scope:
    context: RecordContext = request.context
    scope: Scope = request.registry.attachment_scopes.of(
        request, context.bucket_id, context.collection_id
    )
    return scope


def check_preconditions(request: Any) -> None:
    """Refuse before the body what Kinto would refuse after it (it is asked again then).

    :raises HTTPPreconditionFailed: as Kinto does for the record itself.
    """
    record = request.context.record
    if_match = timestamp_header(request, "If-Match")
    if_none_match = timestamp_header(request, "If-None-Match")
    modified = record is not None and if_match not in ("", "*", str(record["last_modified"]))
    if (if_none_match == "*" and record) or (if_match and record is None) or modified:
        readable = record is not None and may_read_now(request, request.context.record_uri)
        raise modified_meanwhile(record if readable else None)


def timestamp_header(request: Any, name: str) -> str:
    """A record's ETag without its quotes, ``*``, or nothing."""
    value = request.headers.get(name, "").strip()
    if value and value != "*" and not re.fullmatch(r'"\d+"', value):
        description = "The value should be integer between double quotes."
        raise_invalid(request, location="header", name=name, description=description)
    return str(value.strip('"'))


def requested_filename(request: Any) -> str:
    """The name of a raw body: ``Content-Disposition``, else ``?filename=``."""
    header = request.headers.get("Content-Disposition")
    name = disposition_filename(header) if header else None
    name = name or request.GET.get("filename")
    if not name:
        raise InvalidForm("body: Filename is required.")
    return str(name)


def store_part(request: Any, part: FilePart) -> Attachment:
    claims = ClaimedDigests.parse(part.headers)
    return store(request, IncomingFile(part.filename, part.content_type, part.reader, claims))


def uploaded(request: Any, written: records.Written, attachment: Attachment) -> Response:
    response = Response(status=written.status, json=attachment.to_json())
    response.headers["Location"] = f"/{request.registry.route_prefix}{request.context.record_uri}"
    response.headers["ETag"] = written.etag
    response.headers["Last-Modified"] = written.last_modified
    return response


def current_file(request: Any, record_uri: str, metadata: Any) -> tuple[str, Mapping[str, Any]]:
    """The key of the record's file, and what to say of it.

    :raises FileNotFound: the record has no attachment, or none of ours.
    """
    registry = request.registry
    if isinstance(metadata, Mapping):
        for link in registry.attachment_links.of_record(record_uri):
            if link.state == "current":
                return link.key, link.dump()
        # A record from before the index.
        key = own_key(registry.attachment_settings, registry.route_prefix, metadata)
        if key is not None:
            return key, metadata
    raise FileNotFound("The record has no attachment.")


def readable_link(request: Any, key: str, *, public: bool) -> Link:
    """A record that points at the file and that the user may read.

    Whether there is a file that they may not read is not to be told from the answer.

    :raises HTTPForbidden: there is none, and the user has not said who they are.
    :raises FileNotFound: there is none.
    """
    links: Links = request.registry.attachment_links
    found = [link for link in links.of_key(key) if link.is_readable(msec_time())]
    for link in found:
        if public or may_read(request, link.record):
            return link
    if not public and request.authenticated_userid is None:
        raise HTTPForbidden()  # Kinto makes a 401 of it.
    raise FileNotFound()


def announce_read(request: Any, response: Response, record_uri: str, metadata: Any) -> None:
    if request.method == "GET" and response.status_code in (200, 206, 302):
        ledger = Ledger.of(request)
        ledger.when_committed(ledger.events, AttachmentRead(request, record_uri, metadata))
