"""Errors about the files of records: refused changes, quotas, versions, archives."""

from __future__ import annotations

from kinto_attachment.errors.base import AttachmentError, Errno


class ChangeRefused(AttachmentError):
    """A change of files is refused; ``by`` names the reason in metrics.

    ``details`` have the ``reason``, and ``until`` when (ms since the epoch; None: not known).
    """

    status = 423
    errno = Errno.FORBIDDEN
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


class QuotaExceeded(AttachmentError):
    """The file would exceed the quota of its bucket or collection."""

    status = 507
    errno = Errno.FORBIDDEN
    by = "quota"
    message = "The quota does not leave enough space for this file."
    may_pass = False


class AttachmentGone(AttachmentError):
    """Another request deleted the file to be linked; the request can be sent again."""

    status = 409
    errno = Errno.CONSTRAINT_VIOLATED
    message = "The attachment's file was deleted meanwhile, please retry."


class AttachmentChanged(AttachmentGone):
    """The attachment changed after the request read it; the request can be sent again."""

    message = "The attachment was changed meanwhile, please retry."


class DeletesMore(AttachmentError):
    """Kinto would delete records of another bucket, too: see ``index/look_alikes.py``."""

    status = 409
    errno = Errno.CONSTRAINT_VIOLATED
    message = (
        "Kinto would also delete the records of another bucket, whose id has other characters in "
        "place of underscores. The bucket can be deleted when there is no such bucket."
    )
    may_pass = False


class VersionInUse(AttachmentError):
    """The version to be deleted is the record's current file."""

    status = 409
    errno = Errno.CONSTRAINT_VIOLATED
    message = "This version is the record's current file. Delete the attachment instead."
    may_pass = False


class VersionUnavailable(AttachmentError):
    """The version to be restored is in a storage that the settings no longer name."""

    status = 410
    errno = Errno.INVALID_RESOURCE_ID
    message = "The file of this version is in a storage that is not configured any more."


class ArchiveFailed(AttachmentError):
    """A file of an archive is missing, although its record is there."""

    message = "A file of the archive is missing."
