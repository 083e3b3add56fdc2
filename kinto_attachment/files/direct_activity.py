"""The expiry of direct uploads: only the storage knows when their bytes arrive."""

from __future__ import annotations

from dataclasses import replace

import transaction
from kinto.core.utils import msec_time

from kinto_attachment.errors import FileNotFound
from kinto_attachment.files.session_writers import expiry
from kinto_attachment.index.session import STORAGE, Session
from kinto_attachment.kinto_types import Registry
from kinto_attachment.storage import ArrivedPart, Partial, UploadsDirectly


def as_of_now(registry: Registry, session: Session) -> Session:
    """The current session. Before it expires, the storage is asked for new parts."""
    seen = session.seen_at(msec_time())
    if seen.state == "expired" and is_awaited(session):
        seen = with_activity(registry, session).seen_at(msec_time())
    return seen


def is_awaited(session: Session) -> bool:
    """Whether clients may be sending its bytes to the storage."""
    return session.via == STORAGE and session.state == "open"


def goes_on(registry: Registry, session: Session, *, save: bool) -> bool:
    """Whether bytes of a seemingly expired upload have arrived recently.

    :raises StorageError: the storage does not answer.
    """
    seen = as_of_now(registry, session)
    if seen.state == "expired":
        return False
    sessions = registry.attachment_sessions
    if save:
        with transaction.manager, sessions.alone():
            locked = sessions.lock(session.record, session.upload)
            if locked is not None and locked.state == "open":
                sessions.put(replace(locked, expires=max(locked.expires, seen.expires)))
    return True


def has_bytes(registry: Registry, session: Session) -> bool:
    """Whether bytes of an unfinished upload are stored."""
    return bool(session.size or (is_awaited(session) and arrived_parts(registry, session)))


def with_activity(registry: Registry, session: Session) -> Session:
    """The session with an expiry that counts from its last part.

    :raises StorageError: the storage does not answer.
    """
    times = [part.modified.timestamp() for part in arrived_parts(registry, session).values()]
    active = int(max(times, default=0) * 1000)
    expires = expiry(registry, session.created, active)
    return replace(session, expires=max(session.expires, expires))


def arrived_parts(registry: Registry, session: Session) -> dict[int, ArrivedPart]:
    """The parts that have arrived; none if the storage has removed them."""
    try:
        return sending(registry, session).arrived_parts(Partial(**(session.partial or {})))
    except FileNotFound:
        return {}


def sending(registry: Registry, session: Session) -> UploadsDirectly:
    """The storage to which clients send the bytes of a session."""
    files = registry.attachment_storages[session.storage].files
    assert isinstance(files, UploadsDirectly)  # noqa: S101 - it has begun the file.
    return files
