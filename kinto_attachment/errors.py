"""What can go wrong: each error with its HTTP status, Kinto's errno and its default message."""

from __future__ import annotations

from kinto.core.errors import ERRORS
from pyramid_storage.exceptions import FileNotAllowed as StorageFileNotAllowed


class AttachmentError(Exception):
    """Base of all errors of this package; ``str(error)`` is the message for the client.

    ``details`` becomes the ``details`` of Kinto's JSON error.
    """

    status = 500
    errno: ERRORS = ERRORS.UNDEFINED
    message = "The attachment could not be processed."
    may_pass = True  # Whether the same request may succeed later, if the status says so.

    def __init__(self, message: str = "", *, details: object = None) -> None:
        super().__init__(message or self.message)
        self.details = details


class InvalidBody(AttachmentError):
    """The request's headers or body cannot be parsed."""

    status = 400
    errno = ERRORS.INVALID_PARAMETERS
    message = "The request's headers or body cannot be parsed."


class BodyTimeout(AttachmentError):
    """The request's body stopped arriving, or arrives too slowly."""

    status = 408
    errno = ERRORS.INVALID_PARAMETERS
    message = "The request's body stopped arriving, or arrives too slowly."


class UnsupportedType(InvalidBody):
    """The request's body is of a type, or in an encoding, that the endpoint does not take.

    ``accepted`` are the encodings that it takes, if it is about those (RFC 9110 15.5.16).
    """

    status = 415
    message = "The request's body is of a type that this endpoint does not take."

    def __init__(self, message: str = "", *, accepted: str = "") -> None:
        super().__init__(message)
        self.accepted = accepted


class InvalidForm(AttachmentError):
    """The form was parsed, but its fields are not what the endpoint takes."""

    status = 400
    errno = ERRORS.INVALID_POSTED_DATA
    message = "The form does not have the fields that this endpoint takes."


class FileNotAllowed(InvalidForm, StorageFileNotAllowed):  # type: ignore[misc]
    """The file's extension is not among the allowed ones; also pyramid_storage's error."""

    message = "body: File extension is not allowed."


class TooSmall(InvalidForm):
    """The file is smaller than the least size."""

    message = "body: File size is below the minimum."


class DigestMismatch(InvalidBody):
    """The bytes received do not have the digest that the request claims."""

    message = "The bytes received do not have the digest that the request claims."


class WrongChecksum(DigestMismatch):
    """The bytes of a request for an upload do not have the checksum that tus claims."""

    status = 460  # Of tus alone.
    message = "The bytes received do not have the checksum that the request claims."


class UnsupportedVersion(AttachmentError):
    """The request is of another version of a protocol than those that the server speaks."""

    status = 412
    errno = ERRORS.MODIFIED_MEANWHILE
    message = "The server does not speak this version of the protocol."


class UploadComplete(InvalidBody):
    """The upload is complete: it takes no more bytes."""

    message = "The upload is complete already."


class MethodNotAllowed(AttachmentError):
    """The protocol has no such method for this resource; ``allowed`` are those that it has."""

    status = 405
    errno = ERRORS.METHOD_NOT_ALLOWED
    message = "Method not allowed on this endpoint."

    def __init__(self, allowed: str) -> None:
        super().__init__()
        self.allowed = allowed


class TooLarge(AttachmentError):
    """The file, or another part of the body, exceeds its limit."""

    status = 413
    errno = ERRORS.REQUEST_TOO_LARGE
    message = "The file, or another part of the body, exceeds its limit."


class FileNotFound(AttachmentError):
    """There is no stored file under this key."""

    status = 404
    errno = ERRORS.INVALID_RESOURCE_ID
    message = "There is no stored file under this key."


class FileMissing(FileNotFound):
    """A storage lacks a file that the index has there, or had when it was read."""

    def __init__(self, storage: str, key: str) -> None:
        super().__init__()
        self.storage = storage
        self.key = key


class ArchiveFailed(AttachmentError):
    """A file of an archive is missing, although its record is there."""

    message = "A file of the archive is missing."


class InvalidKey(FileNotFound):
    """No backend stores a file under such a key."""

    message = "No backend stores a file under such a key."


class KeyTaken(AttachmentError):
    """A file is stored under this key already."""

    status = 409
    errno = ERRORS.CONSTRAINT_VIOLATED
    message = "A file is stored under this key already."


class WrongOffset(AttachmentError):
    """The bytes of a request do not follow on those that the upload has."""

    status = 409
    errno = ERRORS.CONSTRAINT_VIOLATED
    message = "The upload has another offset."


class OtherProtocol(AttachmentError):
    """The upload was created by another protocol."""

    status = 409
    errno = ERRORS.CONSTRAINT_VIOLATED
    message = "The upload was created by another protocol."


class WrongLength(InvalidBody):
    """The length of the file is not the one that was told before, or that the content has."""

    message = "The length of the file contradicts what was told before."


class UploadNotFound(AttachmentError):
    """There is no such upload, or it is somebody else's."""

    status = 404
    errno = ERRORS.INVALID_RESOURCE_ID
    message = "There is no such upload."


class UploadGone(AttachmentError):
    """The upload has expired, was cancelled, or has failed for good."""

    status = 410
    errno = ERRORS.INVALID_RESOURCE_ID
    message = "The upload has ended."


class TakenOver(AttachmentError):
    """Another request has taken over the upload; what it has not committed is dropped."""

    status = 423
    errno = ERRORS.FORBIDDEN
    message = "Another request has taken over the upload."


class ChangeRefused(AttachmentError):
    """Files must not be changed; ``by`` is what refuses it, for metrics.

    ``details`` have the ``reason``, and ``until`` when (ms since the epoch; None: not known).
    """

    status = 423
    errno = ERRORS.FORBIDDEN
    by = ""


class Locked(ChangeRefused):
    """The files of the collection are locked against changes by clients."""

    by = "lock"
    message = "The files of this collection are locked."

    def __init__(self, reason: str) -> None:
        super().__init__(details={"reason": reason, "until": None})


class Held(ChangeRefused):
    """The change would delete or replace a file that is held, or would shorten the hold.

    ``until`` is None if the hold is open-ended; ``record`` is the URI of the file's record.
    """

    by = "hold"
    message = "The file is held."

    def __init__(
        self, record: str, *, reason: str | None, until: int | None, message: str = ""
    ) -> None:
        details = {"reason": reason, "until": until, "record": record}
        super().__init__(message, details=details)


class UploadBusy(AttachmentError):
    """Another request is just finishing the upload; this one can be sent again."""

    status = 409
    errno = ERRORS.CONSTRAINT_VIOLATED
    message = "Another request is just finishing the upload, please retry."


class UploadIncomplete(AttachmentError):
    """A direct upload is to be completed, and some of its bytes have not arrived."""

    status = 409
    errno = ERRORS.CONSTRAINT_VIOLATED
    message = "Some bytes of the file have not arrived."
    may_pass = False  # Not by waiting: they have to be sent.


class TooManyUploads(AttachmentError):
    """The user has too many unfinished uploads in the collection."""

    status = 429
    errno = ERRORS.CLIENT_REACHED_CAPACITY
    message = "There are too many unfinished uploads; finish or cancel some of them."


class NotThisSite(AttachmentError):
    """Database and storage do not belong together; the message tells an operator what to do."""

    message = "The database and the storage do not belong together."


class DisputedSite(NotThisSite):
    """Another copy of the database has used the storage."""


class AttachmentGone(AttachmentError):
    """The file to be linked was deleted by another request; the request can be sent again."""

    status = 409
    errno = ERRORS.CONSTRAINT_VIOLATED
    message = "The attachment's file was deleted meanwhile, please retry."


class AttachmentChanged(AttachmentGone):
    """The record has another attachment than the request has read; it can be sent again."""

    message = "The attachment was changed meanwhile, please retry."


class DeletesMore(AttachmentError):
    """Kinto would delete records of another bucket, too: see ``index/look_alikes.py``."""

    status = 409
    errno = ERRORS.CONSTRAINT_VIOLATED
    message = (
        "Kinto would also delete the records of another bucket, whose id has other characters in "
        "place of underscores. The bucket can be deleted when there is no such bucket."
    )
    may_pass = False


class VersionInUse(AttachmentError):
    """The version to be deleted is the record's current file."""

    status = 409
    errno = ERRORS.CONSTRAINT_VIOLATED
    message = "This version is the record's current file. Delete the attachment instead."
    may_pass = False


class VersionUnavailable(AttachmentError):
    """The version to be restored is in a storage that the settings no longer name."""

    status = 410
    errno = ERRORS.INVALID_RESOURCE_ID
    message = "The file of this version is in a storage that is not configured any more."


class StorageError(AttachmentError):
    """Base of the failures of a file storage."""

    status = 503
    errno = ERRORS.BACKEND
    message = "The file storage failed."

    @property
    def reason(self) -> str:
        """The message with what caused it, in one line: for operators, not for clients."""
        return str(self) if self.__cause__ is None else f"{self} ({cause(self.__cause__)})"


class StorageUnavailable(StorageError):
    """The file storage does not answer, or refuses the call."""

    message = "The file storage does not answer, or refuses; try again later."


class StorageFull(StorageError):
    """The file storage has no space left."""

    status = 507
    message = "The file storage has no space left."


class QuotaExceeded(AttachmentError):
    """The file would exceed the quota of its bucket or collection."""

    status = 507
    errno = ERRORS.FORBIDDEN
    by = "quota"
    message = "The quota does not leave enough space for this file."
    may_pass = False


class StorageNotConfigured(StorageError):
    """A file is in a storage that the server's settings no longer name.

    The file is not gone (410), and caches should not remember that it is.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"The file is in the storage {name!r}, which is not configured.")


class LinksNotConfigured(AttachmentError):
    """The server cannot sign links: neither the storage nor a setting has a key for it."""

    status = 501
    message = "Links need kinto.attachment.signing_keys, or kinto.userid_hmac_secret."


def cause(error: BaseException) -> str:
    """The name of an error and the first line of its message, for a log."""
    if isinstance(error, StorageError):
        return error.reason
    if isinstance(error, AttachmentError) and error.__cause__ is not None:
        return cause(error.__cause__)
    # Kinto's BackendError wraps SQLAlchemy's error, and that one the database's own.
    inner = getattr(error, "original", None) or error
    inner = getattr(inner, "orig", None) or inner
    lines = str(inner).strip().splitlines()
    return ": ".join([type(inner).__name__, *lines[:1]])
