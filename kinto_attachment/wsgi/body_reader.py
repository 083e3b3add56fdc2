"""A request's body as a reader, which is read once and waited for within limits."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from kinto_attachment.errors import AttachmentError, InvalidBody
from kinto_attachment.http.streams import BaseReader, Reader
from kinto_attachment.wsgi.deadlines import Patience

DRAIN_SIZE = 1024  # Servers wait until a read is whole: small ones keep to a time limit.


class BodyReader(BaseReader):
    """A request's body: ``length`` bytes, or until the end of the stream when that is None.

    Whatever a server raises while the body arrives (each has exceptions of its own for
    disconnects and bad chunks) becomes :class:`InvalidBody`, with the original as cause.
    ``patience`` says how long to wait for it.
    """

    def __init__(
        self, stream: Reader, length: int | None, patience: Patience | None = None
    ) -> None:
        self._stream = stream
        self._remaining = length
        self._patience = patience or Patience()
        self._ended = False
        self._failure: AttachmentError | None = None

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, Any], patience: Patience | None = None
    ) -> BodyReader:
        """The body of a WSGI request.

        :raises InvalidBody: the Content-Length is not a number.
        """
        declared = environ.get("CONTENT_LENGTH", "").strip()
        codings = environ.get("HTTP_TRANSFER_ENCODING", "").lower().split(",")
        chunked = codings[-1].strip() == "chunked"  # RFC 9112 6.3: it overrides Content-Length.
        if chunked or (not declared and environ.get("wsgi.input_terminated")):
            return cls(environ["wsgi.input"], None, patience)
        if not re.fullmatch(r"[0-9]{0,18}", declared):
            raise InvalidBody("Content-Length is not a number.")
        return cls(environ["wsgi.input"], int(declared or 0), patience)

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
            raise self._failure  # Servers' readers take the place where they failed for the end.
        try:
            return self._read_stream(self._patience.step(size))
        except AttachmentError as error:
            self._failure = error
            raise
        except Exception as error:
            self._failure = InvalidBody("Request body cannot be read to its end.")
            raise self._failure from error

    def _read_stream(self, size: int) -> bytes:
        with self._patience.waiting(size):
            data = self._stream.read(size)
        self._patience.arrived(len(data))
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
        """Read on and drop, so that a client that is still sending gets to see its answer.

        Never raises. The time is looked at between reads of ``size`` bytes: how long one of
        them may take is somebody else's to bound.

        :returns: whether the body was read to its end within the limits.
        """
        self._patience = Patience()
        deadline = clock() + seconds
        try:
            while not self.finished and max_bytes > 0 and clock() < deadline:
                max_bytes -= len(self.read(min(size, max_bytes)))
        except AttachmentError:
            return False
        return self.finished
