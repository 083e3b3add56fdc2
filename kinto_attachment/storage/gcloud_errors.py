"""Translating the errors of Google's libraries to those of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from kinto_attachment.errors import (
    AttachmentError,
    FileNotFound,
    KeyTaken,
    StorageFull,
    StorageUnavailable,
)

FAILURES = (
    GoogleAPICallError,
    RetryError,
    GoogleAuthError,
    InvalidResponse,
    DataCorruption,
    RequestException,
    HTTPError,
    OSError,
)
NO_BUCKET = "The bucket of kinto.attachment.gcloud.bucket_name does not exist."


@contextmanager
def translated(*others: type[Exception]) -> Iterator[None]:
    """Translate the errors of Google's libraries, and ``others``."""
    try:
        yield
    except (*FAILURES, *others) as error:
        raise _ours(error) from error


def status_of(error: BaseException | None) -> int:
    """The HTTP status of Google's response, or 0 if there was none."""
    if isinstance(error, RetryError):
        error = error.cause
    if isinstance(error, GoogleAPICallError):
        return int(error.code or 0)
    if isinstance(error, InvalidResponse):
        return int(error.response.status_code)
    return 0


def _ours(error: Exception) -> AttachmentError:
    status = status_of(error)
    if status == 404:
        return FileNotFound()
    if status == 412:
        return KeyTaken()
    if status == 507:
        return StorageFull()
    return StorageUnavailable()
