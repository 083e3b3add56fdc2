"""Errors of uploads in several requests."""

from __future__ import annotations

from kinto_attachment.errors.base import AttachmentError, Errno
from kinto_attachment.errors.bodies import InvalidBody


class UploadComplete(InvalidBody):
    """The upload is complete and accepts no more bytes."""

    message = "The upload is complete already."


class WrongOffset(AttachmentError):
    """The offset of a request is not the end of the upload's bytes."""

    status = 409
    errno = Errno.CONSTRAINT_VIOLATED
    message = "The upload has another offset."


class OtherProtocol(AttachmentError):
    """The upload was created by another protocol."""

    status = 409
    errno = Errno.CONSTRAINT_VIOLATED
    message = "The upload was created by another protocol."


class WrongLength(InvalidBody):
    """The length of the file contradicts an earlier request or the content."""

    message = "The length of the file contradicts what was told before."


class UploadNotFound(AttachmentError):
    """The upload does not exist, or belongs to another user."""

    status = 404
    errno = Errno.INVALID_RESOURCE_ID
    message = "There is no such upload."


class UploadGone(AttachmentError):
    """The upload has expired, was cancelled, or has failed for good."""

    status = 410
    errno = Errno.INVALID_RESOURCE_ID
    message = "The upload has ended."


class TakenOver(AttachmentError):
    """Another request has taken over the upload; uncommitted bytes of this one are dropped."""

    status = 423
    errno = Errno.FORBIDDEN
    message = "Another request has taken over the upload."


class UploadBusy(AttachmentError):
    """Another request is finishing the upload; this one can be sent again."""

    status = 409
    errno = Errno.CONSTRAINT_VIOLATED
    message = "Another request is just finishing the upload, please retry."


class UploadIncomplete(AttachmentError):
    """A direct upload cannot be completed because some of its bytes have not arrived."""

    status = 409
    errno = Errno.CONSTRAINT_VIOLATED
    message = "Some bytes of the file have not arrived."
    may_pass = False  # Waiting does not help: the bytes have to be sent.


class TooManyUploads(AttachmentError):
    """The user has too many unfinished uploads in the collection."""

    status = 429
    errno = Errno.CLIENT_REACHED_CAPACITY
    message = "There are too many unfinished uploads; finish or cancel some of them."
