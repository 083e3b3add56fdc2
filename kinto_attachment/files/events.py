"""The Pyramid events for other plugins: one before a file is stored, others after the commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zope.interface import providedBy

from kinto_attachment.kinto_types import Registry, Request


@dataclass(frozen=True)
class AttachmentEvent:
    """Base of the events after the commit; subscribers to it receive all of them.

    ``request`` is the one that caused the event, and its transaction has ended; ``record_uri``
    has no API version; ``attachment`` is the attachment object.
    """

    request: Request
    record_uri: str
    attachment: dict[str, Any]


class AttachmentAdded(AttachmentEvent):
    """A record that had no attachment got one."""


@dataclass(frozen=True)
class AttachmentReplaced(AttachmentEvent):
    """A record's attachment was replaced; ``old`` is the previous one."""

    old: dict[str, Any]


class AttachmentRemoved(AttachmentEvent):
    """A record lost its attachment, or was deleted with it; the event has the attachment."""


@dataclass(frozen=True)
class AttachmentReceiving:
    """A file is about to be stored; a subscriber refuses it by raising an HTTP exception.

    The user may write the record. Name and media type are those that will be stored. ``size`` is
    in bytes, or None if the client has not sent it, as in a form.
    """

    request: Request
    record_uri: str
    filename: str
    mimetype: str
    size: int | None


class AttachmentRead(AttachmentEvent):
    """A record's file was requested, and the response is being sent."""


def has_subscribers(registry: Registry, event: object) -> bool:
    """Whether an event has subscribers."""
    return bool(registry.adapters.subscriptions([providedBy(event)], None))
