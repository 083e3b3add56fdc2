"""Adding the bytes of one request to a file on S3 that arrives in several.

Parts are sent to a multipart upload, each with a unique number. S3 accepts 10,000 parts. The first
ones have the size of the buffer in memory. Later ones are larger segments, which are separate
multipart uploads that S3 copies into the file when they are full.
"""

from __future__ import annotations

import secrets
from typing import Any

from kinto_attachment.errors import TooLarge

from . import Partial
from .arriving_piece import ArrivingPiece
from .partials import PARTIALS_FOLDER, replaced
from .s3_bucket import S3Bucket
from .s3_open_upload import WINDOW, OpenUpload
from .s3_parts import PartSender
from .s3_tail import Tail

MIB = 1024 * 1024
# The number of parts that are sent from memory: 16 GiB, if a part has 8 MiB.
DIRECT_PARTS = 2000
# The size of segments doubles with each 1,000 of them: 10,000 parts are more than 12 TiB, and up
# to 4,000 numbers may be lost to writers that were taken over.
SEGMENT_SIZE = 64 * MIB
LARGEST_SEGMENT = 4096 * MIB  # S3 copies at most 5 GiB into a part.
LARGEST_FILE = 5 * 1024 * 1024 * MIB
# Unneeded objects are deleted in batches of this size.
MUCH_GARBAGE = 16


class PartialWriter:
    """Adds bytes to a Partial. ``headers`` are those of hidden objects."""

    def __init__(
        self, bucket: S3Bucket, partial: Partial, part_size: int, headers: dict[str, Any]
    ) -> None:
        details = partial.details
        self._sender = PartSender(bucket)
        self.main = OpenUpload(self._sender, **details["main"])
        self.segment: OpenUpload | None = None
        if details["segment"]:
            self.segment = OpenUpload(self._sender, **details["segment"])
        # Whether the segment is full, and may be complete already.
        self.closing: bool = details["closing"]
        self.folder = f"{PARTIALS_FOLDER}{partial.id}/"
        self.tail = Tail(bucket, self.folder, headers, details["asides"], details["garbage"])
        self._partial = partial
        self._bucket = bucket
        self._part_size = part_size
        self._headers = headers
        self._since_checkpoint = 0
        self._early: ArrivingPiece | None = None
        self._early_number = 0
        # Whether to try it: the client has not yet interrupted one.
        self._sends_early = True

    def __enter__(self) -> PartialWriter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._give_up_early()
        self._sender.close()

    @property
    def partial(self) -> Partial:
        """The Partial so far, if everything is stored."""
        size = self.main.size + (self.segment.size if self.segment else 0) + self.tail.size
        return replaced(
            self._partial,
            size,
            main=self.main.state,
            segment=self.segment.state if self.segment else None,
            closing=self.closing,
            asides=self.tail.asides,
            garbage=self.tail.garbage,
        )

    @property
    def room(self) -> int:
        """The number of bytes that the next part can still take."""
        return max(0, self._part_size - self.tail.size)

    @property
    def has_to_tell(self) -> bool:
        """Whether it may send no more parts before the next checkpoint."""
        return self.closing or (self._since_checkpoint >= WINDOW and not self._early)

    @property
    def can_send_early(self) -> bool:
        """Whether the next part has bytes, but none in the storage, not even in spill objects."""
        is_new = bool(self.tail.size) and not self.tail.durable and not self._early
        return is_new and self._sends_early and self._bucket.vouches_for_parts

    def tidy(self) -> None:
        if len(self.tail.garbage) >= MUCH_GARBAGE:
            self.tail.empty_garbage()

    def add(self, data: bytes) -> None:
        if self._partial.size + len(data) > LARGEST_FILE:
            raise TooLarge(f"body: File size exceeds the limit of {LARGEST_FILE} bytes.")
        self.tail.add(data)
        if self._early and not self._early.add(data):
            self._give_up_early()
        if not self.room:
            self.send_tail()

    def send_early(self) -> None:
        """Start to send the next part, whose bytes are all expected soon."""
        upload = self._created(self._next_upload())
        self._early = ArrivingPiece(self._part_size)
        for data in self.tail.in_memory:
            self._early.add(data)
        self._early_number = upload.send_early(self._early)
        self._since_checkpoint += 1

    def send_tail(self) -> None:
        """Send the bytes in spill objects or in memory as a part."""
        upload = self._next_upload()
        if self._early:
            upload.keep(self._early_number, self._early.size)
            self.tail.drop()
            self._early = None
        else:
            self._send_to(upload)
        self.closing = self.segment is not None and self.segment.size >= segment_size(
            self.main.next
        )

    def send_rest(self) -> None:
        """Make parts of everything. Whoever repeats it sends the same parts again."""
        self.close_segment()
        if self.tail.size:
            self._send_to(self.main)
        self.store()

    def store(self) -> None:
        """Make everything durable; a checkpoint can follow."""
        self._give_up_early()
        self.tail.store()
        self._sender.wait()
        self._since_checkpoint = 0

    def close_segment(self) -> None:
        """Make the segment a part of the file.

        The closing state has to be kept first, because the next writer may find it complete.
        """
        segment = self.segment
        if segment is None:
            return
        segment.complete_once(self._bucket)
        self.main.create(self._bucket, self._headers_of(self.main))
        origin = {"Bucket": self._bucket.name, "Key": segment.key}
        self.main.copy(origin, segment.size)
        self._sender.wait()
        self.tail.garbage.append(segment.key.removeprefix(self.folder))
        self.segment, self.closing = None, False

    def _give_up_early(self) -> None:
        """Its bytes are also in the tail. Its number is lost, because S3 may have the part."""
        if self._early:
            self._early.give_up()
            self._early, self._sends_early = None, False

    def _send_to(self, upload: OpenUpload) -> None:
        self._created(upload).send(self.tail.take())
        self._since_checkpoint += 1

    def _next_upload(self) -> OpenUpload:
        """The upload to which the next part belongs."""
        if self._early is None and self.segment is None and self.main.next > DIRECT_PARTS:
            self.segment = self._new_segment()
        return self.segment or self.main

    def _created(self, upload: OpenUpload) -> OpenUpload:
        upload.create(self._bucket, self._headers_of(upload))
        return upload

    def _new_segment(self) -> OpenUpload:
        return OpenUpload(self._sender, self.folder + secrets.token_hex(8))

    def _headers_of(self, upload: OpenUpload) -> dict[str, Any]:
        headers: dict[str, Any] = self._partial.details["headers"]
        return headers if upload is self.main else self._headers


def segment_size(number: int) -> int:
    """The size of the segment that becomes the part of this number, at least."""
    return int(min(SEGMENT_SIZE << max(0, number - DIRECT_PARTS - 1) // 1000, LARGEST_SEGMENT))


def new_details(key: str) -> dict[str, Any]:
    """The details of a Partial without any bytes."""
    main = {"key": key, "id": "", "next": 1, "runs": []}
    return {"main": main, "segment": None, "closing": False, "asides": [], "garbage": []}


def without_numbers_in_use(details: dict[str, Any]) -> dict[str, Any]:
    """The details for a writer beside whom another one may still send parts."""
    main, segment = details["main"], details["segment"]
    # In a segment the file gets one part at a time.
    window = 1 if segment or main["next"] > DIRECT_PARTS else WINDOW
    changes: dict[str, Any] = {"main": {**main, "next": main["next"] + window}}
    if segment:
        changes["segment"] = {**segment, "next": segment["next"] + WINDOW}
    return {**details, **changes}
