"""Direct uploads: clients send the bytes to URLs, and the server attaches the file at the end."""

from __future__ import annotations

import re
from typing import Any

from pyramid.response import Response

from kinto_attachment.endpoints.counting import counting
from kinto_attachment.endpoints.preconditions import check_preconditions
from kinto_attachment.endpoints.protection import refuse_upload
from kinto_attachment.endpoints.upload_answers import described
from kinto_attachment.endpoints.upload_requests import refuse_batches
from kinto_attachment.errors import InvalidForm
from kinto_attachment.files import direct_bodies, direct_completion, direct_uploads
from kinto_attachment.files.copying import fields_of
from kinto_attachment.files.direct_uploads import Wanted
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.session_arrival import SessionArrival, attach_session
from kinto_attachment.http.streams import Claim, ClaimedDigests
from kinto_attachment.http.upload_steps import LARGEST, Create
from kinto_attachment.index.objects import digest_of
from kinto_attachment.index.session import KINTO, STORAGE, Session
from kinto_attachment.kinto_types import Request
from kinto_attachment.quantities import duration

HOUR, WEEK = 3600, 7 * 24 * 3600
MEMBERS = ("attachment", "expires_in", "via")
ATTACHMENT_MEMBERS = ("filename", "size", "mimetype", "hash")
RETRY_AFTER = "1"  # Seconds. The next request continues where this one stopped.


def create(request: Request) -> Response:
    """Begin an upload, and return the URLs for its bytes."""
    refuse_batches(request)
    check_preconditions(request)
    session = Ledger.of(request).session
    if session is None:  # Otherwise, this is the same request, repeated by a tween.
        refuse_upload(request)
        session = direct_uploads.create(request, wanted(request))
    response = Response(status=201, json={"data": state_of(request, session)})
    prefix = request.registry.route_prefix
    response.headers["Location"] = f"/{prefix}{session.record}/attachment/uploads/{session.upload}"
    return response


def complete(request: Request) -> Response:
    """Attach the file if its bytes have arrived, or continue to compute its hash."""
    refuse_batches(request)
    upload = request.matchdict["upload"]
    # If a tween repeats the request, only the attaching is left.
    session = Ledger.of(request).attaching or direct_completion.begin_finish(request, upload)
    if session.state == "finishing" and not session.sha256:
        session = direct_completion.read_on(request, session)
        if session.state == "finishing" and not session.sha256:
            return unfinished(request, session)
    return finish(request, session, SessionArrival)


def put_bytes(request: Request) -> Response:
    """Receive the file of an upload from the holder of its URL, and attach it."""
    refuse_batches(request)
    session = direct_bodies.session_of_token(request, request.matchdict["upload"])
    Ledger.of(request).session = session
    return finish(request, session, direct_bodies.DirectArrival)


# The steps.


def finish(request: Request, session: Session, kind: Any) -> Response:
    if session.state != "done":
        with counting(request) as outcome:
            session, outcome.is_own = attach_session(request, kind)
            outcome.status = (session.result or {})["status"]
    return attached(request, session)


def attached(request: Request, session: Session) -> Response:
    """The response that POST of a form would have had."""
    result = dict(session.result or {})
    response = Response(status=result["status"], json=result["attachment"])
    response.headers.update(
        {
            "Location": f"/{request.registry.route_prefix}{session.record}",
            "ETag": result["etag"],
            "Last-Modified": result["last_modified"],
            "Attachment-Version": digest_of(session.key),
        }
    )
    return response


def unfinished(request: Request, session: Session) -> Response:
    response = Response(status=202, json={"data": state_of(request, session)})
    response.headers["Retry-After"] = RETRY_AFTER
    return response


def state_of(request: Request, session: Session) -> dict[str, Any]:
    """The JSON of an upload; while it is open, with fresh URLs."""
    if session.state != "open" or request.registry.attachment_settings.readonly:
        offset = session.read if session.state == "finishing" else session.size
        return {**described(session), "via": session.via, "offset": offset}
    offer = direct_uploads.offer(request, session)
    parts = [
        {
            "number": part.number,
            "offset": part.offset,
            "size": part.size,
            "method": "PUT",
            "url": part.url,
            "headers": part.headers,
            "done": part.number in offer.arrived,
        }
        for part in offer.parts
    ]
    return {
        **described(offer.session),
        "via": session.via,
        "offset": offer.offset,
        "url_expires_at": offer.expires_at,
        "parts": parts,
    }


def wanted(request: Request) -> Wanted:
    """The upload that the JSON of a request describes.

    :raises InvalidForm: it is not that of a direct upload.
    """
    fields = fields_of(request, *MEMBERS)
    file = fields.get("attachment")
    if not isinstance(file, dict):
        raise InvalidForm("attachment in body: should be an object with filename and size")
    if unknown := sorted(file.keys() - {*ATTACHMENT_MEMBERS}):
        raise InvalidForm(f"attachment in body: {unknown[0][:100]!r} not in {ATTACHMENT_MEMBERS}")
    step = Create(
        length=size_of(file.get("size")),
        filename=text_of(file, "filename") or "",
        mimetype=text_of(file, "mimetype"),
        data=fields.get("data"),
        permissions=fields.get("permissions"),
        file_claims=claims_of(text_of(file, "hash")),
    )
    if not step.filename:
        raise InvalidForm("attachment.filename in body: Filename is required.")
    via = text_of(fields, "via", "")
    if via not in (None, STORAGE, KINTO):
        raise InvalidForm(f"via in body: should be {STORAGE} or {KINTO}")
    return Wanted(step, urls_age(fields.get("expires_in", HOUR)), via)


def size_of(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise InvalidForm("attachment.size in body: should be the number of bytes")
    return value


def text_of(members: dict[str, Any], name: str, where: str = "attachment.") -> str | None:
    value = members.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidForm(f"{where}{name} in body: should be a text")
    return value


def claims_of(sha256: str | None) -> ClaimedDigests:
    if sha256 is None:
        return ClaimedDigests()
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise InvalidForm("attachment.hash in body: should be a SHA-256 in hex")
    return ClaimedDigests((Claim("hash", "sha256", bytes.fromhex(sha256)),))


def urls_age(value: object) -> int:
    try:
        seconds = int(duration(value))
    except ValueError as error:
        raise InvalidForm(f"expires_in in body: {error}") from error
    if not 1 <= seconds <= WEEK:
        raise InvalidForm(f"expires_in in body: should be 1 to {WEEK} seconds")
    return seconds
