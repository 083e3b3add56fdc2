"""The download of an object of S3."""

from __future__ import annotations

from typing import Any

from .s3_errors import translated


class Download:
    """The body of a download, as a reader."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def read(self, size: int = -1, /) -> bytes:
        with translated():
            content: bytes = self._body.read(None if size < 0 else size)
        return content

    def close(self) -> None:
        self._body.close()
