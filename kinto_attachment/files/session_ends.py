"""How uploads in several requests end without a file: cancelled, failed, or expired.

First the row says so, which puts every request out of force that may still be writing. Then what
was stored is removed; where that fails, gc does it.
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

# Statuses of answers after which the same request may succeed later. Every other 4xx is for good.
PASSING = (401, 408, 409, 423, 429)


def is_for_good(status: int) -> bool:
    """Whether an answer says that a file can never be attached, however often it is tried."""
    return 400 <= status < 500 and status not in PASSING


def cancelled(message: str) -> dict[str, Any]:
    """Kinto's JSON error of an upload that was ended from outside."""
    code, errno = UploadGone.status, UploadGone.errno.value
    return {"code": code, "errno": errno, "error": "Gone", "message": message}


def end(registry: Registry, session: Session, state: State, error: dict[str, Any] | None) -> bool:
    """End a session in a transaction of its own; False if it has ended already."""
    sessions, outbox = registry.attachment_sessions, registry.attachment_links.outbox
    with transaction.manager, sessions.alone():
        locked = sessions.lock(session.record, session.upload)
        if locked is None or not locked.is_unfinished:
            return False
        if state == "expired" and locked.seen_at(msec_time()).state != state:
            return False  # It went on in the meantime.
        was_whole = locked.state == "finishing"
        # The lock shows that no request has linked the file, or is about to.
        garbage = outbox.add([locked.key], storage=locked.storage) if was_whole else []
        ended = replace(locked, state=state, error=error, writer="", hash=None)
        # What clients have sent is of no use any more.
        ended = replace(ended, data=None, permissions=None, preconditions={}, notes="")
        sessions.put(ended)
    if discard(registry, ended, release=not was_whole):
        for entry in garbage:
            try_to_delete(registry, entry)
    return True


def expire(registry: Registry, session: Session) -> bool:
    """End a session that is too old, unless it goes on; False if its remains are not removed."""
    if end(registry, session, "expired", None):
        registry.metrics.count("attachments.uploads_expired")
    with transaction.manager:
        after = registry.attachment_sessions.get(session.record, session.upload)
    return after is None or after.is_unfinished or after.partial is None


def end_failed(registry: Registry, ledger: Ledger, response: Response) -> None:
    """End the upload whose file can never be attached, after the transaction was rolled back."""
    session = ledger.attaching
    if session is None or not is_for_good(response.status_code):
        return
    file = ledger.new_files.get(session.key)
    with transaction.manager:  # A memory backend does not roll back.
        in_use = file is not None and is_in_use(registry, ledger, file)
    if not in_use and end(registry, session, "failed", response.json):
        ledger.session = replace(session, state="failed", error=response.json)


def discard(registry: Registry, session: Session, *, release: bool = True) -> bool:
    """Remove what is stored of a session that has ended; False if that failed.

    The name of a file that was already whole stays reserved until gc has run: another request may
    just be storing the file under it.
    """
    sessions = registry.attachment_sessions
    try:
        storage = registry.attachment_storages[session.storage].files
        if session.partial is not None and isinstance(storage, ContinuesWrites | UploadsDirectly):
            storage.discard(Partial(**session.partial))
    except StorageError as error:
        message = "Could not remove an upload that has ended; gc will try again: %s: %s"
        logger.exception(message, session.key, cause(error))
        return False
    with transaction.manager, sessions.alone():
        if release:
            registry.attachment_links.reservations.release(session.key)
        sessions.put(replace(session, partial=None))
    return True
