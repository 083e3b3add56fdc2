"""The Pyramid events for other plugins, fired after the commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kinto_attachment.kinto_types import Request


@dataclass(frozen=True)
class AttachmentEvent:
    """Base of all events: a subscriber of it gets each of them.

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


class AttachmentRead(AttachmentEvent):
    """A record's file was requested, and the response is being sent."""
