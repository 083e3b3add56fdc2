"""The errors, each with its HTTP status, Kinto's errno and its default message."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kinto_attachment.errors.base import AttachmentError, Errno
from kinto_attachment.errors.bodies import (
    BodyTimeout,
    DigestMismatch,
    InvalidBody,
    InvalidForm,
    MethodNotAllowed,
    TooLarge,
    TooSmall,
    UnsupportedType,
    UnsupportedVersion,
    WrongChecksum,
)
from kinto_attachment.errors.records import (
    ArchiveFailed,
    AttachmentChanged,
    AttachmentGone,
    ChangeRefused,
    DeletesMore,
    Held,
    Locked,
    QuotaExceeded,
    VersionInUse,
    VersionUnavailable,
)
from kinto_attachment.errors.storages import (
    DisputedSite,
    FileMissing,
    FileNotFound,
    InvalidKey,
    KeyTaken,
    LinksNotConfigured,
    NotThisSite,
    StorageError,
    StorageFull,
    StorageNotConfigured,
    StorageUnavailable,
    cause,
)
from kinto_attachment.errors.uploads import (
    OtherProtocol,
    TakenOver,
    TooManyUploads,
    UploadBusy,
    UploadComplete,
    UploadGone,
    UploadIncomplete,
    UploadNotFound,
    WrongLength,
    WrongOffset,
)

if TYPE_CHECKING:
    from kinto_attachment.errors.file_not_allowed import FileNotAllowed

__all__ = [
    "ArchiveFailed",
    "AttachmentChanged",
    "AttachmentError",
    "AttachmentGone",
    "BodyTimeout",
    "ChangeRefused",
    "DeletesMore",
    "DigestMismatch",
    "DisputedSite",
    "Errno",
    "FileMissing",
    "FileNotAllowed",
    "FileNotFound",
    "Held",
    "InvalidBody",
    "InvalidForm",
    "InvalidKey",
    "KeyTaken",
    "LinksNotConfigured",
    "Locked",
    "MethodNotAllowed",
    "NotThisSite",
    "OtherProtocol",
    "QuotaExceeded",
    "StorageError",
    "StorageFull",
    "StorageNotConfigured",
    "StorageUnavailable",
    "TakenOver",
    "TooLarge",
    "TooManyUploads",
    "TooSmall",
    "UnsupportedType",
    "UnsupportedVersion",
    "UploadBusy",
    "UploadComplete",
    "UploadGone",
    "UploadIncomplete",
    "UploadNotFound",
    "VersionInUse",
    "VersionUnavailable",
    "WrongChecksum",
    "WrongLength",
    "WrongOffset",
    "cause",
]

if not TYPE_CHECKING:  # Otherwise a type checker would accept any name.

    def __getattr__(name: str) -> Any:
        """Import ``FileNotAllowed`` on first use, as clients lack pyramid_storage (PEP 562)."""
        if name != "FileNotAllowed":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.file_not_allowed"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})  # For the reference documentation, too.
