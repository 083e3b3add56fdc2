"""The Pyramid events for other plugins: one before a file is stored, others after the commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zope.interface import providedBy

from kinto_attachment.kinto_types import Registry, Request


@dataclass(frozen=True)
class AttachmentEvent:
    """Base of the events after the commit: a subscriber of it gets each of them.

    ``request`` is the one that caused the event, and its transaction has ended; ``record_uri``
    has no API version; ``attachment`` is the attachment object.
    """

    request: Request
    record_uri: str
    attachment: dict[str, Any]


class AttachmentAdded(AttachmentEvent):
    """A record has got an attachment, and had none before."""


@dataclass(frozen=True)
class AttachmentReplaced(AttachmentEvent):
    """A record's attachment was replaced; ``old`` is the previous one."""

    old: dict[str, Any]


class AttachmentRemoved(AttachmentEvent):
    """A record lost its attachment, which is in the event, or was deleted with it."""


@dataclass(frozen=True)
class AttachmentReceiving:
    """A file is about to be stored; a subscriber refuses it by raising an HTTP exception.

    The user may write the record, and name and media type are as they will be stored. ``size`` is
    in bytes, and None if the client has not told it, as in a form.
    """

    request: Request
    record_uri: str
    filename: str
    mimetype: str
    size: int | None


class AttachmentRead(AttachmentEvent):
    """A record's file was requested, and the response is being sent."""


def has_subscribers(registry: Registry, event: object) -> bool:
    """Whether anybody would be told of an event."""
    return bool(registry.adapters.subscriptions([providedBy(event)], None))
