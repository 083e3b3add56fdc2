"""The body of an upload: read by us alone, once, or dropped within bounds."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kinto_attachment.errors import InvalidBody, TooLarge
from kinto_attachment.wsgi.body_reader import BodyReader
from kinto_attachment.wsgi.closing import CLOSING
from kinto_attachment.wsgi.deadlines import (
    WATCHDOG,
    Deadline,
    Limits,
    Patience,
    connection_of,
)

ENVIRON = "kinto_attachment.body"

# A client that is still sending may not look for an answer, and its connection is of use again
# once all has been read. So read on a little, if nobody waits for that: one thread at a time.
DRAIN_BYTES = 4 * 1024 * 1024
DRAIN_SIZE = 64 * 1024
DRAIN_SECONDS = 2.0
WAITING_SECONDS = 1.0  # The watchdog looks every second.
STALL_SECONDS = 0.5
_turn = threading.Lock()


@dataclass
class _Body:
    """The place of the reader, in the environment of a request and of its sub-requests."""

    reader: BodyReader | None = None


def body_of(request: Any) -> BodyReader:
    """The one reader of the request's body, made when it is first asked for."""
    body = _place_of(request)
    if body.reader is None:
        settings = request.registry.attachment_settings
        limits = Limits(settings["body_timeout"], settings["body_min_rate"])
        patience = Patience(limits, connection_of(request.environ))
        body.reader = BodyReader.from_environ(request.environ, patience)
    return body.reader


def _place_of(request: Any) -> _Body:
    body: _Body = request.environ.setdefault(ENVIRON, _Body())
    return body


def check_length(request: Any, max_size: int, overhead: int = 0) -> None:
    """Refuse a body whose declared length says that the file in it is too large.

    :raises TooLarge: ``max_size`` (0: no limit) is exceeded.
    """
    length = request.content_length
    if max_size and length is not None and length > max_size + overhead:
        raise TooLarge(f"body: File size exceeds the limit of {max_size} bytes.")


def draining_tween(handler: Callable[[Any], Any], registry: Any) -> Callable[[Any], Any]:
    """Answer before the rest of a body is read on, whoever refused it."""
    files = f"/{registry.route_prefix}/attachments/"

    def tween(request: Any) -> Any:
        path = request.environ.get("PATH_INFO", "")
        # Kinto redirects to the path without a slash at its end.
        if not path.rstrip("/").endswith("/attachment") and not path.startswith(files):
            return handler(request)
        _place_of(request)  # Before a sub-request gets a copy of the environment.
        response = handler(request)
        # Not now: who is told of new responses may read, and so close, what they consist of.
        request.add_finished_callback(lambda request: answer_first(request, response))
        return response

    return tween


def answer_first(request: Any, response: Any) -> None:
    """Have the body read on once the server has sent the response, and closes it."""
    environ = request.environ
    declared = environ.get("CONTENT_LENGTH") or environ.get("HTTP_TRANSFER_ENCODING")
    with suppress(InvalidBody):  # Its length is no number: the server has refused it, or will.
        if declared and not body_of(request).finished:
            length = response.content_length  # WebOb forgets it with the old iterable.
            response.app_iter = _Answer(response.app_iter, request)
            response.content_length = length


class _Answer:
    """An answer that comes before its request's end."""

    def __init__(self, answer: Iterable[bytes], request: Any) -> None:
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
        elif not read_on(self._body, self._connection, is_known=self._is_known):
            CLOSING.take_over(self._connection)


def read_on(body: BodyReader, connection: socket.socket, *, is_known: bool) -> bool:
    """Read what is there, and wait for more while it comes quickly.

    One thread waits at a time, and none for clients without credentials (``is_known``).

    :returns: whether the body has been read whole, and the connection can be used again.
    """
    waits = is_known and _turn.acquire(blocking=False)
    before = connection.gettimeout()
    try:
        connection.settimeout(STALL_SECONDS if waits else 0)
        with WATCHDOG.watching(Deadline(connection, WAITING_SECONDS)):
            return body.drain(DRAIN_BYTES, WAITING_SECONDS, size=DRAIN_SIZE)
    except OSError:  # The client has hung up.
        return False
    finally:
        with suppress(OSError):
            connection.settimeout(before)
        if waits:
            _turn.release()
