"""``…/records/{id}/attachment``: the file attached to a record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from pyramid.httpexceptions import HTTPException, HTTPNoContent
from pyramid.response import Response

from kinto_attachment.endpoints import downloads, openapi
from kinto_attachment.endpoints.context import RecordContext
from kinto_attachment.endpoints.counting import counted
from kinto_attachment.endpoints.preconditions import check_preconditions
from kinto_attachment.endpoints.protection import refuse_locked_record, refuse_upload
from kinto_attachment.endpoints.refusals import error_view
from kinto_attachment.endpoints.upload_answers import limits_of, protocol_of, respond, step_of
from kinto_attachment.endpoints.upload_requests import create
from kinto_attachment.errors import FileNotFound, QuotaExceeded, UnsupportedType
from kinto_attachment.files import holds, records
from kinto_attachment.files.arrivals import Arrival, BodyArrival, FormArrival, attach
from kinto_attachment.files.copying import CopyArrival
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.renaming import rename
from kinto_attachment.files.sources import current_source
from kinto_attachment.files.transactions import in_batch
from kinto_attachment.files.uploads import rules_of
from kinto_attachment.http.upload_steps import Attached, Create, Progress
from kinto_attachment.index.objects import digest_of
from kinto_attachment.kinto_types import Request
from kinto_attachment.metadata import FIELD, Attachment

ROUTE = "attachment"
PATH = "/buckets/{bucket_id}/collections/{collection_id}/records/{id}/attachment"

View = Callable[[Request], Response]


class NoContent(HTTPNoContent):  # type: ignore[misc]
    """A 204 that can be part of a batch: Kinto reads the JSON of each part."""

    json = property(lambda self: {})


def service(*, readonly: bool, default_bucket: bool) -> Service:
    attachment = Service(
        name=ROUTE,
        path=outside_default_bucket(PATH) if default_bucket else PATH,
        description="The file attached to a record",
        factory=RecordContext,
    )
    # Cornice answers HEAD wherever it answers GET.
    views: list[tuple[str, View, dict[str, Any]]] = [
        ("GET", get_attachment, openapi.download_of_record())
    ]
    if not readonly:
        views += [
            ("POST", post_attachment, openapi.upload_of_form()),
            ("PUT", put_attachment, openapi.upload_of_body()),
            ("PATCH", patch_attachment, openapi.renaming()),
            ("DELETE", delete_attachment, openapi.removal()),
        ]
    for method, view, described in views:
        attachment.add_view(method, view, permission=DYNAMIC, **described)
    return attachment


def outside_default_bucket(path: str) -> str:
    """The path without the default_bucket plugin's, in any order of ``kinto.includes``."""
    return path.replace("{bucket_id}", "{bucket_id:(?!default/)[^/]+}")


@counted
def post_attachment(request: Request) -> Response:
    """Attach the file of a form to the record, and set its attributes and permissions.

    With JSON, the file is that of another record.
    """
    refuse_parts(request)
    return upload(request, CopyArrival if is_copy(request) else FormArrival)


def put_attachment(request: Request) -> Response:
    """Attach the request's body to the record, or begin an upload (HTTP's draft)."""
    protocol = protocol_of(request)
    if protocol is None:
        return put_file(request)
    step = step_of(request, protocol)
    if not isinstance(step, Create) or not step.complete:
        return create(request, filename=request.GET.get("filename", ""))
    response = put_file(request)
    return respond(protocol.answer(step, whole(request, response), limits_of(request)))


def delete_attachment(request: Request) -> Response:
    """Detach the file from the record, and delete it."""
    record = request.context.existing_record()
    check_preconditions(request)
    if record.get(FIELD) is not None:
        refuse_locked_record(request)
        holds.refuse_change(request, request.context.uri, record[FIELD], None)
        records.write(request, None, None, None)
    return NoContent()


def patch_attachment(request: Request) -> Response:
    """Give the file another name or media type, without another upload."""
    attachment = request.context.existing_record().get(FIELD)
    if not isinstance(attachment, dict):
        raise FileNotFound("The record has no attachment.")
    check_preconditions(request)
    refuse_locked_record(request)
    renamed = rename(request, attachment)
    return answer(request, records.write(request, None, None, renamed), renamed)


@downloads.following
def get_attachment(request: Request) -> Response:
    """The record's current file, with its own name or the one that the query requests."""
    context, registry = request.context, request.registry
    metadata = context.existing_record().get(FIELD)
    source = current_source(registry, str(context.uri), metadata)
    storage = registry.attachment_storages[source.storage]
    file = downloads.StoredFile.find(storage, source.key, source.described)
    file = downloads.as_requested(request, file)
    response = downloads.respond(request, file, rules_of(request), downloads.CURRENT)
    downloads.announce(request, response, str(context.uri), metadata)
    return response


# The steps.


def upload(request: Request, arrival: type[Arrival]) -> Response:
    """Attach a file that arrives in the given way."""
    check_preconditions(request)
    refuse_upload(request)
    try:
        written, attachment = attach(request, arrival)
    except QuotaExceeded as error:
        if not in_batch(request):
            raise
        # Other errors of 500 and above fail the whole batch.
        raise cast(HTTPException, error_view(error, request)) from error
    response = answer(request, written, attachment.to_json())
    name_version(request, response, attachment)
    return response


def is_copy(request: Request) -> bool:
    """Whether a POST names another record instead of sending a file."""
    content_type: str = request.content_type
    return content_type == "application/json"


@counted
def put_file(request: Request) -> Response:
    return upload(request, BodyArrival)


def refuse_parts(request: Request) -> None:
    """Refuse a body that may be a part of a file, because only whole files are accepted.

    :raises AttachmentError: the client uses a protocol for uploads in several requests.
    """
    protocol = protocol_of(request)
    if protocol is not None:
        step_of(request, protocol)
        raise UnsupportedType()


def whole(request: Request, response: Response) -> Progress:
    """The response headers of a protocol for a file that was sent in one request."""
    headers, attachment = response.headers, response.json
    sent = attachment.get("original", attachment)
    url = f"/{request.registry.route_prefix}{request.context.uri}"
    attached = Attached(
        response.status_code,
        headers["ETag"],
        headers["Last-Modified"],
        attachment,
        headers["Attachment-Version"],
    )
    return Progress(url, url, "done", sent["size"], sent["size"], 0, attached)


def answer(request: Request, written: records.Written, body: dict[str, Any]) -> Response:
    response = Response(status=written.status, json=body)
    response.headers["Location"] = f"/{request.registry.route_prefix}{request.context.uri}"
    response.headers["ETag"] = written.etag
    response.headers["Last-Modified"] = written.last_modified
    return response


def name_version(request: Request, response: Response, attachment: Attachment) -> None:
    """Add the id of the record's new version to the response."""
    key = Ledger.of(request).key_of(str(request.context.uri), attachment.to_json())
    if key is not None:
        response.headers["Attachment-Version"] = digest_of(key)
