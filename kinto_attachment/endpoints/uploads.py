"""``…/attachment/uploads``: a record's file in several requests, by tus or HTTP's draft."""

from __future__ import annotations

from typing import Any

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED

from kinto_attachment.endpoints import direct_uploads, openapi
from kinto_attachment.endpoints.attachment import (
    PATH as ATTACHMENT,
    NoContent,
    outside_default_bucket,
)
from kinto_attachment.endpoints.context import RecordContext
from kinto_attachment.endpoints.pages import Page
from kinto_attachment.endpoints.upload_answers import JSON, described, protocol_of, step_of
from kinto_attachment.endpoints.upload_context import UploadContext, UploadsOfCollection
from kinto_attachment.endpoints.upload_requests import (
    NO_PROTOCOL,
    answer,
    create,
    finish,
    receive,
    refuse_batches,
    spoken,
)
from kinto_attachment.errors import UnsupportedType
from kinto_attachment.files import session_writes, upload_sessions
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.locations import UPLOAD_ROUTE as UPLOAD_ROUTE
from kinto_attachment.http.upload_steps import (
    Append,
    Cancel,
    Inspect,
    UploadProtocol,
)
from kinto_attachment.index.session import DIRECT, Session
from kinto_attachment.kinto_types import Request

ROUTE, LIST_ROUTE, COMPLETION_ROUTE = "uploads", "collection-uploads", "upload-completion"
PATH = f"{ATTACHMENT}/uploads"
UPLOAD_PATH = f"{PATH}/{{upload}}"
COMPLETION_PATH = f"{UPLOAD_PATH}/complete"
LIST_PATH = "/buckets/{bucket_id}/collections/{collection_id}/attachments/uploads"


def services(*, readonly: bool, default_bucket: bool) -> list[Service]:
    def service(name: str, path: str, description: str, factory: type) -> Service:
        path = outside_default_bucket(path) if default_bucket else path
        return Service(name=name, path=path, description=description, factory=factory)

    uploads = service(ROUTE, PATH, "Uploads in several requests", RecordContext)
    upload = service(UPLOAD_ROUTE, UPLOAD_PATH, "An upload in several requests", UploadContext)
    completion = service(
        COMPLETION_ROUTE, COMPLETION_PATH, "The end of a direct upload", UploadContext
    )
    listing = service(LIST_ROUTE, LIST_PATH, "Unfinished uploads", UploadsOfCollection)
    listing.add_view("GET", get_uploads, permission=DYNAMIC, **openapi.upload_list())
    # The view checks the permission, since other users must not see that the upload exists.
    of_upload: dict[str, Any] = {"permission": NO_PERMISSION_REQUIRED}
    upload.add_view("GET", get_upload, **of_upload, **openapi.upload_state())
    if not readonly:
        uploads.add_view("POST", post_uploads, permission=DYNAMIC, **openapi.upload_creation())
        upload.add_view("PATCH", patch_upload, **of_upload, **openapi.upload_append())
        upload.add_view("POST", patch_upload, **of_upload, **openapi.upload_override())
        upload.add_view("PUT", direct_uploads.put_bytes, **of_upload, **openapi.direct_bytes())
        upload.add_view("DELETE", delete_upload, **of_upload, **openapi.upload_cancellation())
        completion.add_view(
            "POST", direct_uploads.complete, **of_upload, **openapi.upload_completion()
        )
    return [uploads, upload, completion, listing]


def post_uploads(request: Request) -> Response:
    """Create an upload, possibly with the first bytes of the file, or (JSON) a direct upload."""
    if protocol_of(request) is None and request.content_type == JSON:
        return direct_uploads.create(request)
    return create(request, filename="")


def patch_upload(request: Request) -> Response:
    """Append bytes, or do what a header of the protocol says instead."""
    refuse_batches(request)
    protocol = spoken(request)
    step = step_of(request, protocol)
    if isinstance(step, Append):
        return append(request, protocol, step)
    if isinstance(step, Inspect):
        return inspect(request)
    if isinstance(step, Cancel):
        return cancel(request)
    raise UnsupportedType(NO_PROTOCOL)


def get_upload(request: Request) -> Response:
    """The state of an upload: as JSON, or (HEAD) in the headers of its protocol."""
    if request.method == "HEAD":
        refuse_batches(request)
        return inspect(request)
    session = upload_sessions.look_at(request, request.matchdict["upload"])
    if session.protocol == DIRECT:
        return Response(json={"data": direct_uploads.state_of(request, session)})
    return Response(json={"data": described(session)})


def delete_upload(request: Request) -> Response:
    """End an upload, and remove its stored bytes."""
    refuse_batches(request)
    return cancel(request)


def get_uploads(request: Request) -> Response:
    """The unfinished uploads in a collection, page by page, for users who may write it."""
    sessions = upload_sessions.unfinished_in(request, collection_of(request))
    page = Page.of(request, sessions, lambda session: (session.created, session.id), (int, str))
    response = Response(json={"data": [listed(session) for session in page.items]})
    response.headers.update(page.headers())
    return response


# The steps.


def collection_of(request: Request) -> str:
    ids = request.matchdict
    return f"/buckets/{ids['bucket_id']}/collections/{ids['collection_id']}"


def append(request: Request, protocol: UploadProtocol, step: Append) -> Response:
    session = Ledger.of(request).attaching
    if session is None:
        upload = request.matchdict["upload"]
        session = session_writes.start(
            request, upload, protocol.name, step, at_length=protocol.ends_at_length
        )
        session = receive(request, protocol, session, step)
    return finish(request, protocol, session, step)


def inspect(request: Request) -> Response:
    protocol = spoken(request)
    step = step_of(request, protocol)
    readonly = request.registry.attachment_settings.readonly
    upload = request.matchdict["upload"]
    session = upload_sessions.inspect(request, upload, protocol.name, fence=not readonly)
    return answer(request, protocol, session, step)


def cancel(request: Request) -> Response:
    protocol = protocol_of(request)
    step = Cancel() if protocol is None else step_of(request, protocol)
    session = upload_sessions.cancel(request, request.matchdict["upload"])
    if protocol is None:
        return NoContent()
    return answer(request, protocol, session, step)


def listed(session: Session) -> dict[str, Any]:
    return {"record": session.record, **described(session), "created": session.created}
