"""The form that uploads a file: generated while it is sent, with a known length."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kinto_attachment import names
from kinto_attachment.client.sources import BLOCK, Source

Progress = Callable[[int, int], object]
"""Called with the bytes so far and the total; an exception ends the transfer."""


class Form:
    """A multipart/form-data body (RFC 7578) with one file; each iteration starts over.

    Existing form builders keep the file in memory, or cannot start over, and do not support
    headers of parts. The part's ``Repr-Digest`` (RFC 9530) lets the server refuse a file that was
    changed in transit.
    """

    def __init__(
        self,
        source: Source,
        filename: str,
        mimetype: str,
        fields: Mapping[str, Any],
        progress: Progress | None = None,
    ) -> None:
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        texts = [_field(boundary, name, value) for name, value in fields.items()]
        self._head = b"".join([*texts, _file_header(boundary, source, filename, mimetype)])
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self.source = source
        self._progress = progress

    def __len__(self) -> int:
        return len(self._head) + self.source.size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        size = self.source.size
        self.source.rewind()
        done = 0
        if self._progress:
            self._progress(0, size)
        before = self._head
        while done < size:
            block = self.source.read(min(BLOCK, size - done))
            done += len(block)
            # A small file is sent in one piece with the rest of the form.
            yield b"".join([before, block, self._tail if done == size else b""])
            before = b""
            # The piece has been sent when the next one is requested.
            if self._progress:
                self._progress(done, size)
        if not size:
            yield self._head + self._tail


def _field(boundary: str, name: str, value: Any) -> bytes:
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        f"{json.dumps(value)}\r\n"
    ).encode()


def _file_header(boundary: str, source: Source, filename: str, mimetype: str) -> bytes:
    # Encodings of names that are not ASCII differ between browsers and libraries; ``filename*`` is
    # unambiguous, and ``filename`` is the fallback.
    disposition = names.content_disposition(filename).removeprefix("attachment")
    digest = base64.b64encode(bytes.fromhex(source.sha256)).decode()
    return (
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="attachment"{disposition}\r\n'
        f"Content-Type: {mimetype}\r\n"
        f"Repr-Digest: sha-256=:{digest}:\r\n\r\n"
    ).encode()
