"""The base of all errors, and Kinto's numbers for them."""

from __future__ import annotations

from enum import IntEnum


class Errno(IntEnum):
    """Kinto's numbers for errors, as its API documents them: for code that needs no Kinto."""

    INVALID_PARAMETERS = 107
    INVALID_POSTED_DATA = 109
    INVALID_RESOURCE_ID = 110
    REQUEST_TOO_LARGE = 113
    MODIFIED_MEANWHILE = 114
    METHOD_NOT_ALLOWED = 115
    CLIENT_REACHED_CAPACITY = 117
    FORBIDDEN = 121
    CONSTRAINT_VIOLATED = 122
    BACKEND = 201
    UNDEFINED = 999


class AttachmentError(Exception):
    """Base of all errors of this package; ``str(error)`` is the message for the client.

    ``details`` becomes the ``details`` of Kinto's JSON error.
    """

    status = 500
    errno: Errno = Errno.UNDEFINED
    message = "The attachment could not be processed."
    may_pass = True  # Whether the same request may succeed later, if the status says so.

    def __init__(self, message: str = "", *, details: object = None) -> None:
        super().__init__(message or self.message)
        self.details = details
