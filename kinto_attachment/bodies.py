"""The body of an upload: read by us alone, once, or dropped within bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from kinto_attachment.errors import InvalidBody, TooLarge
from kinto_attachment.multipart import MAX_FIELD_SIZE
from kinto_attachment.streams import BodyReader

ENVIRON = "kinto_attachment.body"

# A client that is still sending does not look for an answer: when the server closes at once, the
# client sees a broken connection instead of the refusal. So read on a little, then give up.
DRAIN_BYTES = 4 * 1024 * 1024
DRAIN_SECONDS = 2.0

# What a form has besides the file: two text fields, part headers, boundaries.
FORM_OVERHEAD = 2 * MAX_FIELD_SIZE + 64 * 1024


def body_of(request: Any) -> BodyReader:
    """The one reader of the request's body, made when it is first asked for."""
    environ = request.environ
    if ENVIRON not in environ:
        environ[ENVIRON] = BodyReader.from_environ(environ)
    body: BodyReader = environ[ENVIRON]
    return body


def check_length(request: Any, max_size: int, overhead: int = 0) -> None:
    """Refuse a body whose declared length says that the file in it is too large.

    :raises TooLarge: ``max_size`` (0: no limit) is exceeded.
    """
    length = request.content_length
    if max_size and length is not None and length > max_size + overhead:
        raise TooLarge(f"body: File size exceeds the limit of {max_size} bytes.")


def draining_tween(handler: Callable[[Any], Any], registry: Any) -> Callable[[Any], Any]:
    """Let a client that is still sending see why its upload is refused."""

    def tween(request: Any) -> Any:
        response = handler(request)
        if (
            response.status_code >= 400
            and request.method in ("POST", "PUT")
            and request.environ.get("PATH_INFO", "").endswith("/attachment")
        ):
            length = response.content_length  # WebOb forgets it with the old iterable.
            response.app_iter = _Drained(response.app_iter, request)
            response.content_length = length
        return response

    return tween


class _Drained:
    """The refusal; once the server has sent it, and closes this, the body is read on."""

    def __init__(self, refusal: Iterable[bytes], request: Any) -> None:
        self._refusal = refusal
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._refusal)

    def close(self) -> None:
        if hasattr(self._refusal, "close"):
            self._refusal.close()
        # A client may wait for the answer, and send no more: a read must not wait for ever.
        connection = self._request.environ.get("gunicorn.socket")
        timeout = connection.gettimeout() if connection else None
        with suppress(InvalidBody, OSError):  # Its length is no number; it has hung up.
            if connection:
                connection.settimeout(DRAIN_SECONDS)
            body_of(self._request).drain(DRAIN_BYTES, DRAIN_SECONDS)
        with suppress(OSError):
            if connection:
                connection.settimeout(timeout)
