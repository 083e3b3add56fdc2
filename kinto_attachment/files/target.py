"""The record that a file is attached to."""

from __future__ import annotations

from typing import Any, Protocol

from kinto_attachment.uris import RecordURI


class Target(Protocol):
    """What the context of a request tells about its record."""

    uri: RecordURI
    # Whether bucket and collection are created with the record, as in the default bucket.
    implicit_parents: bool

    @property
    def record(self) -> dict[str, Any] | None:
        """The record as it was before the body was read; None if it did not exist."""
        ...

    def existing_record(self) -> dict[str, Any]:
        """:raises HTTPNotFound: there is no such record."""
        ...
