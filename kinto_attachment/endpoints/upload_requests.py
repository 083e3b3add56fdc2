"""The steps of requests that create an upload or add to it, at any path."""

from __future__ import annotations

from pyramid.response import Response

from kinto_attachment.endpoints.counting import counting
from kinto_attachment.endpoints.preconditions import check_preconditions
from kinto_attachment.endpoints.protection import refuse_upload
from kinto_attachment.endpoints.upload_answers import (
    limits_of,
    progress_of,
    protocol_of,
    respond,
    step_of,
)
from kinto_attachment.errors import InvalidBody, UnsupportedType
from kinto_attachment.files import session_creation, session_writes
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.session_arrival import attach_session
from kinto_attachment.files.transactions import in_batch
from kinto_attachment.http.upload_steps import Append, Create, Step, UploadProtocol
from kinto_attachment.index.session import Session
from kinto_attachment.kinto_types import Request

IN_BATCH = "Uploads in several requests cannot be part of a batch."
NO_PROTOCOL = (
    "The request names no protocol: it should have the header Tus-Resumable: 1.0.0, or "
    "Upload-Draft-Interop-Version: 8 if the upload began with PUT."
)
NO_CREATION = (
    "The request names no protocol: it should have the header Tus-Resumable: 1.0.0, or a body of "
    "the type application/json for a direct upload."
)


def create(request: Request, *, filename: str) -> Response:
    refuse_batches(request)
    protocol = spoken(request, otherwise=NO_CREATION)
    step = step_of(request, protocol)
    if not isinstance(step, Create):
        raise UnsupportedType(NO_CREATION)
    check_preconditions(request)
    session = Ledger.of(request).session
    if session is None:  # Otherwise, this is the same request, repeated by a tween.
        refuse_upload(request)
        session = session_creation.create(request, protocol.name, step, step.filename or filename)
        if step.has_content:
            with session_creation.ended_by_errors(request, session):
                session = receive(request, protocol, session, step)
    return finish(request, protocol, session, step)


def receive(
    request: Request, protocol: UploadProtocol, session: Session, step: Create | Append
) -> Session:
    at_length = protocol.ends_at_length
    return session_writes.receive(request, session, step, at_length=at_length)


def finish(
    request: Request, protocol: UploadProtocol, session: Session, step: Create | Append
) -> Response:
    """Attach the file if it is complete, and respond."""
    if session.state == "finishing":
        with counting(request) as outcome:
            session, outcome.is_own = attach_session(request)
            outcome.status = (session.result or {})["status"]
    return answer(request, protocol, session, step)


def answer(
    request: Request,
    protocol: UploadProtocol,
    session: Session,
    step: Step,
) -> Response:
    progress, limits = progress_of(request, session), limits_of(request, session)
    return respond(protocol.answer(step, progress, limits))


def spoken(request: Request, *, otherwise: str = NO_PROTOCOL) -> UploadProtocol:
    """:raises UnsupportedType: no upload protocol is used; the message is ``otherwise``."""
    protocol = protocol_of(request)
    if protocol is None:
        raise UnsupportedType(otherwise)
    return protocol


def refuse_batches(request: Request) -> None:
    """:raises InvalidBody: a batch could not undo the steps that are committed."""
    if in_batch(request):
        raise InvalidBody(IN_BATCH)
