"""A request's body as a reader with time limits, to be read once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from kinto_attachment.errors import AttachmentError, InvalidBody
from kinto_attachment.http.streams import BaseReader, Reader
from kinto_attachment.wsgi.deadlines import BodyTimeouts

DRAIN_SIZE = 1024  # Servers block until they have all bytes, so small reads keep a time limit.


class BodyReader(BaseReader):
    """A request's body: ``length`` bytes, or until the end of the stream when that is None.

    Exceptions of the server (each has its own for disconnects and invalid chunks) become
    :class:`InvalidBody`, with the original as the cause.
    """

    def __init__(
        self, stream: Reader, length: int | None, timeouts: BodyTimeouts | None = None
    ) -> None:
        self._stream = stream
        self._remaining = length
        self._timeouts = timeouts or BodyTimeouts()
        self._ended = False
        self._failure: AttachmentError | None = None

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, Any], timeouts: BodyTimeouts | None = None
    ) -> BodyReader:
        """The body of a WSGI request.

        :raises InvalidBody: the Content-Length is not a number.
        """
        declared = environ.get("CONTENT_LENGTH", "").strip()
        codings = environ.get("HTTP_TRANSFER_ENCODING", "").lower().split(",")
        chunked = codings[-1].strip() == "chunked"  # RFC 9112 6.3: it overrides Content-Length.
        if chunked or (not declared and environ.get("wsgi.input_terminated")):
            return cls(environ["wsgi.input"], None, timeouts)
        if not re.fullmatch(r"[0-9]{0,18}", declared):
            raise InvalidBody("Content-Length is not a number.")
        return cls(environ["wsgi.input"], int(declared or 0), timeouts)

    @property
    def finished(self) -> bool:
        """Whether all of the body has been read."""
        return self._ended or self._remaining == 0

    def _read(self, size: int) -> bytes:
        if self.finished:
            return b""
        if self._remaining is not None:
            size = min(size, self._remaining)
        if self._failure is not None:
            raise self._failure  # Servers' readers report the end after they have failed.
        try:
            return self._read_stream(self._timeouts.step(size))
        except AttachmentError as error:
            self._failure = error
            raise
        except Exception as error:
            self._failure = InvalidBody("Request body cannot be read to its end.")
            raise self._failure from error

    def _read_stream(self, size: int) -> bytes:
        with self._timeouts.waiting(size):
            data = self._stream.read(size)
        self._timeouts.arrived(len(data))
        if self._remaining is None:
            self._ended = not data
        elif data:
            self._remaining -= len(data)
        else:
            raise InvalidBody("Request body is shorter than its Content-Length.")
        return data

    def drain(
        self,
        max_bytes: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        size: int = DRAIN_SIZE,
    ) -> bool:
        """Read and drop the rest, so that a client that is still sending sees the response.

        Never raises. The time is checked between reads of ``size`` bytes; the caller has to
        limit how long a single read may take.

        :returns: whether the end of the body was reached within the limits.
        """
        self._timeouts = BodyTimeouts()
        deadline = clock() + seconds
        try:
            while not self.finished and max_bytes > 0 and clock() < deadline:
                max_bytes -= len(self.read(min(size, max_bytes)))
        except AttachmentError:
            return False
        return self.finished
