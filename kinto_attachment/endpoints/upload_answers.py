"""The responses to uploads in several requests, in the form of their protocol."""

from __future__ import annotations

import re
from typing import Any

from kinto.core.utils import msec_time
from pyramid.response import Response as PyramidResponse

from kinto_attachment.errors import AttachmentError
from kinto_attachment.files.forms import json_object
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.uploads import rules_of
from kinto_attachment.http.resumable import ResumableUploads
from kinto_attachment.http.tus import Tus
from kinto_attachment.http.upload_steps import (
    Answer,
    Attached,
    Head,
    Limits,
    Progress,
    Step,
    UploadProtocol,
)
from kinto_attachment.index.objects import digest_of
from kinto_attachment.index.session import Session
from kinto_attachment.kinto_types import Request, Response, ResponseEvent
from kinto_attachment.settings import CollectionSettings
from kinto_attachment.storage import ContinuesWrites

TUS: UploadProtocol = Tus(json_object)
DRAFT: UploadProtocol = ResumableUploads()
PROTOCOLS = (TUS, DRAFT)

# The paths of the protocols. Each creates uploads at another path.
UPLOAD = re.compile(r"/attachment/uploads/[^/]+/?\Z")
UPLOADS = re.compile(r"/attachment/uploads/?\Z")
ATTACHMENT = re.compile(r"/attachments?/?\Z")

JSON = "application/json"


def head_of(request: Request) -> Head:
    path = request.environ["PATH_INFO"]
    return Head(request.method, request.headers, of_upload=bool(UPLOAD.search(path)))


def protocol_of(request: Request) -> UploadProtocol | None:
    """The protocol of a request; None if it is another kind of request."""
    path, head = request.environ.get("PATH_INFO", ""), head_of(request)
    spoken = (
        *((TUS,) if UPLOADS.search(path) else ()),
        *((DRAFT,) if ATTACHMENT.search(path) else ()),
        *(PROTOCOLS if UPLOAD.search(path) else ()),
    )
    return next((protocol for protocol in spoken if protocol.recognizes(head)), None)


def step_of(request: Request, protocol: UploadProtocol) -> Step:
    return protocol.read(head_of(request))


def respond(answer: Answer) -> PyramidResponse:
    response = PyramidResponse(status=answer.status)
    response.content_type = None if answer.json is None else JSON
    say(response, answer)
    return response


def progress_of(request: Request, session: Session) -> Progress:
    session = session.seen_at(msec_time())
    result, version = session.result, digest_of(session.key)
    prefix = f"/{request.registry.route_prefix}"
    return Progress(
        url=f"{prefix}{session.record}/attachment/uploads/{session.upload}",
        record_url=f"{prefix}{session.record}",
        state=session.state,
        offset=session.size,
        length=session.length if session.state != "done" else session.size,
        expires=session.expires,
        attached=None if result is None else Attached(**result, version=version),
        error=None if session.error is None else dict(session.error),
        notes=session.notes,
    )


def described(session: Session) -> dict[str, Any]:
    """The JSON of an upload."""
    body: dict[str, Any] = {
        "id": session.upload,
        "state": session.state,
        "filename": session.filename,
        "size": session.size if session.state == "done" else session.length,
        "offset": session.size,
        "expires_at": session.expires,
    }
    if session.error is not None:
        body["error"] = session.error
    return body


def limits_of(request: Request, session: Session | None = None) -> Limits:
    """The limits of the request's collection; the remaining time is that of ``session``."""
    return limits_by(request, rules_of(request), session)


def limits_by(
    request: Request, rules: CollectionSettings, session: Session | None = None
) -> Limits:
    files = request.registry.attachment_storages[rules.storage].files
    sizes = [rules.max_size, files.largest_partial if isinstance(files, ContinuesWrites) else 0]
    age = int(request.registry.attachment_settings["uploads.idle_age"])
    if session is not None:
        age = max(0, (session.expires - msec_time()) // 1000)
    return Limits(
        max_size=min(filter(None, sizes), default=0), min_size=rules.min_size, max_age=age
    )


def announced(request: Request, *protocols: UploadProtocol) -> dict[str, str]:
    """The headers with which protocols announce the limits of the request's collection."""
    ids = request.matchdict
    rules = request.registry.attachment_collection_settings.of(
        request, ids["bucket_id"], ids["collection_id"]
    )
    headers: dict[str, str] = {}
    for protocol in protocols:
        headers |= protocol.announce(limits_by(request, rules)).headers
    return headers


def on_error(event: ResponseEvent) -> None:
    """Write errors of any origin in the form of the request's protocol."""
    request, response = event.request, event.response
    if response.status_code < 400 or response.content_type != JSON:
        return
    protocol = None if getattr(request, "parent", None) else protocol_of(request)
    if protocol is None:
        return
    session = Ledger.of(request).session
    progress = None if session is None else progress_of(request, session)
    # Only these responses have limits. Finding limits may need the database, which may have
    # failed.
    context = getattr(request, "context", None)
    of_limits = response.status_code == 413 and hasattr(context, "uri")
    limits = limits_of(request, session) if of_limits else Limits()
    error = getattr(request, "exception", None) or AttachmentError()
    say(response, protocol.refuse(head_of(request), error, response.json, progress, limits))


def say(response: Response, answer: Answer) -> None:
    """Apply the status and the headers of a protocol to a response."""
    response.status_code = answer.status
    if answer.json is not None:
        response.json = answer.json
    response.headers.update(answer.headers)
