"""Creating an object in a bucket, at once or in parts; never overwrites."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any
from uuid import uuid4

from kinto_attachment.errors import (
    FileNotFound,
    KeyTaken,
    StorageError,
    StorageUnavailable,
    TooLarge,
)

from . import Reader
from .pieces import Piece, pieces
from .s3_bucket import S3Bucket
from .s3_errors import error_code
from .s3_parts import MAX_PARTS, PartSender

logger = logging.getLogger(__name__)

# S3 copies up to 5 GiB in one call, but has to answer within the read timeout.
COPIED_AT_ONCE = 256 * 1024 * 1024


class NewObject:
    """An object that is being created; ``headers`` are ``ContentType`` and the like.

    Uploads that cannot be aborted because the server does not answer are added to ``leftovers``.
    """

    def __init__(
        self,
        bucket: S3Bucket,
        key: str,
        headers: dict[str, Any],
        leftovers: deque[dict[str, Any]],
    ) -> None:
        self.key = key
        self.size = 0
        # Tells this object from one that another request created under the same key.
        self._token = uuid4().hex
        self._bucket = bucket
        self._headers = {"Metadata": {"upload": self._token}, **headers}
        self._leftovers = leftovers

    def send(self, reader: Reader, part_size: int) -> None:
        """Upload the bytes of a reader.

        :raises KeyTaken: there is an object under this key.
        :raises TooLarge: the file has more than 10,000 parts.
        """
        rest = pieces(reader, part_size)
        first, second = next(rest), next(rest, None)
        if second is None:
            self.size = first.size
            self._put(first)
            return
        self.size = first.size + second.size
        with self._multipart() as upload:
            upload.add(first)
            upload.add(second)
            del first, second  # Otherwise they stay in memory to the end.
            for part in rest:
                self.size += part.size
                if self.size > MAX_PARTS * part_size:
                    raise TooLarge(
                        f"body: File size exceeds the limit of {MAX_PARTS * part_size} bytes."
                    )
                upload.add(part)
            self._complete(upload)

    def copy(self, source: str, size: int) -> None:
        """Let S3 copy another object of ``size`` bytes.

        :raises KeyTaken: there is an object under this key.
        """
        self.size = size
        origin = {"Bucket": self._bucket.name, "Key": source}
        if not self._bucket.is_aws:
            self._bucket.check_free(self.key)  # They ignore If-None-Match for copies.
        if size <= COPIED_AT_ONCE:
            with self._unless_created(size):
                self._bucket.call(
                    "copy_object",
                    Key=self.key,
                    CopySource=origin,
                    IfNoneMatch="*",
                    MetadataDirective="REPLACE",
                    **self._headers,
                )
            return
        with self._multipart() as upload:
            step = max(COPIED_AT_ONCE, ceil(size / MAX_PARTS))
            for start in range(0, size, step):
                upload.add_range(origin, start, min(start + step, size))
            self._complete(upload)

    def _put(self, piece: Piece) -> None:
        with self._unless_created(piece.size):
            self._bucket.create(self.key, piece, **self._headers)

    def _multipart(self) -> MultipartUpload:
        return MultipartUpload(self._bucket, self.key, self._headers, self._leftovers)

    def _complete(self, upload: MultipartUpload) -> None:
        upload.wait()
        condition = {}
        if self._bucket.is_aws:
            condition = {"IfNoneMatch": "*"}
        else:
            # Other servers first check whether the key is free, and then complete the upload: two
            # uploads may pass the check, and one file is lost. But they do put a small object
            # atomically, so an empty one claims the key until the upload is complete.
            self._put(Piece())
        with self._unless_created(self.size):
            upload.complete(**condition)

    @contextmanager
    def _unless_created(self, size: int) -> Iterator[None]:
        """Suppress a failure if the object was created with its full size nevertheless.

        The response to a successful call may have been lost; and when boto3 retries, it finds
        the key taken by the object itself.
        """
        try:
            yield
        except (KeyTaken, StorageUnavailable) as failure:
            if not self._is_there(size, failure):
                raise

    def _is_there(self, size: int, failure: Exception) -> bool:
        try:
            found = self._bucket.call("head_object", cleanup=True, Key=self.key)
            if found["Metadata"].get("upload") != self._token:
                if error_code(failure) == "ConditionalRequestConflict":
                    raise KeyTaken() from failure
                return False
            if found["ContentLength"] != size:  # It is the empty object that claims the key.
                self._bucket.call("delete_object", cleanup=True, Key=self.key)
            return bool(found["ContentLength"] == size)
        except (FileNotFound, StorageError):
            return False  # The first failure is reported; gc removes what may be left.


class MultipartUpload:
    """A multipart upload; on leaving the block, it is aborted unless it was completed."""

    def __init__(
        self,
        bucket: S3Bucket,
        key: str,
        headers: dict[str, Any],
        leftovers: deque[dict[str, Any]],
    ) -> None:
        self._bucket = bucket
        self._target: dict[str, Any] = {"Key": key}
        self._headers = headers
        self._leftovers = leftovers
        self._parts = PartSender(bucket)
        self._number = 0
        self._completed = False

    def __enter__(self) -> MultipartUpload:
        answer = self._bucket.call(
            "create_multipart_upload", **self._target, **self._headers, ChecksumAlgorithm="CRC32"
        )
        self._target["UploadId"] = answer["UploadId"]
        return self

    def __exit__(self, *exc_info: object) -> None:
        # Wait for the parts in flight first: S3 may keep a part that arrives after the abort.
        self._parts.close()
        if not self._completed and not abort(self._bucket, self._target):
            self._leftovers.append(self._target)

    def add(self, piece: Piece) -> None:
        """Send a piece in the background; waits while too many others are in flight."""
        self._parts.add(self._target, self._next(), piece)

    def add_range(self, origin: dict[str, str], start: int, end: int) -> None:
        """Let S3 copy the bytes from ``start`` to ``end`` (exclusive) of another object."""
        self._parts.add_range(self._target, self._next(), origin, start, end)

    def wait(self) -> None:
        """Return when all parts are sent; raise the first error."""
        self._parts.wait()

    def complete(self, **conditions: Any) -> None:
        sent = self._parts.sent
        parts = [sent[number] for number in sorted(sent)]  # All parts belong to this upload.
        self._bucket.call(
            "complete_multipart_upload",
            **self._target,
            **conditions,
            MultipartUpload={"Parts": parts},
        )
        self._completed = True

    def _next(self) -> int:
        self._number += 1
        return self._number


def abort(bucket: S3Bucket, target: dict[str, Any]) -> bool:
    """Remove the parts of an upload; False if that failed."""
    try:
        bucket.call("abort_multipart_upload", cleanup=True, tolerating=["NoSuchUpload"], **target)
    except StorageError as error:
        message = "An unfinished upload stays on S3: %s: %s"
        logger.warning(message, target, error.reason, exc_info=True)
        return False
    return True
