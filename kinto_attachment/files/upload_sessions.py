"""Uploads in several requests: created, continued, and ended, whichever protocol asks for it.

Each change of a session is a short transaction of its own, and none is open while bytes arrive.
What a request writes is fenced by a token (see ``index/sessions.py``).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import cast

from kinto.core.authorization import DYNAMIC
from kinto.core.utils import msec_time
from pyramid.httpexceptions import HTTPForbidden

from kinto_attachment.errors import (
    AttachmentError,
    InvalidBody,
    OtherProtocol,
    TakenOver,
    TooLarge,
    TooManyUploads,
    UploadComplete,
    UploadGone,
    UploadNotFound,
    WrongLength,
    WrongOffset,
)
from kinto_attachment.files.keys import new_key
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.permissions import may_write_collection
from kinto_attachment.files.record_schemas import check_attributes
from kinto_attachment.files.session_ends import cancelled, end
from kinto_attachment.files.target import SessionTarget
from kinto_attachment.files.transactions import paused_transaction, separate_transaction
from kinto_attachment.files.uploads import Accepted, accept, count_bytes, disposition_of, rules_of
from kinto_attachment.http import saved_hashes
from kinto_attachment.http.arriving import Arriving
from kinto_attachment.http.streams import ClaimedDigests
from kinto_attachment.http.upload_steps import Append, Create
from kinto_attachment.index.session import ANONYMOUS, Session, partial_id
from kinto_attachment.kinto_types import Request
from kinto_attachment.storage import ContinuesWrites, Partial
from kinto_attachment.wsgi.bodies import body_of, check_size

NOT_POSSIBLE = "The files of this collection cannot be uploaded in several requests: "


def create(request: Request, protocol: str, step: Create, filename: str) -> Session:
    """Begin an upload. Its request is refused for whatever a form would be refused for.

    :raises AttachmentError, HTTPException: nothing was stored.
    """
    rules, length = rules_of(request), step.length
    if rules.gzipped:
        raise InvalidBody(f"{NOT_POSSIBLE}{rules.setting('gzipped')} is set.")
    if length is not None:
        check_size(length, rules.max_size, rules.min_size)
    check_attributes(request, step.data, step.permissions)
    accepted = accept(request, filename, step.mimetype, length)
    files = continuing(request, rules.storage)
    if length is not None and 0 < files.largest_partial < length:
        raise TooLarge(f"The storage takes at most {files.largest_partial} bytes in this way.")
    make_room(request)
    session = begin(request, protocol, step, accepted)
    Ledger.of(request).session = session
    return session


def begin(request: Request, protocol: str, step: Create, accepted: Accepted) -> Session:
    """Begin the file in the storage, and then write the session's row.

    If the process dies in between, gc removes what was stored.
    """
    upload = secrets.token_hex(16)
    rules, storage = accepted.rules, accepted.storage
    key = new_key(request, rules, storage, accepted.filename, session=partial_id(upload))
    now = msec_time()
    context = request.context
    session = Session(
        upload=upload,
        record=str(context.uri),
        owner=user_of(request),
        protocol=protocol,
        filename=accepted.filename,
        mimetype=accepted.mimetype,
        storage=storage.name,
        key=key,
        created=now,
        expires=expiry(request, now, now),
        length=step.length,
        data=step.data,
        permissions=step.permissions,
        preconditions=dict(context.preconditions),
        claims=dumped(step.file_claims),
        notes=step.notes,
        implicit_parents=context.implicit_parents,
        writer=new_token() if step.has_content else "",
        state="finishing" if step.complete and step.length == 0 else "open",
    )
    partial = continuing(request, storage.name).begin(
        session.id,
        key,
        accepted.mimetype,
        disposition=disposition_of(rules, accepted.filename, accepted.mimetype),
        length=step.length,
    )
    session = replace(session, partial=asdict(partial))
    with separate_transaction(request):
        request.registry.attachment_sessions.put(session)
    return session


@contextmanager
def ended_by_errors(request: Request, session: Session) -> Iterator[None]:
    """End a session whose creation fails: nobody was told where it is."""
    try:
        yield
    except AttachmentError as error:
        with paused_transaction():
            end(request.registry, session, "failed", cancelled(str(error)))
        Ledger.of(request).session = None
        raise


def start(
    request: Request, upload: str, protocol: str, step: Append, *, at_length: bool
) -> Session:
    """Begin to continue an upload, and put the writer before out of force, if it still runs.

    The session that is returned has the token of this request, unless there is nothing to write:
    the request repeats the last one of an upload that is whole.
    """
    sessions = request.registry.attachment_sessions
    with separate_transaction(request), sessions.alone():
        session = found(request, sessions.lock(str(request.context.uri), upload), protocol)
        target = cast(SessionTarget, request.context)
        target.session = session
        if not request.has_permission(DYNAMIC, target):
            raise HTTPForbidden()
        if session.is_unfinished:
            session = with_length(request, session, step)
        if session.state == "open" and at_length and session.is_whole:
            # The process died between the last byte and what follows.
            session = replace(taken_over(request, session), state="finishing")
            sessions.put(session)
        if session.state != "open":
            check_repetition(request, session, step)
            return session
        if step.offset != session.size:
            raise WrongOffset(f"{WrongOffset.message} It is {session.size}.")
        session = taken_over(request, session)
        session = replace(session, writer=new_token(), last=step.offset)
        if step.file_claims:
            session = replace(session, claims=dumped(step.file_claims))
        sessions.put(session)
    return session


def receive(
    request: Request, session: Session, step: Create | Append, *, at_length: bool
) -> Session:
    """Append the bytes of a request to an upload, and commit what is durable from time to time.

    ``at_length`` says whether the file is whole as soon as it has its length.

    :raises TakenOver: another request has put this one out of force.
    :raises AttachmentError: what had arrived was kept, unless the bytes have a digest.
    """
    if session.state != "open":
        return session
    registry = request.registry
    sessions = registry.attachment_sessions
    arriving = arriving_bytes(request, session, step)

    def commit(session: Session) -> None:
        with separate_transaction(request), sessions.alone():
            if not sessions.commit(session, writer):
                raise TakenOver()

    def grown(partial: Partial) -> Session:
        now = msec_time()
        return replace(
            session,
            partial=asdict(partial),
            hash=arriving.saved(),
            expires=expiry(request, session.created, now),
        )

    def checkpoint(partial: Partial) -> None:
        if not step.claims:
            commit(grown(partial))
            return
        with separate_transaction(request):
            if not sessions.is_writer(session):
                raise TakenOver()

    writer = session.writer
    storage = registry.attachment_storages[session.storage]
    partial = Partial(**(session.partial or {}))
    if request.content_length != 0:
        partial = continuing(request, session.storage).append(partial, arriving, checkpoint)
    if step.claims:
        arriving.check(step.claims)
    after = replace(grown(partial), writer="")
    is_end = step.complete and arriving.error is None
    if is_end and after.length is None:
        after = replace(after, length=after.size)
    if after.is_whole and (is_end or at_length):
        after = replace(after, state="finishing")
    commit(after)
    count_bytes(request, storage, after.size - session.size)
    Ledger.of(request).session = after
    if after.state == "open":
        if arriving.error is not None:
            raise arriving.error
        if is_end:
            raise WrongLength()
    return after


def inspect(request: Request, upload: str, protocol: str, *, fence: bool) -> Session:
    """An upload as it is now; a request that may still be writing to it is put out of force."""
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
    """An upload as it is now, also if it has ended, for its owner."""
    uri = str(request.context.uri)
    return owned(request, request.registry.attachment_sessions.get(uri, upload))


def unfinished_in(request: Request, collection: str) -> list[Session]:
    return request.registry.attachment_sessions.unfinished_in(collection, msec_time())


def cancel(request: Request, upload: str) -> Session:
    """End an upload, and remove what is stored of it. A file that is attached stays so.

    Besides its owner, whoever may write the collection may do this.
    """
    registry, uri = request.registry, request.context.uri
    sessions = registry.attachment_sessions
    with separate_transaction(request):
        session = sessions.get(str(uri), upload)
        if session is not None and may_write_collection(request, uri.collection):
            session = living(request, session.seen_at(msec_time()))
        else:
            session = living(request, owned(request, session))
        if session.state == "done":
            sessions.delete(session)
    if session.is_unfinished:
        with paused_transaction():
            end(registry, session, "failed", cancelled("It was cancelled."))
    return session


# The steps.


def found(request: Request, session: Session | None, protocol: str) -> Session:
    """The session, for its owner, as long as it has not ended without a file.

    :raises UploadNotFound: there is none, or it is somebody else's.
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


def user_of(request: Request) -> str:
    """The principal of the request's user, which Kinto only knows after authenticating it."""
    known = request.authenticated_userid is not None and request.prefixed_userid
    return known or ANONYMOUS


def owned(request: Request, session: Session | None) -> Session:
    if session is None or session.owner not in (ANONYMOUS, user_of(request)):
        raise UploadNotFound()
    return session.seen_at(msec_time())


def with_length(request: Request, session: Session, step: Append) -> Session:
    """The session with the length that a request tells, or whose content it fills."""
    content, length = request.content_length, step.length
    if step.complete and content is not None:
        end = step.offset + content
        if length is not None and length != end:
            raise WrongLength()
        length = end
    if length is None:
        return session
    if session.length not in (None, length) or length < session.size:
        raise WrongLength()
    if session.length is None:
        rules = rules_of(request)
        check_size(length, rules.max_size, rules.min_size)
    return replace(session, length=length)


def check_repetition(request: Request, session: Session, step: Append) -> None:
    """Whether a request may be the last one of an upload that is whole, sent again.

    :raises WrongOffset, WrongLength, UploadComplete: it is not.
    """
    length = session.size
    end = step.offset + (request.content_length or 0)
    if step.offset <= length < end or step.length not in (None, length):
        raise WrongLength()
    if step.offset not in (session.last, length - 1, length):
        raise UploadComplete() if session.state == "done" else WrongOffset()


def taken_over(request: Request, session: Session) -> Session:
    """The session without its writer, which may still be running."""
    if not session.writer:
        return session
    request.registry.metrics.count("attachments.uploads_resumed")
    partial = continuing(request, session.storage).take_over(Partial(**(session.partial or {})))
    return replace(session, partial=asdict(partial), writer="")


def arriving_bytes(request: Request, session: Session, step: Create | Append) -> Arriving:
    """The bytes of a request that belong to the file.

    :raises TooLarge: the request's length shows that there are too many.
    """
    with separate_transaction(request):  # It may ask the database, whose connection is not kept.
        rules = rules_of(request)
    limits = [rules.max_size, continuing(request, session.storage).largest_partial]
    limits = [limit for limit in (*limits, session.length) if limit]
    left = min(limits) - session.size if limits else None
    if left is not None and (request.content_length or 0) > left:
        raise TooLarge(f"body: The file has more than {min(limits)} bytes.")
    saved = None if session.hash is None else saved_hashes.sha256(session.hash)
    return Arriving(body_of(request), saved, left, step.claims)


def continuing(request: Request, name: str) -> ContinuesWrites:
    files = request.registry.attachment_storages[name].files
    if not isinstance(files, ContinuesWrites):
        raise InvalidBody(f"{NOT_POSSIBLE}their storage cannot do it.")
    return files


def make_room(request: Request) -> None:
    """Refuse to begin more uploads than a user may have in a collection.

    Anonymous writers are one user. Among theirs, the oldest one that has brought nothing goes.

    :raises TooManyUploads: the user has to finish or cancel some.
    """
    most = request.registry.attachment_settings["uploads.max_unfinished"]
    owner = user_of(request)
    sessions = request.registry.attachment_sessions
    with separate_transaction(request):
        collection = request.context.uri.collection
        unfinished = sessions.unfinished_of(collection, owner, msec_time())
    if len(unfinished) < most:
        return
    empty = [each for each in unfinished if each.state == "open" and not each.size]
    if owner != ANONYMOUS or not empty:
        raise TooManyUploads()
    oldest = min(empty, key=lambda each: each.created)
    with paused_transaction():
        end(request.registry, oldest, "failed", cancelled("It made room for another upload."))


def expiry(request: Request, created: int, active: int) -> int:
    settings = request.registry.attachment_settings
    idle, age = settings["uploads.idle_age"], settings["uploads.max_age"]
    return int(min(created + age * 1000, active + idle * 1000))


def new_token() -> str:
    return secrets.token_hex(8)


def dumped(claims: ClaimedDigests) -> tuple[tuple[str, str, str], ...]:
    return tuple((each.header, each.algorithm, each.digest.hex()) for each in claims.claims)
