"""What the protocols for uploads in several requests have in common.

A protocol is a state machine without I/O. It reads the head of a request as a step, and it writes
the answer from what has become of the upload. What happens between the two knows no protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from kinto_attachment.errors import AttachmentError
from kinto_attachment.http.streams import ClaimedDigests

NO_CLAIMS = ClaimedDigests()

State = Literal["open", "finishing", "done", "failed", "expired"]


@dataclass(frozen=True)
class Head:
    """The head of a request: its method, its headers, and whether it names an upload."""

    method: str
    headers: Mapping[str, str]
    of_upload: bool


@dataclass(frozen=True)
class Create:
    """A new upload. The content of the request, if it has any, is the beginning of the file.

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
    """A question for the offset."""


@dataclass(frozen=True)
class Cancel:
    """The end of an upload that nobody wants any more."""


Step = Create | Append | Inspect | Cancel


@dataclass(frozen=True)
class Attached:
    """What the upload of a form would have answered for the file."""

    status: int
    etag: str
    last_modified: str
    attachment: dict[str, Any]


@dataclass(frozen=True)
class Progress:
    """What has become of an upload after a step.

    ``offset`` is what is durable, in bytes; ``expires`` is in ms since the epoch. ``attached`` is
    there as soon as the file is a record's; ``error`` is what ended the upload for good.
    """

    url: str  # Path and, if the protocol wants it, host of the upload.
    record_url: str
    state: State
    offset: int
    length: int | None
    expires: int
    attached: Attached | None = None
    error: dict[str, Any] | None = None


@dataclass(frozen=True)
class Limits:
    """What a server takes, in bytes and seconds; 0 is no limit."""

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
    """One of the protocols. Its methods neither read nor write anything but their arguments."""

    # As in the capability and in ``GET C/attachments/rules``, such as ``tus/1.0.0``.
    name: str

    def recognizes(self, head: Head) -> bool:
        """Whether the request speaks this protocol, of whichever version."""
        ...

    def read(self, head: Head) -> Step:
        """The step that a request is.

        :raises AttachmentError: the head is malformed, or of another version.
        """
        ...

    def answer(self, step: Step, progress: Progress, limits: Limits) -> Answer:
        """The response to a step that was taken."""
        ...

    def refuse(
        self,
        head: Head,
        error: AttachmentError,
        body: dict[str, Any],
        progress: Progress | None,
        limits: Limits,
    ) -> Answer:
        """The response to a step that was not, or not wholly, taken.

        ``body`` is Kinto's JSON error; ``progress`` is None for uploads that the client may not
        know of.
        """
        ...

    def announce(self, limits: Limits) -> Answer:
        """The response to ``OPTIONS``."""
        ...
