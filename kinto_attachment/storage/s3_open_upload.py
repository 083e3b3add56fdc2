"""A multipart upload to which several processes send parts, one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kinto_attachment.errors import FileNotFound, StorageUnavailable, TooLarge

from .arriving_piece import ArrivingPiece
from .pieces import Piece
from .s3_bucket import S3Bucket
from .s3_errors import error_code
from .s3_parts import PartSender, part

# Parts between two checkpoints. A writer that was taken over may still send as many.
WINDOW = 8
# S3 allows one more, but SeaweedFS lists the part 10,000 after the part 1,000.
LAST_PART = 9_999
CRC_LENGTH = 6  # Of four bytes in Base64, without padding.


class OpenUpload:
    """The stored parts of a multipart upload; :attr:`state` can be written as JSON.

    ``runs`` are quadruples of the first number, the count and the size of parts, and their CRC-32
    (see :func:`packed`). Two writers never get the same number. Other parts that arrived are not
    listed here, so they are not completed.
    """

    def __init__(
        self,
        sender: PartSender,
        key: str,
        id: str = "",
        next: int = 1,
        runs: Iterable[list[Any]] = (),
    ) -> None:
        self.key = key
        self.id = id
        self.next = next
        self._runs = [list(run) for run in runs]
        self._sender = sender
        self._on_their_way: list[tuple[int, int]] = []  # Numbers and sizes.

    @property
    def state(self) -> dict[str, Any]:
        """The data for the next writer, while no part is in flight."""
        self._settle()
        return {"key": self.key, "id": self.id, "next": self.next, "runs": self._runs}

    @property
    def size(self) -> int:
        stored: int = sum(count * size for _, count, size, _ in self._runs)
        return stored + sum(size for _, size in self._on_their_way)

    @property
    def target(self) -> dict[str, Any]:
        return {"Key": self.key, "UploadId": self.id}

    def create(self, bucket: S3Bucket, headers: dict[str, Any]) -> None:
        """Create it if it does not exist."""
        if not self.id:
            answer = bucket.call(
                "create_multipart_upload", Key=self.key, **headers, ChecksumAlgorithm="CRC32"
            )
            self.id = answer["UploadId"]

    def send(self, piece: Piece) -> None:
        self._sender.add(self.target, self._take_number(piece.size), piece)

    def send_early(self, piece: ArrivingPiece) -> int:
        """Start to send a part whose bytes are still arriving; returns its number.

        It belongs to the file once it is passed to :meth:`keep`.
        """
        number = self._next_number()
        self._sender.add_early(self.target, number, piece)
        return number

    def keep(self, number: int, size: int) -> None:
        self._on_their_way.append((number, size))

    def copy(self, origin: dict[str, str], size: int) -> None:
        self._sender.add_range(self.target, self._take_number(size), origin, 0, size)

    def _take_number(self, size: int) -> int:
        number = self._next_number()
        self.keep(number, size)
        return number

    def _next_number(self) -> int:
        """:raises TooLarge: S3 has no more numbers."""
        number = self.next
        if number > LAST_PART:
            raise TooLarge("body: The file was sent in too many pieces.")
        self.next += 1
        return number

    def _settle(self) -> None:
        for number, size in self._on_their_way:
            crc32 = packed(self._sender.sent.pop((self.target["UploadId"], number)))
            last = self._runs[-1] if self._runs else None
            if last and last[0] + last[1] == number and last[2] == size:
                last[1] += 1
                last[3] += crc32
            else:
                self._runs.append([number, 1, size, crc32])
        self._on_their_way = []

    def complete(self, bucket: S3Bucket, **conditions: Any) -> None:
        self._settle()
        parts = self._parts(bucket)
        bucket.call(
            "complete_multipart_upload",
            **self.target,
            **conditions,
            MultipartUpload={"Parts": parts},
        )

    def complete_once(self, bucket: S3Bucket) -> None:
        """Complete it unless that was done; nobody else uses its key."""
        try:
            self.complete(bucket)
        except StorageUnavailable as failure:
            # Also when the answer was lost, and boto3 has tried again.
            if error_code(failure) != "NoSuchUpload" or not self._is_complete(bucket):
                raise

    def _is_complete(self, bucket: S3Bucket) -> bool:
        try:
            return bool(bucket.head(self.key)["ContentLength"] == self.size)
        except FileNotFound:
            return False

    def _parts(self, bucket: S3Bucket) -> list[dict[str, Any]]:
        """The parts as S3 lists them; :raises StorageUnavailable: one is missing."""
        listed = {
            found["PartNumber"]: found
            for page in bucket.pages("list_parts", **self.target)
            for found in page.get("Parts", ())
        }
        parts = []
        for first, count, size, crcs in self._runs:
            for index in range(count):
                found = listed.get(first + index)
                if found is None or found["Size"] != size:
                    raise StorageUnavailable() from LookupError(f"part {first + index} is lost")
                # Some servers require checksums but do not list them.
                crc32 = unpacked(crcs[CRC_LENGTH * index :][:CRC_LENGTH])
                parts.append(part(first + index, {**found, "ChecksumCRC32": crc32}))
        return parts


def packed(part: dict[str, Any]) -> str:
    """The CRC-32 in a response, without padding; underscores if it has none."""
    crc32 = str(part.get("ChecksumCRC32", "")).rstrip("=")
    return crc32 if len(crc32) == CRC_LENGTH else "_" * CRC_LENGTH


def unpacked(crc32: str) -> str:
    return "" if "_" in crc32 else f"{crc32}=="
