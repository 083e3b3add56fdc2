"""The record that a file is attached to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from kinto.core.errors import ERRORS, http_error
from pyramid.httpexceptions import HTTPNotFound

from kinto_attachment.index.session import Session
from kinto_attachment.uris import RecordURI


@runtime_checkable
class Target(Protocol):
    """The properties of a request's record, which its context provides."""

    # Read-only, so that they may be attributes or properties.
    @property
    def uri(self) -> RecordURI: ...

    @property
    def implicit_parents(self) -> bool:
        """Whether the record is created with its bucket and collection, as in default buckets."""
        ...

    @property
    def preconditions(self) -> Mapping[str, str]:
        """``If-Match`` and ``If-None-Match``, if the client has sent them."""
        ...

    @property
    def record(self) -> dict[str, Any] | None:
        """The record as it was before the body was read; None if it did not exist."""
        ...

    def existing_record(self) -> dict[str, Any]:
        """:raises HTTPNotFound: the record does not exist."""
        ...


class SessionTarget(Target, Protocol):
    """The record of an upload in several requests."""

    session: Session | None  # Set by the code that has found it.


@dataclass(frozen=True)
class KnownTarget:
    """A record that code on the server names."""

    uri: RecordURI
    record: dict[str, Any] | None
    implicit_parents: bool = False
    # The preconditions of the client's request apply to another record.
    preconditions: Mapping[str, str] = field(default_factory=dict)

    def existing_record(self) -> dict[str, Any]:
        if self.record is None:
            raise http_error(HTTPNotFound(), errno=ERRORS.INVALID_RESOURCE_ID)
        return self.record
