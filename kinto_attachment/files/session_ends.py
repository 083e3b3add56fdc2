"""Ending uploads in several requests without a file: cancelled, failed or expired.

First the row is changed, after which requests that are still writing cannot commit. Then the
stored bytes are removed. If this fails, gc removes them.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import transaction
from kinto.core.utils import msec_time

from kinto_attachment.errors import StorageError, UploadGone, cause
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.settling import is_in_use, try_to_delete
from kinto_attachment.index.session import Session, State
from kinto_attachment.kinto_types import Registry, Response
from kinto_attachment.storage import ContinuesWrites, Partial, UploadsDirectly

logger = logging.getLogger(__name__)

# Statuses after which the same request may succeed later. All other 4xx are permanent.
PASSING = (401, 408, 409, 423, 429)


def is_for_good(status: int) -> bool:
    """Whether a response means that a file can never be attached."""
    return 400 <= status < 500 and status not in PASSING


def cancelled(message: str) -> dict[str, Any]:
    """Kinto's JSON error for an upload that something else has ended."""
    code, errno = UploadGone.status, UploadGone.errno.value
    return {"code": code, "errno": errno, "error": "Gone", "message": message}


def end(registry: Registry, session: Session, state: State, error: dict[str, Any] | None) -> bool:
    """End a session in a separate transaction; False if it has already ended."""
    sessions, outbox = registry.attachment_sessions, registry.attachment_links.outbox
    with transaction.manager, sessions.alone():
        locked = sessions.lock(session.record, session.upload)
        if locked is None or not locked.is_unfinished:
            return False
        if state == "expired" and locked.seen_at(msec_time()).state != state:
            return False  # The upload continued in the meantime.
        was_whole = locked.state == "finishing"
        at_work = was_whole or bool(locked.writer)
        # The lock ensures that no request has linked the file or is about to.
        garbage = outbox.add([locked.key], storage=locked.storage) if was_whole else []
        ended = replace(locked, state=state, error=error, writer="", hash=None)
        # The data from the client is no longer needed.
        ended = replace(ended, data=None, permissions=None, preconditions={}, notes="")
        sessions.put(ended)
    if discard(registry, ended, release=not at_work):
        for entry in garbage:
            try_to_delete(registry, entry)
    return True


def expire(registry: Registry, session: Session) -> bool:
    """End a session that is too old, unless it continues; False if its bytes are not removed."""
    if end(registry, session, "expired", None):
        registry.metrics.count("attachments.uploads_expired")
    with transaction.manager:
        after = registry.attachment_sessions.get(session.record, session.upload)
    return after is None or after.is_unfinished or after.partial is None


def end_failed(registry: Registry, ledger: Ledger, response: Response) -> None:
    """End the upload of a file that can never be attached, after the transaction's rollback."""
    session = ledger.attaching
    if session is None or not is_for_good(response.status_code):
        return
    file = ledger.new_files.get(session.key)
    with transaction.manager:  # A memory backend does not roll back.
        in_use = file is not None and is_in_use(registry, ledger, file)
    if not in_use and end(registry, session, "failed", response.json):
        ledger.session = replace(session, state="failed", error=response.json)


def discard(registry: Registry, session: Session, *, release: bool) -> bool:
    """Remove the stored bytes of a session that has ended; False if that failed.

    Without ``release``, the name stays reserved until gc runs: another request may be storing a
    file with it, which gc could not recognize otherwise.
    """
    if not remove_stored(registry, session, release=release):
        return False
    with transaction.manager, registry.attachment_sessions.alone():
        _forget_partial(registry, session)
    return True


def remove_stored(registry: Registry, session: Session, *, release: bool = True) -> bool:
    """Remove the stored bytes of a session, whatever its state; False if that failed."""
    reservations = registry.attachment_links.reservations
    try:
        storage = registry.attachment_storages[session.storage].files
        if session.partial is not None and isinstance(storage, ContinuesWrites | UploadsDirectly):
            storage.discard(Partial(**session.partial))
    except StorageError as error:
        message = "Could not remove an upload that has ended; gc will try again: %s: %s"
        logger.exception(message, session.key, cause(error))
        return False
    with transaction.manager:
        (reservations.release if release else reservations.renew)(session.key)
    return True


def _forget_partial(registry: Registry, session: Session) -> None:
    """Save that nothing is stored any more. Of two callers, only one reduces the counters."""
    sessions, usage = registry.attachment_sessions, registry.attachment_usage
    counts = session.counted and usage.scopes_of(session.record)
    locked = sessions.lock(session.record, session.upload) if counts else None
    with usage.alone():
        sessions.put(replace(session, partial=None, counted=0))
        if locked is not None:
            usage.resized(session.record, -locked.counted)
