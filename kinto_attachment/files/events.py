"""The Pyramid events for other plugins, fired once the transaction is committed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _AttachmentEvent:
    """``record_uri`` is the record's, without the API's version; ``request`` has ended."""

    request: Any
    record_uri: str
    attachment: dict[str, Any]


class AttachmentAdded(_AttachmentEvent):
    """A record that had no attachment has one."""


@dataclass(frozen=True)
class AttachmentReplaced(_AttachmentEvent):
    """A record's attachment was replaced; ``old`` is the one before."""

    old: dict[str, Any]


class AttachmentRemoved(_AttachmentEvent):
    """A record lost its attachment, or was deleted with it."""


class AttachmentRead(_AttachmentEvent):
    """The file of a record was asked for, and the answer is being sent."""
