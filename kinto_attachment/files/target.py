"""The record that a file is attached to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from kinto_attachment.index.session import Session
from kinto_attachment.uris import RecordURI


@runtime_checkable
class Target(Protocol):
    """What the context of a request tells about its record."""

    uri: RecordURI
    # Whether bucket and collection are created with the record, as in the default bucket.
    implicit_parents: bool

    @property
    def preconditions(self) -> Mapping[str, str]:
        """``If-Match`` and ``If-None-Match``, as far as the client has sent them."""
        ...

    @property
    def record(self) -> dict[str, Any] | None:
        """The record as it was before the body was read; None if it did not exist."""
        ...

    def existing_record(self) -> dict[str, Any]:
        """:raises HTTPNotFound: there is no such record."""
        ...


class SessionTarget(Target, Protocol):
    """The record that an upload in several requests is for."""

    session: Session | None  # Set by whoever has found it.
