"""Writes in several requests, on S3."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from kinto_attachment.errors import FileNotFound, KeyTaken, StorageError, StorageUnavailable

from . import CHUNK_SIZE, FileStat, Partial, Reader, Unfinished, check_key
from .partials import PARTIALS_FOLDER, Pace, left_to_gc, partial_of
from .pieces import Piece
from .s3_bucket import S3Bucket
from .s3_errors import error_code
from .s3_partial_writer import LARGEST_FILE, PartialWriter, new_details, without_numbers_in_use


class S3Partials:
    """The part of ``S3Storage`` that continues writes.

    A Partial is a multipart upload (``main``) with an optional ``segment``, and the spill objects
    with its last bytes (``asides``). Small files only have spill objects.
    """

    _bucket: S3Bucket
    _part_size: int
    _headers: Callable[[dict[str, str | None]], dict[str, Any]]
    _hidden_headers: Callable[[], dict[str, Any]]
    _delete_all: Callable[[Sequence[str]], None]

    largest_partial = LARGEST_FILE

    def begin(
        self,
        id: str,
        key: str,
        content_type: str,
        *,
        disposition: str = "",
        length: int | None = None,
    ) -> Partial:
        self._bucket.check_free(check_key(key))
        headers = self._headers_of_file(id, content_type, disposition)
        return Partial(id, key, 0, {"headers": headers, **new_details(key)})

    def take_over(self, partial: Partial) -> Partial:
        return replace(partial, details=without_numbers_in_use(partial.details))

    def append(
        self,
        partial: Partial,
        reader: Reader,
        checkpoint: Callable[[Partial], None],
        *,
        length: int | None = None,
    ) -> Partial:
        with self._writer(partial) as writer:
            writer.tidy()
            if writer.closing:
                writer.close_segment()
            pace = Pace()
            left = length or 0
            while data := reader.read(min(CHUNK_SIZE, writer.room)):
                writer.add(data)
                pace.add(len(data))
                left -= len(data)
                if writer.can_send_early and writer.room <= left and pace.brings(writer.room):
                    writer.send_early()
                if pace.is_due or writer.has_to_tell:
                    writer.store()
                    checkpoint(writer.partial)
                    pace.restart()
                if writer.closing:
                    writer.close_segment()
            writer.store()
            return writer.partial

    def finish(self, partial: Partial) -> FileStat:
        if not self._is_finished(partial):
            with self._unless_finished(partial):
                self._finish(partial)
        with left_to_gc(partial):
            self._remove_hidden(partial)
        content_type = partial.details["headers"]["ContentType"]
        return FileStat(partial.key, partial.size, datetime.now(timezone.utc), content_type)

    def discard(self, partial: Partial) -> None:
        check_key(partial.key)
        for upload in self._uploads(partial.key):
            if upload["Key"] == partial.key:
                self._abort(partial.key, upload["UploadId"])
        self._remove_hidden(partial, thoroughly=True)
        with suppress(KeyTaken):  # By another file.
            if partial.size and self._size_of_own(partial) == 0:
                self._bucket.call("delete_object", Key=partial.key)  # See _finish.

    def list_unfinished(self) -> Iterator[Unfinished]:
        for page in self._bucket.pages("list_multipart_uploads"):
            for found in page.get("Uploads", ()):
                key, upload_id = found["Key"], found["UploadId"]
                started = found["Initiated"].astimezone(timezone.utc)
                yield Unfinished(upload_id, key, self._sent(key, upload_id), started, **of(key))
        for page in self._bucket.pages("list_objects_v2", Prefix=PARTIALS_FOLDER):
            for found in page.get("Contents", ()):
                key, modified = found["Key"], found["LastModified"].astimezone(timezone.utc)
                yield Unfinished(key, key, found["Size"], modified, **of(key))

    def discard_unfinished(self, unfinished: Unfinished) -> None:
        if unfinished.id == unfinished.key:
            if unfinished.key.startswith(PARTIALS_FOLDER):
                self._bucket.call("delete_object", tolerating=["NoSuchKey"], Key=unfinished.key)
        else:
            self._abort(unfinished.key, unfinished.id)

    def _writer(self, partial: Partial) -> PartialWriter:
        return PartialWriter(self._bucket, partial, self._part_size, self._hidden_headers())

    def _finish(self, partial: Partial) -> None:
        with self._writer(partial) as writer:
            main = writer.main
            if not main.size and not writer.segment:
                self._bucket.create(partial.key, writer.tail.take(), **partial.details["headers"])
                return
            writer.send_rest()
            main.complete(self._bucket, **self._claim_key(partial))

    def _headers_of_file(self, id: str, content_type: str, disposition: str) -> dict[str, Any]:
        given: dict[str, str | None] = {
            "ContentType": content_type,
            "ContentDisposition": disposition,
        }
        # It distinguishes the file from others, which may get the same key.
        return {**self._headers(given), "Metadata": {"upload": id}}

    def _claim_key(self, partial: Partial) -> dict[str, Any]:
        """Take the key for the file; with these conditions, its upload can be completed."""
        if self._bucket.is_aws:
            return {"IfNoneMatch": "*"}
        # As in NewObject: an empty object claims the key. Another call may have put it.
        if self._size_of_own(partial) is None:
            self._bucket.create(partial.key, Piece.of([]), **partial.details["headers"])
        return {}

    @contextmanager
    def _unless_finished(self, partial: Partial) -> Iterator[None]:
        """Suppress a failure if the file is finished: the answer may have been lost.

        Or another call was faster.
        """
        try:
            yield
        except (FileNotFound, KeyTaken, StorageError):
            if not self._is_finished(partial):
                raise

    def _is_finished(self, partial: Partial) -> bool:
        """:raises KeyTaken: another file has the key."""
        return self._size_of_own(partial) == partial.size

    def _size_of_own(self, partial: Partial) -> int | None:
        """The size of the object that a finish has stored, None if there is none.

        :raises KeyTaken: there is another object.
        """
        try:
            found = self._bucket.head(partial.key)
        except FileNotFound:
            return None
        if found["Metadata"].get("upload") != partial.id:
            raise KeyTaken()
        return int(found["ContentLength"])

    def _uploads(self, prefix: str) -> Iterator[dict[str, Any]]:
        """The multipart uploads whose key is, or starts with, a prefix."""
        for page in self._bucket.pages("list_multipart_uploads", Prefix=prefix):
            yield from page.get("Uploads", ())

    def _abort(self, key: str, upload_id: str) -> None:
        self._bucket.call(
            "abort_multipart_upload", tolerating=["NoSuchUpload"], Key=key, UploadId=upload_id
        )

    def _remove_hidden(self, partial: Partial, *, thoroughly: bool = False) -> None:
        """Remove stored bytes other than the file. If a process died, not all are known."""
        details = partial.details
        if not (thoroughly or details["asides"] or details["garbage"] or details["segment"]):
            return
        folder = f"{PARTIALS_FOLDER}{partial.id}/"
        for upload in self._uploads(folder) if thoroughly or details["segment"] else ():
            self._abort(upload["Key"], upload["UploadId"])
        for page in self._bucket.pages("list_objects_v2", Prefix=folder):
            self._delete_all([found["Key"] for found in page.get("Contents", ())])

    def _sent(self, key: str, upload_id: str) -> int:
        """The number of stored bytes of an unfinished upload."""
        try:
            pages = self._bucket.pages("list_parts", Key=key, UploadId=upload_id)
            return sum(part["Size"] for page in pages for part in page.get("Parts", ()))
        except StorageUnavailable as error:
            if error_code(error) != "NoSuchUpload":
                raise
            return 0  # It was completed or aborted in the meantime.


def of(key: str) -> dict[str, Any]:
    """The metadata that identifies the owner of a hidden object."""
    if not key.startswith(PARTIALS_FOLDER):
        return {}
    return {"is_private": True, "partial_id": partial_of(key)}
