"""The ``Content-Encoding`` of a request (RFC 9110 8.4)."""

from __future__ import annotations

from collections.abc import Collection

from kinto_attachment.errors import InvalidBody, UnsupportedType
from kinto_attachment.http.streams import BaseReader, Reader

# The identification and the only defined method (RFC 1952 2.3.1).
GZIP_START = b"\x1f\x8b\x08"


def encoding_of(header: str, supported: Collection[str]) -> str:
    """The encoding of a body, from the value of ``Content-Encoding``; empty if it has none.

    :raises UnsupportedType: it is not supported, or there are several.
    """
    coding = header.strip().lower()
    coding = {"x-gzip": "gzip", "identity": ""}.get(coding, coding)
    if coding and coding not in supported:
        accepted = ", ".join(sorted(supported)) or "identity"
        raise UnsupportedType(f"Content-Encoding should be {accepted}", accepted=accepted)
    return coding


class GzipChecker(BaseReader):
    """Passes a gzip file on unchanged; raises InvalidBody if it does not start like one.

    The rest is not checked, because a small body can decompress to any amount of data.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._missing = GZIP_START

    def _read(self, size: int) -> bytes:
        """:raises InvalidBody: also on every later read."""
        data = self._reader.read(size)
        if self._missing:
            if not data or not (data.startswith(self._missing) or self._missing.startswith(data)):
                raise InvalidBody("body: Content-Encoding is gzip, but the body is not.")
            self._missing = self._missing[len(data) :]
        return data
