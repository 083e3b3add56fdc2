"""The parts of a multipart upload."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any

from kinto_attachment.errors import AttachmentError, StorageUnavailable

from .arriving_piece import ArrivingPiece
from .pieces import Piece
from .s3_bucket import S3Bucket
from .s3_errors import is_refusal

PARALLEL = 4  # Parts in flight; one more is being read.
MAX_PARTS = 10_000  # A limit of S3.


class PartSender:
    """Sends several parts at a time; ``sent`` are those that S3 has, by upload and number."""

    def __init__(self, bucket: S3Bucket) -> None:
        self.sent: dict[tuple[str, int], dict[str, Any]] = {}
        self._bucket = bucket
        self._pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="s3-upload")
        self._sending: set[Future[None]] = set()

    def close(self) -> None:
        """Wait for the parts in flight."""
        self._pool.shutdown(cancel_futures=True)

    def add(self, target: dict[str, Any], number: int, piece: Piece) -> None:
        """Send a piece in the background; waits while too many others are in flight."""
        self._start(self._send, target, number, piece)

    def add_early(self, target: dict[str, Any], number: int, piece: ArrivingPiece) -> None:
        """The same for a piece whose bytes are still arriving.

        It has to be given up or get all of its bytes before anybody waits for the parts.
        """
        self._start(self._send_early, target, number, piece)

    def add_range(
        self, target: dict[str, Any], number: int, origin: dict[str, str], start: int, end: int
    ) -> None:
        """Let S3 copy the bytes from ``start`` to ``end`` (exclusive) of another object."""
        self._start(self._copy, target, number, origin, f"bytes={start}-{end - 1}")

    def wait(self) -> None:
        """Return when all parts are sent; raise the first error."""
        self._collect(0)

    def _start(self, action: Callable[..., None], *arguments: Any) -> None:
        self._collect(PARALLEL - 1)
        # In the context of the request, which has its budget for waiting.
        run = copy_context().run
        self._sending.add(self._pool.submit(run, action, *arguments))

    def _collect(self, most: int) -> None:
        """Wait until at most this many parts are in flight."""
        while len(self._sending) > most:
            done, self._sending = wait(self._sending, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()

    def _send(self, target: dict[str, Any], number: int, piece: Piece | ArrivingPiece) -> None:
        answer = self._bucket.call(
            "upload_part", **target, PartNumber=number, Body=piece, ChecksumCRC32=piece.crc32
        )
        self.sent[target["UploadId"], number] = part(number, answer)

    def _send_early(self, target: dict[str, Any], number: int, piece: ArrivingPiece) -> None:
        """Send a part as it arrives; it counts only if S3 returns the right CRC-32.

        If S3 returns none or refuses the part, it is sent again as a whole, with the CRC-32.

        :raises StorageUnavailable: it was changed on its way. It is not sent again under this
            number: SeaweedFS would keep both.
        """
        answer: dict[str, Any] = {}
        try:
            answer = self._bucket.call(
                "upload_part",
                early=True,
                **target,
                PartNumber=number,
                Body=piece,
                ContentLength=piece.size,
            )
            if not answer.get("ChecksumCRC32"):
                self._bucket.does_not_vouch()
        except AttachmentError as error:
            if is_refusal(error):
                self._bucket.does_not_vouch()
        if not piece.wait():
            return
        told = answer.get("ChecksumCRC32")
        if not told:
            piece.seek(0)
            self._send(target, number, piece)
        elif told == piece.crc32:
            self.sent[target["UploadId"], number] = part(number, answer)
        else:
            raise StorageUnavailable() from ValueError(f"part {number} was changed on its way")

    def _copy(
        self, target: dict[str, Any], number: int, origin: dict[str, str], byte_range: str
    ) -> None:
        answer = self._bucket.call(
            "upload_part_copy",
            **target,
            PartNumber=number,
            CopySource=origin,
            CopySourceRange=byte_range,
        )
        self.sent[target["UploadId"], number] = part(number, answer["CopyPartResult"])


def part(number: int, answer: dict[str, Any]) -> dict[str, Any]:
    """A part in the form for the call that completes an upload."""
    found = {"PartNumber": number, "ETag": answer["ETag"]}
    if answer.get("ChecksumCRC32"):  # A server that returns none may not accept one either.
        found["ChecksumCRC32"] = answer["ChecksumCRC32"]
    return found
