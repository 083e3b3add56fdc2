"""The record that a file is attached to."""

from __future__ import annotations

from typing import Any, Protocol

from kinto_attachment.uris import RecordURI


class Target(Protocol):
    """What the context of a request has to say of the record it is about."""

    uri: RecordURI
    # Whether bucket and collection are created along with the record: in the default bucket.
    implicit_parents: bool

    @property
    def record(self) -> dict[str, Any] | None:
        """The record as it was before the body was read, None if there was none."""
        ...
