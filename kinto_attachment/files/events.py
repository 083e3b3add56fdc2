"""The Pyramid events for other plugins, fired once the transaction is committed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AttachmentEvent:
    """Base of all events: a subscriber of it gets each of them.

    ``request`` is the one that did it, whose transaction has ended; ``record_uri`` is the
    record's, without the API's version; ``attachment`` is the attachment object.
    """

    request: Any
    record_uri: str
    attachment: dict[str, Any]


class AttachmentAdded(AttachmentEvent):
    """A record that had no attachment has one."""


@dataclass(frozen=True)
class AttachmentReplaced(AttachmentEvent):
    """A record's attachment was replaced; ``old`` is the one before."""

    old: dict[str, Any]


class AttachmentRemoved(AttachmentEvent):
    """A record lost its attachment, which is in the event, or was deleted with it."""


class AttachmentRead(AttachmentEvent):
    """The file of a record was asked for, and the answer is being sent."""
