"""Errors of requests: their headers, bodies and forms."""

from __future__ import annotations

from kinto_attachment.errors.base import AttachmentError, Errno


class InvalidBody(AttachmentError):
    """The request's headers or body cannot be parsed."""

    status = 400
    errno = Errno.INVALID_PARAMETERS
    message = "The request's headers or body cannot be parsed."


class BodyTimeout(AttachmentError):
    """The request's body has stopped arriving, or arrives too slowly."""

    status = 408
    errno = Errno.INVALID_PARAMETERS
    message = "The request's body stopped arriving, or arrives too slowly."


class UnsupportedType(InvalidBody):
    """The endpoint does not accept the type or the encoding of the request's body.

    ``accepted`` are the encodings that it accepts, if the encoding was refused (RFC 9110 15.5.16).
    """

    status = 415
    message = "The request's body is of a type that this endpoint does not take."

    def __init__(self, message: str = "", *, accepted: str = "") -> None:
        super().__init__(message)
        self.accepted = accepted


class InvalidForm(AttachmentError):
    """The form was parsed, but the endpoint does not accept its fields."""

    status = 400
    errno = Errno.INVALID_POSTED_DATA
    message = "The form does not have the fields that this endpoint takes."


class TooSmall(InvalidForm):
    """The file is smaller than the minimum size."""

    message = "body: File size is below the minimum."


class TooLarge(AttachmentError):
    """The file, or another part of the body, exceeds its limit."""

    status = 413
    errno = Errno.REQUEST_TOO_LARGE
    message = "The file, or another part of the body, exceeds its limit."


class DigestMismatch(InvalidBody):
    """The bytes received do not have the digest that the request claims."""

    message = "The bytes received do not have the digest that the request claims."


class WrongChecksum(DigestMismatch):
    """The bytes of a request for an upload do not have the checksum that tus claims."""

    status = 460  # Only tus uses this status.
    message = "The bytes received do not have the checksum that the request claims."


class UnsupportedVersion(AttachmentError):
    """The server does not support the request's version of a protocol."""

    status = 412
    errno = Errno.MODIFIED_MEANWHILE
    message = "The server does not speak this version of the protocol."


class MethodNotAllowed(AttachmentError):
    """The resource does not have this method of the protocol; it has those in ``allowed``."""

    status = 405
    errno = Errno.METHOD_NOT_ALLOWED
    message = "Method not allowed on this endpoint."

    def __init__(self, allowed: str) -> None:
        super().__init__()
        self.allowed = allowed
