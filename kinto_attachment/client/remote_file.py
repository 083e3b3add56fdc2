"""Reading a stored file over the network: with retries, and with random access."""

from __future__ import annotations

import gzip
import io
from typing import BinaryIO, cast

import requests
from urllib3.exceptions import HTTPError, ProtocolError

from kinto_attachment.client.contents import Content
from kinto_attachment.client.errors import MismatchError, UnavailableError
from kinto_attachment.client.session import Session
from kinto_attachment.http.streams import BaseReader
from kinto_attachment.metadata import Attachment

BROKEN = (HTTPError, OSError)

FIRST_RANGE = 256 * 1024
LONGEST_RANGE = 16 * 1024 * 1024
BUFFER = 128 * 1024


class RemoteReader(BaseReader):
    """The bytes from ``start`` to ``end`` (exclusive) of the file at ``endpoint``.

    If the connection breaks, reading continues on a new one.

    :raises ConflictError: while reading, if the file was replaced.
    """

    def __init__(
        self,
        session: Session,
        endpoint: str,
        attachment: Attachment,
        start: int = 0,
        end: int | None = None,
    ) -> None:
        self._session = session
        self._endpoint = endpoint
        self._attachment = attachment
        self.position = start
        self.end = attachment.size if end is None else end
        self._response: requests.Response | None = None
        self._failures = 0

    def _read(self, size: int) -> bytes:
        """:raises UnavailableError: reading failed, after all retries."""
        while self.position < self.end:
            data = self._receive(min(size, self.end - self.position))
            if data:
                self.position += len(data)
                self._failures = 0
                return data
        self.close()
        return b""

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def _receive(self, size: int) -> bytes:
        try:
            response = self._response or self._open()
            data: bytes = response.raw.read1(size, decode_content=False)
            if not data:
                raise ProtocolError("the response ended too early")
        except BROKEN as error:
            self.close()
            self._wait(error)
            return b""
        return data

    def _wait(self, error: Exception) -> None:
        self._failures += 1
        delay = self._session.retries.delay(self._failures)
        if delay is None:
            raise UnavailableError(f"The download broke off: {error}") from error
        self._session.pause(delay, f"The download broke off: {error}")

    def _open(self) -> requests.Response:
        attachment = self._attachment
        # A proxy may compress responses, and a storage decompress them; ranges would then be of
        # another form.
        encoding = attachment.encoding or "identity"
        headers = {"Accept-Encoding": encoding, "If-Match": f'"{attachment.hash}"'}
        whole = self.position == 0 and self.end == attachment.size
        if not whole:
            headers["Range"] = f"bytes={self.position}-{self.end - 1}"
        response = self._response = self._session.fetch(self._endpoint, headers)
        if response.status_code != 206:
            self._skip(response)
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {self.position}-"):
            raise MismatchError("The server sends another range than requested")
        return response

    def _skip(self, response: requests.Response) -> None:
        """Drop the start of a whole file that was sent instead of a range."""
        left = self.position
        while left and (dropped := response.raw.read(min(left, BUFFER), decode_content=False)):
            left -= len(dropped)


class RemoteFile(io.RawIOBase):
    """A stored file as a Python file object, read by range requests.

    The ranges grow while reading is sequential: reading the whole file takes few requests, and
    random access downloads few unused bytes.
    """

    def __init__(self, session: Session, endpoint: str, attachment: Attachment) -> None:
        self._session = session
        self._endpoint = endpoint
        self._attachment = attachment
        self._position = 0
        self._range = FIRST_RANGE
        self._reader: RemoteReader | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._check_open()
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._attachment.size}
        position = bases[whence] + offset
        if position < 0:
            raise ValueError(f"Negative position: {position}")
        self._position = position
        return position

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        self._check_open()
        if self._position >= self._attachment.size or not len(buffer):
            return 0
        data = self._here().read(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._forget()
        super().close()

    def _here(self) -> RemoteReader:
        """An unfinished reader at the current position."""
        reader = self._reader
        if reader is not None and reader.position == self._position < reader.end:
            return reader
        goes_on = reader is not None and reader.position == self._position
        self._range = min(self._range * 4, LONGEST_RANGE) if goes_on else FIRST_RANGE
        self._forget()
        end = min(self._position + self._range, self._attachment.size)
        self._reader = RemoteReader(
            self._session, self._endpoint, self._attachment, self._position, end
        )
        return self._reader

    def _forget(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")


def open_content(session: Session, endpoint: str, content: Content) -> BinaryIO:
    """Open a stored file with a buffer, decompressed if it was compressed."""
    raw = RemoteFile(session, endpoint, content.stored)
    file = cast(BinaryIO, io.BufferedReader(raw, BUFFER))
    for _ in content.layers:
        file = cast(BinaryIO, _Unpacked(file))
    return file


class _Unpacked(gzip.GzipFile):
    """Also closes the file that it reads from; GzipFile only closes files that it opened."""

    def __init__(self, packed: BinaryIO) -> None:
        super().__init__(fileobj=packed, mode="rb")
        self._packed = packed

    def close(self) -> None:
        super().close()
        self._packed.close()
