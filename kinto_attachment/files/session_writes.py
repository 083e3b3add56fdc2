"""The bytes that a request adds to an upload.

The bytes are committed as they become durable. No transaction is open while they arrive, and none
of them is committed after another request has taken the upload over.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import cast

from kinto.core.authorization import DYNAMIC
from kinto.core.utils import msec_time
from pyramid.httpexceptions import HTTPForbidden

from kinto_attachment.errors import (
    QuotaExceeded,
    StorageError,
    TakenOver,
    TooLarge,
    UploadComplete,
    WrongLength,
    WrongOffset,
)
from kinto_attachment.files import quotas
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.session_writers import continuing, expiry, new_token, taken_over
from kinto_attachment.files.target import SessionTarget
from kinto_attachment.files.transactions import separate_transaction
from kinto_attachment.files.upload_sessions import found
from kinto_attachment.files.uploads import count_bytes, rules_of
from kinto_attachment.http import saved_hashes
from kinto_attachment.http.arriving import Arriving
from kinto_attachment.http.streams import ClaimedDigests
from kinto_attachment.http.upload_steps import Append, Create
from kinto_attachment.index.session import Session
from kinto_attachment.kinto_types import Request
from kinto_attachment.storage import Partial
from kinto_attachment.wsgi.bodies import body_of, check_size

# Bytes. Digests other than SHA-256 are not saved between requests: the last request reads the
# file, which should take a few seconds at most.
LARGEST_READ_BACK = 1024 * 1024 * 1024


def start(
    request: Request, upload: str, protocol: str, step: Append, *, at_length: bool
) -> Session:
    """Start to continue an upload. A previous writer that is still running cannot commit any more.

    The returned session has the token of this request. It does not if there is nothing to write,
    because the request repeats the last one of a complete upload.
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
            # The process died after the last byte and before the next step.
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
            end = step.offset + (request.content_length or 0)
            check_claims(step.file_claims, max(end, session.length or 0))
            session = replace(session, claims=step.file_claims.dump())
        sessions.put(session)
    return session


def receive(
    request: Request, session: Session, step: Create | Append, *, at_length: bool
) -> Session:
    """Append the bytes of a request to an upload, and regularly commit those that are durable.

    ``at_length`` says whether the file is complete when it has its length.

    :raises TakenOver: another request has taken the upload over.
    :raises AttachmentError: the bytes that arrived were kept, unless they have a digest.
    """
    if session.state != "open":
        return session
    return _Write(request, session, step).receive(at_length=at_length)


class _Write:
    """The write of a request that has the session's token."""

    def __init__(self, request: Request, session: Session, step: Create | Append) -> None:
        self.request = request
        self.session = self.committed = session
        self.step = step
        self.sessions = request.registry.attachment_sessions
        self.arriving = arriving_bytes(request, session, step)

    def receive(self, *, at_length: bool) -> Session:
        partial = Partial(**(self.session.partial or {}))
        if self.request.content_length != 0:
            partial = self.append(partial)
        if self.step.claims:
            self.arriving.check(self.step.claims)
        after = self.after(partial, at_length=at_length)
        self.commit(after)
        storage = self.request.registry.attachment_storages[after.storage]
        count_bytes(self.request, storage, after.size - self.session.size)
        if after.state == "open":
            if self.arriving.error is not None:
                raise self.arriving.error
            if self.step.complete:
                raise WrongLength()
        return after

    def append(self, partial: Partial) -> Partial:
        files = continuing(self.request, self.session.storage)
        length = self.request.content_length
        try:
            return files.append(partial, self.arriving, self.checkpoint, length=length)
        except StorageError:
            self.check_token()  # A cancellation removes the bytes that this request continues.
            raise

    def checkpoint(self, partial: Partial) -> None:
        """Commit the durable bytes. Bytes with a digest are kept together or not at all."""
        if self.step.claims:
            self.check_token()
        else:
            self.commit(self.grown(partial))

    def check_token(self) -> None:
        with separate_transaction(self.request):
            if not self.sessions.is_writer(self.session):
                raise TakenOver()

    def grown(self, partial: Partial) -> Session:
        return replace(
            self.session,
            partial=asdict(partial),
            counted=partial.size,
            hash=self.arriving.saved(),
            expires=expiry(self.request.registry, self.session.created, msec_time()),
        )

    def after(self, partial: Partial, *, at_length: bool) -> Session:
        """The session after the last byte of the request."""
        after = replace(self.grown(partial), writer="")
        is_end = self.step.complete and self.arriving.error is None
        if is_end and after.length is None:
            after = replace(after, length=after.size)
        if after.is_whole and (is_end or at_length):
            after = replace(after, state="finishing")
        return after

    def commit(self, session: Session) -> None:
        with separate_transaction(self.request), self.sessions.alone():
            self.commit_counted(session)
        self.committed = session
        Ledger.of(self.request).session = session

    def commit_counted(self, session: Session) -> None:
        """:raises QuotaExceeded: the upload stays as it was."""
        with self.request.registry.attachment_usage.alone():
            if not self.sessions.commit(session, self.session.writer):
                raise TakenOver()
            try:
                quotas.resize(self.request, self.committed, session)
            except QuotaExceeded:
                self.sessions.put(self.committed)  # A memory backend does not roll back.
                raise


def with_length(request: Request, session: Session, step: Append) -> Session:
    """The session with the length that a request declares or completes."""
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


def check_claims(claims: ClaimedDigests, size: int) -> None:
    """:raises TooLarge: the last request would take too long for this many bytes."""
    if size > LARGEST_READ_BACK and {*claims.algorithms} - {"sha256"}:
        raise TooLarge(
            f"Repr-Digest: if more than {LARGEST_READ_BACK} bytes come in several requests, only"
            " sha-256 can be checked."
        )


def check_repetition(request: Request, session: Session, step: Append) -> None:
    """Whether a request may be a repetition of the last one of a complete upload.

    :raises WrongOffset, WrongLength, UploadComplete: it is not.
    """
    length = session.size
    end = step.offset + (request.content_length or 0)
    if step.offset <= length < end or step.length not in (None, length):
        raise WrongLength()
    if step.offset not in (session.last, length - 1, length):
        raise UploadComplete() if session.state == "done" else WrongOffset()


def arriving_bytes(request: Request, session: Session, step: Create | Append) -> Arriving:
    """The bytes of a request that belong to the file.

    :raises TooLarge: the request's length exceeds the limit.
    """
    with separate_transaction(request):  # The quota may need a query; no connection is kept.
        rules = rules_of(request)
    limits = [rules.max_size, continuing(request, session.storage).largest_partial]
    if session.has_other_claims:
        limits.append(LARGEST_READ_BACK)
    limits = [limit for limit in (*limits, session.length) if limit]
    left = min(limits) - session.size if limits else None
    if left is not None and (request.content_length or 0) > left:
        raise TooLarge(f"body: The file has more than {min(limits)} bytes.")
    saved = None if session.hash is None else saved_hashes.sha256(session.hash)
    body = quotas.arriving(request, body_of(request), request.content_length)
    return Arriving(body, saved, left, step.claims)
