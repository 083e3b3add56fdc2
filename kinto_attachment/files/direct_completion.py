"""Completing a direct upload whose bytes are in the storage.

The storage makes the file from its list of parts. After that, nobody can exchange them. If the
storage does not know the hash, requests read the file, each for a short time.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from dataclasses import replace
from typing import cast

from kinto.core.authorization import DYNAMIC
from kinto.core.utils import msec_time
from pyramid.httpexceptions import HTTPForbidden

from kinto_attachment.errors import (
    FileNotFound,
    StorageError,
    StorageUnavailable,
    TakenOver,
    UploadGone,
    UploadIncomplete,
    WrongLength,
)
from kinto_attachment.files.direct_activity import sending
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.session_arrival import read_back
from kinto_attachment.files.session_ends import cancelled, end
from kinto_attachment.files.session_writers import expiry, new_token
from kinto_attachment.files.target import SessionTarget
from kinto_attachment.files.transactions import paused_transaction, separate_transaction
from kinto_attachment.files.upload_sessions import found
from kinto_attachment.http import saved_hashes
from kinto_attachment.index.session import DIRECT, KINTO, Session
from kinto_attachment.kinto_types import Request
from kinto_attachment.storage import CHUNK_SIZE, Partial, Reader

# The longest time that a request works on a file. Proxies wait 60 s for a response, some 30 s.
SECONDS = 20.0
# A request that has not renewed its lease for this long has died.
LEASE = 10.0
CHECKPOINT_SECONDS = 2.0


def begin_finish(request: Request, upload: str) -> Session:
    """The session of an upload whose bytes have all arrived, or which is done.

    :raises UploadIncomplete: some bytes have not arrived; the upload stays open.
    :raises WrongLength: the stored bytes are not those announced; the upload has failed.
    """
    session = permitted(request, upload)
    if session.state != "open":
        return session
    if session.via == KINTO:
        raise UploadIncomplete(f"{UploadIncomplete.message} They are sent by PUT to its URL.")
    check_arrived(request, session)
    sessions = request.registry.attachment_sessions
    with separate_transaction(request), sessions.alone():
        session = found(request, sessions.lock(session.record, upload), DIRECT)
        if session.state == "open":
            partial = {**(session.partial or {}), "size": session.length}
            session = replace(session, state="finishing", partial=partial)
            sessions.put(session)
    Ledger.of(request).session = session
    return session


def permitted(request: Request, upload: str) -> Session:
    """:raises HTTPForbidden: the user may no longer write the record."""
    with separate_transaction(request):
        stored = request.registry.attachment_sessions.get(str(request.context.uri), upload)
        session = found(request, stored, DIRECT)
        target = cast(SessionTarget, request.context)
        target.session = session
        if not request.has_permission(DYNAMIC, target):
            raise HTTPForbidden()
    return session


def check_arrived(request: Request, session: Session) -> None:
    """:raises UploadIncomplete, WrongLength, UploadGone: see above."""
    files, partial = sending(request.registry, session), Partial(**(session.partial or {}))
    try:
        files.check_parts(partial)
    except WrongLength:
        Ledger.of(request).attaching = session  # It ends with this answer.
        raise
    except FileNotFound:
        after = request.registry.attachment_sessions.get(session.record, session.upload)
        if after is not None and after.state != "open":
            return  # Another request has just finished it.
        with paused_transaction():
            end(request.registry, session, "failed", cancelled("The storage has removed it."))
        raise UploadGone() from None


def read_on(request: Request, session: Session) -> Session:
    """Complete the file in the storage and compute its hash, or continue to do so.

    :returns: the session, with its ``sha256`` once known. It is not known if the time was too
        short, or if another request is working on the file.
    :raises StorageError: the progress so far is kept.
    :raises TakenOver: another request continues, because this one made no progress for too long.
    """
    begun = time.monotonic()
    claimed = claim(request, session)
    return _Reading(request, claimed, begun).run() if claimed.writer else claimed


def claim(request: Request, session: Session) -> Session:
    """The session with a token for this request; without one if another request is working."""
    sessions = request.registry.attachment_sessions
    with separate_transaction(request), sessions.alone():
        locked = found(request, sessions.lock(session.record, session.upload), DIRECT)
        if locked.state != "finishing" or locked.sha256:
            return locked
        if locked.writer and locked.busy_until > msec_time():
            return replace(locked, writer="")
        locked = replace(locked, writer=new_token(), busy_until=busy_until())
        sessions.put(locked)
    return locked


def busy_until() -> int:
    return int(msec_time() + LEASE * 1000)


class ReadAhead:
    """Reads a chunk while the previous one is hashed, which takes as long."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="direct-read")
        self._next: Future[bytes] | None = None

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._thread.shutdown()

    def begin(self) -> None:
        """Begin to read the next chunk."""
        # In the context of the request, which has the budget for waiting.
        self._next = self._thread.submit(copy_context().run, self._reader.read, CHUNK_SIZE)

    def take(self) -> bytes:
        """The next chunk; empty at the end."""
        if self._next is None:
            return self._reader.read(CHUNK_SIZE)
        return self._next.result()


class _Reading:
    """The work of a request that has the token of a file's session."""

    def __init__(self, request: Request, session: Session, begun: float) -> None:
        self.request = request
        self.session = session
        self.begun = begun
        self.committed = begun

    def run(self) -> Session:
        session = self.session
        try:
            vouched = sending(self.request.registry, session).finish_direct(
                Partial(**(session.partial or {}))
            )
            if vouched:
                self.session = replace(self.session, sha256=vouched, read=session.length or 0)
            else:
                self.read()
        except StorageError:
            self.commit(ended=True)
            raise
        return self.commit(ended=True)

    def read(self) -> None:
        """Hash the file from the position where the last request stopped."""
        session = self.session
        files = self.request.registry.attachment_storages[session.storage].files
        sha256 = None if session.hash is None else saved_hashes.sha256(session.hash)
        if sha256 is None:  # The hash cannot be continued, so the whole file is read at once.
            known = read_back(files, session.key, set())["sha256"]
            self.session = replace(session, sha256=known, read=session.length or 0)
            return
        position, length = session.read, session.length or 0
        with closing(files.open(session.key, position)) as file, ReadAhead(file) as ahead:
            while position != length:
                if not (chunk := ahead.take()):
                    raise StorageUnavailable() from EOFError(f"{position} of {length}")
                position += len(chunk)
                is_over = time.monotonic() - self.begun >= SECONDS
                if position != length and not is_over:
                    ahead.begin()
                sha256.update(chunk)
                self.session = replace(self.session, hash=sha256.save(), read=position)
                if position != length and is_over:
                    return
                if time.monotonic() - self.committed >= CHECKPOINT_SECONDS:
                    self.commit()
        self.session = replace(self.session, sha256=sha256.hexdigest())

    def commit(self, *, ended: bool = False) -> Session:
        """:raises TakenOver: the session has another token now."""
        registry, sessions = self.request.registry, self.request.registry.attachment_sessions
        token = self.session.writer
        session = replace(
            self.session,
            writer="" if ended else token,
            busy_until=0 if ended else busy_until(),
            expires=expiry(registry, self.session.created, msec_time()),
        )
        with separate_transaction(self.request), sessions.alone():
            if not sessions.commit(session, token):
                raise TakenOver()
        self.committed = time.monotonic()
        Ledger.of(self.request).session = session
        return session
