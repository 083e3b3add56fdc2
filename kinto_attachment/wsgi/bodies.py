"""The body of an upload, which only the plugin reads, once, or drops within limits."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from kinto_attachment.errors import InvalidBody, TooLarge, TooSmall
from kinto_attachment.kinto_types import Handler, Registry, Request, Response
from kinto_attachment.wsgi.body_reader import BodyReader
from kinto_attachment.wsgi.closing import CLOSING
from kinto_attachment.wsgi.deadlines import (
    WATCHDOG,
    BodyTimeouts,
    Deadline,
    Limits,
    connection_of,
)

ENVIRON = "kinto_attachment.body"

# Some clients do not read the response before they have sent the whole body, and the connection
# can only be used again after that. So a little more is read after the response. Only one thread
# at a time waits for this data.
DRAIN_BYTES = 4 * 1024 * 1024
DRAIN_SIZE = 64 * 1024
DRAIN_SECONDS = 2.0
WAITING_SECONDS = 1.0  # The watchdog looks every second.
STALL_SECONDS = 0.5
ANONYMOUS_WAIT = (0.25, 0.1)  # The same two limits for clients without credentials.
_turn = threading.Lock()

# How the paths of uploads end.
UPLOADS = re.compile(
    r"/(?:attachments?"
    r"|attachment/(?:hold|uploads(?:/[^/]*(?:/complete)?)?|versions/[^/]*/restore))\Z"
)


@dataclass
class _ReaderHolder:
    """Holds the reader in the WSGI environment, of which sub-requests get a copy."""

    reader: BodyReader | None = None


def body_of(request: Request) -> BodyReader:
    """The only reader of the request's body, created with the first call."""
    body = _holder_of(request)
    if body.reader is None:
        settings = request.registry.attachment_settings
        limits = Limits(settings["body_timeout"], settings["body_min_rate"])
        timeouts = BodyTimeouts(limits, connection_of(request.environ))
        body.reader = BodyReader.from_environ(request.environ, timeouts)
    return body.reader


def _holder_of(request: Request) -> _ReaderHolder:
    body: _ReaderHolder = request.environ.setdefault(ENVIRON, _ReaderHolder())
    return body


def check_length(request: Request, max_size: int, min_size: int = 0, *, overhead: int = 0) -> None:
    """Refuse a body that is too large or too small by its ``Content-Length``.

    ``overhead`` is how much larger than the file the body may be, in bytes.

    :raises TooLarge: ``max_size`` (0: no limit) is exceeded.
    :raises TooSmall: the body is smaller than ``min_size``.
    """
    length = request.content_length
    if length is not None:
        check_size(length, max_size, min_size, overhead=overhead)


def check_size(length: int, max_size: int, min_size: int = 0, *, overhead: int = 0) -> None:
    """The same for a length from another source."""
    if max_size and length > max_size + overhead:
        raise TooLarge(f"body: File size exceeds the limit of {max_size} bytes.")
    if length < min_size:
        raise TooSmall(f"body: File size is below the minimum of {min_size} bytes.")


def draining_tween(handler: Handler, registry: Registry) -> Handler:
    """Read the rest of a request's body after the response, whatever code refused it."""
    files = f"/{registry.route_prefix}/attachments/"

    def tween(request: Request) -> Response:
        path = request.environ.get("PATH_INFO", "")
        # Kinto redirects to the path without a trailing slash.
        if not UPLOADS.search(path.rstrip("/")) and not path.startswith(files):
            return handler(request)
        _holder_of(request)  # Before a sub-request copies the environment.
        response = handler(request)
        # As a callback, since subscribers to NewResponse may read and thereby close the response.
        request.add_finished_callback(lambda request: drain_after_response(request, response))
        return response

    return tween


def drain_after_response(request: Request, response: Response) -> None:
    """Read the rest of the body when the server closes the response, after sending it."""
    environ = request.environ
    declared = environ.get("CONTENT_LENGTH") or environ.get("HTTP_TRANSFER_ENCODING")
    with suppress(InvalidBody):  # The Content-Length is not a number.
        if declared and not body_of(request).finished:
            length = response.content_length  # WebOb resets it with a new iterable.
            response.app_iter = _EarlyResponse(response.app_iter, request)
            response.content_length = length


class _EarlyResponse:
    """The body of a response that is sent before the request's body has been read."""

    def __init__(self, answer: Iterable[bytes], request: Request) -> None:
        self._answer = answer
        self._body = body_of(request)
        self._connection = connection_of(request.environ)
        self._is_known = "HTTP_AUTHORIZATION" in request.environ

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._answer)

    def close(self) -> None:
        if hasattr(self._answer, "close"):
            self._answer.close()
        if self._connection is None:
            self._body.drain(DRAIN_BYTES, DRAIN_SECONDS)
        elif not drain_connection(self._body, self._connection, is_known=self._is_known):
            CLOSING.take_over(self._connection)


def drain_connection(body: BodyReader, connection: socket.socket, *, is_known: bool) -> bool:
    """Drop the bytes of the body that have arrived, and wait for the rest while it arrives
    quickly.

    Only one thread waits at a time. For clients without credentials (``is_known`` is False), it
    waits only for a moment.

    :returns: whether the whole body was read, so that the connection can be used again.
    """
    waits = _turn.acquire(blocking=False)
    before = connection.gettimeout()
    seconds, stall = (WAITING_SECONDS, STALL_SECONDS) if is_known else ANONYMOUS_WAIT
    try:
        connection.settimeout(stall if waits else 0)
        with WATCHDOG.watching(Deadline(connection, seconds)):
            return body.drain(DRAIN_BYTES, seconds, size=DRAIN_SIZE)
    except OSError:  # The client has closed the connection.
        return False
    finally:
        with suppress(OSError):
            connection.settimeout(before)
        if waits:
            _turn.release()
