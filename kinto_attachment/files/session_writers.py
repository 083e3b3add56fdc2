"""The writer of an upload: one request at a time, which has the session's token.

The next writer replaces the token; see ``index/sessions.py``.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, replace

from kinto_attachment.errors import InvalidBody
from kinto_attachment.index.session import Session
from kinto_attachment.kinto_types import Registry, Request
from kinto_attachment.storage import ContinuesWrites, Partial

NOT_POSSIBLE = "The files of this collection cannot be uploaded in several requests: "


def new_token() -> str:
    return secrets.token_hex(8)


def taken_over(request: Request, session: Session) -> Session:
    """The session without its writer, which may still be running."""
    if not session.writer:
        return session
    request.registry.metrics.count("attachments.uploads_resumed")
    partial = continuing(request, session.storage).take_over(Partial(**(session.partial or {})))
    return replace(session, partial=asdict(partial), writer="")


def continuing(request: Request, name: str) -> ContinuesWrites:
    files = request.registry.attachment_storages[name].files
    if not isinstance(files, ContinuesWrites):
        raise InvalidBody(f"{NOT_POSSIBLE}their storage cannot do it.")
    return files


def expiry(registry: Registry, created: int, active: int) -> int:
    settings = registry.attachment_settings
    idle, age = settings["uploads.idle_age"], settings["uploads.max_age"]
    return int(min(created + age * 1000, active + idle * 1000))
