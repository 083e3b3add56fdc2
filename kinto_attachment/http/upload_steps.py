"""The common parts of the protocols for uploads in several requests.

A protocol is a state machine without I/O. It turns the head of a request into a step, and the
state of the upload after that step into a response. The code between the two does not know the
protocol.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

from kinto_attachment.errors import InvalidBody, TooLarge
from kinto_attachment.http.streams import ClaimedDigests

NO_CLAIMS = ClaimedDigests()

LARGEST = (1 << 63) - 1  # The limit of databases and file systems.

State = Literal["open", "finishing", "done", "failed", "expired"]


@dataclass(frozen=True)
class Head:
    """The head of a request: its method, its headers, and whether it names an upload."""

    method: str
    # A dictionary with names in any case, or a mapping that finds them in any case.
    headers: Mapping[str, str]
    of_upload: bool

    def get(self, name: str) -> str | None:
        """The value of a header, without white space around it; None if there is none."""
        value = self._found.get(name.lower())
        return None if value is None else value.strip(" \t")

    @cached_property
    def _found(self) -> Mapping[str, str]:
        if not isinstance(self.headers, dict):
            return self.headers
        return {name.lower(): value for name, value in self.headers.items()}

    @property
    def media_type(self) -> str:
        """The type in ``Content-Type``, without parameters and in lower case."""
        return (self.get("Content-Type") or "").partition(";")[0].strip(" \t").lower()

    @property
    def content_length(self) -> int | None:
        """The length of the content; None if it is not declared.

        :raises InvalidBody, TooLarge: the header is invalid.
        """
        value = self.get("Content-Length") or ""
        return size(value) if "Transfer-Encoding" not in self and value else None

    @property
    def has_content(self) -> bool:
        """Whether content may follow. Content of undeclared length may be empty."""
        return bool(self.content_length) or "Transfer-Encoding" in self

    def claims(self, *names: str) -> ClaimedDigests:
        """The digests that some of the headers claim.

        :raises InvalidBody: a header is malformed.
        """
        headers = {name: self.get(name) for name in names}
        return ClaimedDigests.parse({k: v for k, v in headers.items() if v is not None})

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None


@dataclass(frozen=True)
class Create:
    """A new upload. The content of the request, if any, is the beginning of the file.

    ``length`` is the size of the file in bytes, or None if it is not known yet. ``complete`` says
    that the file ends with this request's content.
    """

    length: int | None = None
    filename: str = ""
    mimetype: str | None = None
    data: dict[str, Any] | None = None
    permissions: dict[str, Any] | None = None
    has_content: bool = False
    complete: bool = False
    # Data that the protocol gets back in Progress.
    notes: str = ""
    # The digests of this request's content, and those of the whole file.
    claims: ClaimedDigests = NO_CLAIMS
    file_claims: ClaimedDigests = NO_CLAIMS


@dataclass(frozen=True)
class Append:
    """The next bytes, from ``offset`` on. The other fields are as in :class:`Create`."""

    offset: int
    length: int | None = None
    complete: bool = False
    claims: ClaimedDigests = NO_CLAIMS
    file_claims: ClaimedDigests = NO_CLAIMS


@dataclass(frozen=True)
class Inspect:
    """A request for the offset."""


@dataclass(frozen=True)
class Cancel:
    """The cancellation of an upload."""


Step = Create | Append | Inspect | Cancel


@dataclass(frozen=True)
class Attached:
    """The response that the upload of the file as a form would have had."""

    status: int
    etag: str
    last_modified: str
    attachment: dict[str, Any]
    version: str


@dataclass(frozen=True)
class Progress:
    """The state of an upload after a step.

    ``offset`` is the number of durable bytes, ``expires`` is in ms since the epoch. ``attached``
    is set when the file is attached to a record, ``error`` when the upload has failed for good.
    """

    url: str  # The upload, with or without the host.
    record_url: str  # The record; its attachment is below.
    state: State
    offset: int
    length: int | None
    expires: int
    attached: Attached | None = None
    error: dict[str, Any] | None = None
    notes: str = ""

    @property
    def attached_headers(self) -> dict[str, str]:
        """The headers that name the attached file, for clients that lost the final response."""
        if self.attached is None:
            return {}
        return {
            "ETag": self.attached.etag,
            "Last-Modified": self.attached.last_modified,
            "Content-Location": f"{self.record_url}/attachment",
            "Attachment-Version": self.attached.version,
        }


@dataclass(frozen=True)
class Limits:
    """The limits of a server in bytes; 0 is no limit.

    ``max_age`` is the remaining time of an upload in seconds, from the response on.
    """

    max_size: int = 0
    min_size: int = 0
    max_append_size: int = 0
    max_age: int = 0


@dataclass(frozen=True)
class Answer:
    """The response to a step; ``json`` of None is a response without a body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    json: dict[str, Any] | None = None


class UploadProtocol(Protocol):
    """A protocol. Its methods only read and write their arguments."""

    # As in the capability and in ``GET C/attachments/rules``, such as ``tus/1.0.0``.
    name: str
    # Whether a file is complete when it has its length, without another sign from the client.
    ends_at_length: bool

    def recognizes(self, head: Head) -> bool:
        """Whether the request uses this protocol, in any version."""
        ...

    def read(self, head: Head) -> Step:
        """The step that a request asks for.

        :raises AttachmentError: the head is malformed or has another version.
        """
        ...

    def answer(self, step: Step, progress: Progress, limits: Limits) -> Answer:
        """The response to a step that was taken."""
        ...

    def refuse(
        self,
        head: Head,
        error: Exception,
        body: dict[str, Any],
        progress: Progress | None,
        limits: Limits,
    ) -> Answer:
        """The response to a step that failed, completely or in part.

        ``error`` is an :class:`AttachmentError`, or an error of other code. ``body`` is Kinto's
        JSON error, which includes the status. ``progress`` is None if no upload exists that the
        client may know.
        """
        ...

    def announce(self, limits: Limits) -> Answer:
        """The response to ``OPTIONS``."""
        ...


def size(digits: str, what: str = "Content-Length") -> int:
    """A number of bytes.

    :raises InvalidBody: it is not a number.
    :raises TooLarge: no file is that large.
    """
    if not re.fullmatch("[0-9]+", digits):
        raise InvalidBody(f"{what} should be a number of bytes.")
    significant = digits.lstrip("0") or "0"
    if len(significant) > len(str(LARGEST)) or int(significant) > LARGEST:
        raise TooLarge(f"{what} is larger than any file.")
    return int(significant)
