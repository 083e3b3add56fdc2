"""The beginning of uploads in several requests: a file in the storage and a session's row."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from operator import attrgetter

from kinto.core.utils import msec_time

from kinto_attachment.errors import (
    AttachmentError,
    InvalidBody,
    QuotaExceeded,
    TooLarge,
    TooManyUploads,
)
from kinto_attachment.files import quotas
from kinto_attachment.files.direct_activity import has_bytes
from kinto_attachment.files.keys import new_key
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.record_schemas import check_attributes
from kinto_attachment.files.session_ends import cancelled, end, remove_stored
from kinto_attachment.files.session_writers import NOT_POSSIBLE, continuing, expiry, new_token
from kinto_attachment.files.session_writes import check_claims
from kinto_attachment.files.transactions import paused_transaction, separate_transaction
from kinto_attachment.files.upload_sessions import user_of
from kinto_attachment.files.uploads import Accepted, accept, disposition_of, rules_of
from kinto_attachment.http.upload_steps import Create
from kinto_attachment.index.session import ANONYMOUS, Session
from kinto_attachment.kinto_types import Request
from kinto_attachment.wsgi.bodies import check_size

# For anonymous writers: each attempt ends an empty upload, and other requests may be faster.
ATTEMPTS = 5
MOST = "uploads.max_unfinished"


def create(request: Request, protocol: str, step: Create, filename: str) -> Session:
    """Begin an upload. It is refused for the same reasons as a form.

    :raises AttachmentError, HTTPException: nothing was stored.
    """
    rules = rules_of(request)
    if rules.gzipped:
        raise InvalidBody(f"{NOT_POSSIBLE}{rules.setting('gzipped')} is set.")
    largest = continuing(request, rules.storage).largest_partial
    accepted = admit(request, step, filename, largest)
    session = begin(request, protocol, step, accepted)
    Ledger.of(request).session = session
    return session


def admit(request: Request, step: Create, filename: str, largest: int) -> Accepted:
    """Refuse an upload for the reasons of a form, or because there are too many.

    ``largest`` is the largest size that the storage accepts; 0 is no limit.

    :raises AttachmentError, HTTPException:
    """
    rules, length = rules_of(request), step.length
    if length is not None:
        check_size(length, rules.max_size, rules.min_size)
    check_claims(step.file_claims, length or 0)
    check_attributes(request, step.data, step.permissions)
    # The record's file stays until this one is complete.
    accepted = accept(request, filename, step.mimetype, length, replaces=False)
    if length is not None and 0 < largest < length:
        raise TooLarge(f"The storage takes at most {largest} bytes in this way.")
    make_room(request)
    return accepted


def begin(request: Request, protocol: str, step: Create, accepted: Accepted) -> Session:
    """Begin the file in the storage, and then write the session's row.

    If the process dies in between, gc removes the stored bytes.

    :raises TooManyUploads: nothing was stored.
    """
    session = keyed(request, new_session(request, protocol, step, accepted), accepted)
    partial = continuing(request, session.storage).begin(
        session.id,
        session.key,
        accepted.mimetype,
        disposition=disposition_of(accepted.rules, accepted.filename, accepted.mimetype),
        length=step.length,
    )
    session = replace(session, partial=asdict(partial))
    save(request, session)
    return session


def keyed(request: Request, session: Session, accepted: Accepted) -> Session:
    """The session with the key of its future file, which it owns."""
    rules, storage = accepted.rules, accepted.storage
    key = new_key(request, rules, storage, accepted.filename, session=session.id)
    return replace(session, key=key)


def save(request: Request, session: Session) -> None:
    """Write the row of a new upload; on failure, remove its file.

    :raises TooManyUploads, QuotaExceeded: nothing was stored.
    """
    try:
        enter(request, session)
    except (TooManyUploads, QuotaExceeded):
        with paused_transaction():
            remove_stored(request.registry, session)
        raise


def new_session(request: Request, protocol: str, step: Create, accepted: Accepted) -> Session:
    """A session that is not saved yet and has no key."""
    now = msec_time()
    context = request.context
    return Session(
        upload=secrets.token_hex(16),
        record=str(context.uri),
        owner=user_of(request),
        protocol=protocol,
        filename=accepted.filename,
        mimetype=accepted.mimetype,
        storage=accepted.storage.name,
        key="",
        created=now,
        expires=expiry(request.registry, now, now),
        length=step.length,
        data=step.data,
        permissions=step.permissions,
        preconditions=dict(context.preconditions),
        claims=step.file_claims.dump(),
        notes=step.notes,
        implicit_parents=context.implicit_parents,
        writer=new_token() if step.has_content else "",
        state="finishing" if step.complete and step.length == 0 else "open",
    )


def enter(request: Request, session: Session) -> None:
    """Write the row, unless concurrent requests have begun too many uploads.

    :raises TooManyUploads:
    :raises QuotaExceeded: the upload's first bytes exceed the quota.
    """
    sessions = request.registry.attachment_sessions
    for _ in range(ATTEMPTS):
        with separate_transaction(request), sessions.alone():
            if put_counted(request, session):
                return
        make_room(request)
    raise TooManyUploads()


def put_counted(request: Request, session: Session) -> bool:
    """Write the row and count the bytes; False if the owner has too many uploads.

    :raises QuotaExceeded: the transaction has to be rolled back.
    """
    registry = request.registry
    sessions, most = registry.attachment_sessions, registry.attachment_settings[MOST]
    with registry.attachment_usage.alone():
        if not sessions.put_within(most, session, msec_time()):
            return False
        try:
            quotas.resize(request, replace(session, counted=0), session)
        except QuotaExceeded:
            sessions.delete(session)  # A memory backend does not roll back.
            raise
    return True


@contextmanager
def ended_by_errors(request: Request, session: Session) -> Iterator[None]:
    """End a session whose creation fails. No client knows its URL."""
    try:
        yield
    except AttachmentError as error:
        with paused_transaction():
            end(request.registry, session, "failed", cancelled(str(error)))
        Ledger.of(request).session = None
        raise


def make_room(request: Request) -> None:
    """Refuse an upload if the user is known to have too many in the collection.

    Anonymous writers are one user. For them, the oldest upload without bytes is ended instead.

    :raises TooManyUploads: the user has to finish or cancel some.
    """
    most = request.registry.attachment_settings[MOST]
    owner = user_of(request)
    sessions = request.registry.attachment_sessions
    with separate_transaction(request):
        collection = request.context.uri.collection
        unfinished = sessions.unfinished_of(collection, owner, msec_time())
    if len(unfinished) < most:
        return
    if owner != ANONYMOUS:
        raise TooManyUploads()
    candidates = (each for each in unfinished if each.state == "open")
    by_age = sorted(candidates, key=attrgetter("created"))
    oldest = next((each for each in by_age if not has_bytes(request.registry, each)), None)
    if oldest is None:
        raise TooManyUploads()
    with paused_transaction():
        end(request.registry, oldest, "failed", cancelled("It made room for another upload."))
