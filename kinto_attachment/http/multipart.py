"""A multipart/form-data body (RFC 7578) in parts, as the bytes arrive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser

from kinto_attachment.errors import InvalidBody, TooLarge, UnsupportedType
from kinto_attachment.http.streams import CHUNK_SIZE, BaseReader, Reader

MAX_HEADER_SIZE = 8 * 1024
MAX_HEADERS = 16
# Bytes outside the form's parts: before the first one, and after the last one.
MAX_PADDING = 256 * 1024

# RFC 2046 5.1.1 allows fewer characters, and up to 70. Some clients send others, and leave out
# quotes that are required.
_BOUNDARY = re.compile(
    r';[ \t]*boundary=(?:"([ !#-~]{0,199}[!#-~])"|([!#-:<-~]{1,200}))[ \t]*(?:;|$)', re.I
)


def parts(
    body: Reader, content_type: str, *, chunk_size: int = CHUNK_SIZE
) -> Iterator[tuple[MultipartSegment, BaseReader]]:
    """The parts of a form, each with a reader of its bytes, which is valid until the next part.

    The body is read to its end, unless there is an error.

    :raises UnsupportedType: not a multipart/form-data body.
    :raises InvalidBody: the body is malformed.
    :raises TooLarge: a header exceeds its limit.
    """
    events = _events(body, boundary_of(content_type), chunk_size)
    for part in events:
        reader = _PartReader(events)
        yield part, reader
        while reader.read(chunk_size):
            pass  # The next part follows the unread bytes.


def boundary_of(content_type: str) -> str:
    """The boundary of a form, from its ``Content-Type``.

    :raises UnsupportedType: it is not the type of a form.
    :raises InvalidBody: there is no valid boundary.
    """
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        raise UnsupportedType("Content-Type should be multipart/form-data")
    match = _BOUNDARY.search(content_type)
    if not match:
        raise InvalidBody("Content-Type should be multipart/form-data with a valid boundary")
    return match[1] or match[2]


def _events(body: Reader, boundary: str, chunk_size: int) -> Iterator[Any]:
    """The segments, each followed by its chunks of bytes and by None, to the end of the body."""
    padding = 0
    # Not strict, because that would refuse a line break after the last boundary in a separate
    # chunk.
    parser = PushMultipartParser(
        boundary, max_header_size=MAX_HEADER_SIZE, max_header_count=MAX_HEADERS
    )
    try:
        while chunk := body.read(chunk_size):
            padding += len(chunk)
            for event in parser.parse(chunk):
                padding = 0
                yield event
            if padding > MAX_PADDING:
                raise InvalidBody("Request body has too much data outside the form's parts.")
        parser.close()
    except ParserLimitReached as error:
        raise TooLarge(f"body: {error.args[0]}.") from error
    except MultipartError as error:
        raise InvalidBody(f"body: Invalid multipart/form-data ({error.args[0]}).") from error


class _PartReader(BaseReader):
    """The bytes of one part, in the chunks of the parser."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._chunk: bytes | None = b""
        self._position = 0

    def _read(self, size: int) -> bytes:
        if self._chunk is not None and self._position == len(self._chunk):
            try:
                self._chunk, self._position = next(self._events), 0
            except StopIteration as error:  # The body failed before; the caller still reads.
                raise InvalidBody("Request body cannot be read to its end.") from error
        if self._chunk is None:
            return b""
        start, self._position = self._position, min(self._position + size, len(self._chunk))
        return self._chunk[start : self._position]
