"""Finding uploads in several requests for the requests of their owners.

Each change of a session has its own short transaction. None is open while bytes arrive.
"""

from __future__ import annotations

from kinto.core.utils import msec_time

from kinto_attachment.errors import OtherProtocol, UploadGone, UploadNotFound
from kinto_attachment.files.direct_activity import as_of_now
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.permissions import may
from kinto_attachment.files.session_ends import cancelled, end
from kinto_attachment.files.session_writers import taken_over
from kinto_attachment.files.transactions import paused_transaction, separate_transaction
from kinto_attachment.index.session import ANONYMOUS, Session
from kinto_attachment.kinto_types import Request


def inspect(request: Request, upload: str, protocol: str, *, fence: bool) -> Session:
    """The current upload. A request that is still writing to it cannot commit any more."""
    sessions = request.registry.attachment_sessions
    uri = str(request.context.uri)
    session = found(request, sessions.get(uri, upload), protocol)
    if session.state == "open" and session.writer and fence:
        with separate_transaction(request), sessions.alone():
            session = found(request, sessions.lock(uri, upload), protocol)
            if session.state == "open" and session.writer:
                session = taken_over(request, session)
                sessions.put(session)
    Ledger.of(request).session = session
    return session


def look_at(request: Request, upload: str) -> Session:
    """The current upload for its owner, even if it has ended."""
    uri = str(request.context.uri)
    return owned(request, request.registry.attachment_sessions.get(uri, upload))


def unfinished_in(request: Request, collection: str) -> list[Session]:
    return request.registry.attachment_sessions.unfinished_in(collection, msec_time())


def cancel(request: Request, upload: str) -> Session:
    """End an upload, and remove its stored bytes. An attached file stays attached.

    Its owner, and users who may write the collection, may do this.
    """
    registry, uri = request.registry, request.context.uri
    sessions = registry.attachment_sessions
    with separate_transaction(request):
        session = sessions.get(str(uri), upload)
        if session is not None and may(request, "write", uri.collection):
            session = living(request, session.seen_at(msec_time()))
        else:
            session = living(request, owned(request, session))
        if session.state == "done":
            sessions.delete(session)
    if session.is_unfinished:
        with paused_transaction():
            end(registry, session, "failed", cancelled("It was cancelled."))
    return session


def found(request: Request, session: Session | None, protocol: str) -> Session:
    """The session, for its owner, as long as it has not ended without a file.

    :raises UploadNotFound: it does not exist, or belongs to another user.
    :raises OtherProtocol, UploadGone:
    """
    session = owned(request, session)
    Ledger.of(request).session = session
    if session.protocol != protocol:
        raise OtherProtocol(f"The upload was created by {session.protocol}.")
    return living(request, session)


def living(request: Request, session: Session) -> Session:
    """:raises UploadGone: the session has ended without a file."""
    Ledger.of(request).session = session
    if session.state in ("failed", "expired"):
        message = str((session.error or {}).get("message") or "It has expired.")
        raise UploadGone(f"{UploadGone.message} {message}")
    return session


def owned(request: Request, session: Session | None) -> Session:
    if session is None or session.owner not in (ANONYMOUS, user_of(request)):
        raise UploadNotFound()
    return as_of_now(request.registry, session)


def user_of(request: Request) -> str:
    """The principal of the request's user, which Kinto only knows after authenticating it."""
    known = request.authenticated_userid is not None and request.prefixed_userid
    return known or ANONYMOUS
