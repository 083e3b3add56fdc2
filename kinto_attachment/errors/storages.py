"""Errors of storages, and of the sites that share them."""

from __future__ import annotations

from kinto_attachment.errors.base import AttachmentError, Errno


class FileNotFound(AttachmentError):
    """No file is stored under this key."""

    status = 404
    errno = Errno.INVALID_RESOURCE_ID
    message = "There is no stored file under this key."


class FileMissing(FileNotFound):
    """A storage lacks a file that the index lists, or listed when it was read."""

    def __init__(self, storage: str, key: str) -> None:
        super().__init__()
        self.storage = storage
        self.key = key


class InvalidKey(FileNotFound):
    """No backend stores a file under such a key."""

    message = "No backend stores a file under such a key."


class KeyTaken(AttachmentError):
    """A file is already stored under this key."""

    status = 409
    errno = Errno.CONSTRAINT_VIOLATED
    message = "A file is stored under this key already."


class StorageError(AttachmentError):
    """Base of the failures of a file storage."""

    status = 503
    errno = Errno.BACKEND
    message = "The file storage failed."

    @property
    def reason(self) -> str:
        """The message and its cause in one line: for operators, not for clients."""
        return str(self) if self.__cause__ is None else f"{self} ({cause(self.__cause__)})"


class StorageUnavailable(StorageError):
    """The file storage does not answer, or refuses the call."""

    message = "The file storage does not answer, or refuses; try again later."


class StorageFull(StorageError):
    """The file storage has no space left."""

    status = 507
    message = "The file storage has no space left."


class StorageNotConfigured(StorageError):
    """A file is in a storage that the server's settings no longer name.

    The status is not 410, because the file still exists and caches would remember a 410.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"The file is in the storage {name!r}, which is not configured.")


class NotThisSite(AttachmentError):
    """Database and storage do not belong together; the message tells an operator what to do."""

    message = "The database and the storage do not belong together."


class DisputedSite(NotThisSite):
    """Another copy of the database has used the storage."""


class LinksNotConfigured(AttachmentError):
    """The server cannot sign links: neither the storage nor a setting provides a key."""

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
