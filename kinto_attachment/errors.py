"""What can go wrong, each with the HTTP status and the Kinto errno it is answered with."""

from __future__ import annotations

from typing import Any

from kinto.core.errors import ERRORS, http_error
from pyramid.httpexceptions import HTTPException, HTTPPreconditionFailed
from pyramid_storage.exceptions import FileNotAllowed as StorageFileNotAllowed


class AttachmentError(Exception):
    """Base of all errors of this package; ``str(error)`` is the message for the client."""

    status = 500
    errno: ERRORS = ERRORS.UNDEFINED

    def __init__(self, message: str = "", *, details: object = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])
        self.details = details


class InvalidBody(AttachmentError):
    """The request's headers or body cannot be parsed."""

    status = 400
    errno = ERRORS.INVALID_PARAMETERS


class BodyTimeout(AttachmentError):
    """The request's body stopped arriving, or arrives too slowly."""

    status = 408
    errno = ERRORS.INVALID_PARAMETERS


class InvalidForm(AttachmentError):
    """The form was parsed, but its fields are not what the endpoint takes."""

    status = 400
    errno = ERRORS.INVALID_POSTED_DATA


class FileNotAllowed(InvalidForm, StorageFileNotAllowed):  # type: ignore[misc]
    """body: File extension is not allowed."""


class DigestMismatch(InvalidBody):
    """The bytes received do not have the digest that the request claims."""


class TooLarge(AttachmentError):
    """The file, or another part of the body, exceeds its limit."""

    status = 413
    errno = ERRORS.REQUEST_TOO_LARGE


class FileNotFound(AttachmentError):
    """There is no stored file under this key."""

    status = 404
    errno = ERRORS.INVALID_RESOURCE_ID


class InvalidKey(FileNotFound):
    """No backend stores a file under such a key."""


class KeyTaken(AttachmentError):
    """A file is stored under this key already."""

    status = 409
    errno = ERRORS.CONSTRAINT_VIOLATED


class AttachmentGone(AttachmentError):
    """The attachment's file was deleted meanwhile, please retry."""

    status = 409
    errno = ERRORS.CONSTRAINT_VIOLATED


class StorageError(AttachmentError):
    """The file storage failed."""

    status = 503
    errno = ERRORS.BACKEND


class StorageUnavailable(StorageError):
    """The file storage does not answer, or refuses; try again later."""


class StorageFull(StorageError):
    """The file storage has no space left."""

    status = 507


def modified_meanwhile(existing: dict[str, Any] | None) -> HTTPException:
    """Kinto's 412 for a record; ``existing`` is the record, for those who may read it."""
    response: HTTPException = http_error(
        HTTPPreconditionFailed(),
        errno=ERRORS.MODIFIED_MEANWHILE,
        message="Resource was modified meanwhile",
        details={"existing": existing} if existing else {},
    )
    if existing:
        response.headers["ETag"] = f'"{existing["last_modified"]}"'
    return response
