"""Translating the errors of boto3 to those of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from kinto_attachment.errors import (
    AttachmentError,
    FileNotFound,
    KeyTaken,
    StorageFull,
    StorageUnavailable,
)

FULL = {"InsufficientStorage", "QuotaExceeded", "QuotaExceededException", "XMinioStorageFull"}
FAILURES = (BotoCoreError, ClientError, Boto3Error, HTTPError, OSError)
# The codes with which S3 responds 400 if a body breaks off or does not arrive.
ABOUT_THE_BODY = {"IncompleteBody", "RequestTimeout"}
NO_BUCKET = "The bucket of kinto.attachment.aws.bucket_name does not exist."


def is_refusal(error: BaseException) -> bool:
    """Whether S3 has responded that it does not support requests of this kind."""
    cause = error.__cause__
    if not isinstance(cause, ClientError) or error_code(error) in ABOUT_THE_BODY:
        return False
    status = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status in (400, 403, 501)


@contextmanager
def translated() -> Iterator[None]:
    """Translate boto3's errors."""
    try:
        yield
    except FAILURES as error:
        raise _ours(error) from error


def error_code(error: BaseException) -> str:
    """S3's code for an error, or an empty text if the error does not come from S3."""
    cause = error.__cause__
    return str(cause.response["Error"].get("Code")) if isinstance(cause, ClientError) else ""


def _ours(error: Exception) -> AttachmentError:
    if not isinstance(error, ClientError):
        return StorageUnavailable()
    code = error.response["Error"].get("Code")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code == "NoSuchBucket":
        return StorageUnavailable(NO_BUCKET)
    if code in FULL or status == 507:
        return StorageFull()
    if status == 404 and code != "NoSuchUpload":
        return FileNotFound()
    if status == 412:
        return KeyTaken()
    return StorageUnavailable()
