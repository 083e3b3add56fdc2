"""Creating an object in a bucket, at once or in parts; never overwrites."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
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

logger = logging.getLogger(__name__)

PARALLEL = 4  # Parts in flight; one more is being read.
MAX_PARTS = 10_000  # A limit of S3.
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
        """Have S3 copy another object of ``size`` bytes.

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
        """Suppress a failure if the object was created nevertheless, in its full size.

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
        self._pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="s3-upload")
        self._sending: set[Future[None]] = set()
        self._parts: dict[int, dict[str, Any]] = {}
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
        self._pool.shutdown(cancel_futures=True)
        if not self._completed and not abort(self._bucket, self._target):
            self._leftovers.append(self._target)

    def add(self, piece: Piece) -> None:
        """Send a piece in the background; waits while too many others are in flight."""
        self._start(self._send, piece)

    def add_range(self, origin: dict[str, str], start: int, end: int) -> None:
        """Have S3 copy the bytes from ``start`` to ``end`` (exclusive) of another object."""
        self._start(self._copy, origin, f"bytes={start}-{end - 1}")

    def wait(self) -> None:
        """Return when all parts are sent; raise the first error."""
        self._collect(0)

    def complete(self, **conditions: Any) -> None:
        parts = [self._parts[number] for number in sorted(self._parts)]
        self._bucket.call(
            "complete_multipart_upload",
            **self._target,
            **conditions,
            MultipartUpload={"Parts": parts},
        )
        self._completed = True

    def _start(self, action: Callable[..., None], *arguments: Any) -> None:
        self._collect(PARALLEL - 1)
        self._number += 1
        # In the context of the request, which has its budget for waiting.
        run = copy_context().run
        self._sending.add(self._pool.submit(run, action, self._number, *arguments))

    def _collect(self, most: int) -> None:
        """Wait until at most so many parts are in flight."""
        while len(self._sending) > most:
            done, self._sending = wait(self._sending, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()

    def _send(self, number: int, piece: Piece) -> None:
        answer = self._bucket.call(
            "upload_part",
            **self._target,
            PartNumber=number,
            Body=piece,
            ChecksumCRC32=piece.crc32,
        )
        self._add_part(number, answer)

    def _copy(self, number: int, origin: dict[str, str], byte_range: str) -> None:
        answer = self._bucket.call(
            "upload_part_copy",
            **self._target,
            PartNumber=number,
            CopySource=origin,
            CopySourceRange=byte_range,
        )
        self._add_part(number, answer["CopyPartResult"])

    def _add_part(self, number: int, answer: dict[str, Any]) -> None:
        part = {"PartNumber": number, "ETag": answer["ETag"]}
        if answer.get("ChecksumCRC32"):  # A server that returns none may not accept one either.
            part["ChecksumCRC32"] = answer["ChecksumCRC32"]
        self._parts[number] = part


def abort(bucket: S3Bucket, target: dict[str, Any]) -> bool:
    """Remove the parts of an upload; False if that failed."""
    try:
        bucket.call("abort_multipart_upload", cleanup=True, tolerating=["NoSuchUpload"], **target)
    except StorageError as error:
        message = "An unfinished upload stays on S3: %s: %s"
        logger.warning(message, target, error.reason, exc_info=True)
        return False
    return True
