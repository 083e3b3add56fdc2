"""Uploads that continue after an interruption, with tus 1.0.0.

tuspy, a client of the same protocol, is not used: its requests have no timeout, it accepts neither
auth objects nor a certificate bundle, and it cannot restart an expired upload.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import requests

from kinto_attachment.client.errors import ClientError, MismatchError
from kinto_attachment.client.forms import Progress
from kinto_attachment.client.retries import has_retried_status
from kinto_attachment.client.session import Session
from kinto_attachment.client.sources import BLOCK, Source
from kinto_attachment.client.unfinished import Unfinished

TUS = {"Tus-Resumable": "1.0.0"}
PROTOCOL = "tus/1.0.0"
# Above this size, files are uploaded in this way by default.
LARGE = 64 * 1024 * 1024
# Bytes sent in one request: many web servers in front buffer or limit a request's body.
CHUNK = 16 * 1024 * 1024
MAX_METADATA = 4096  # What the server takes (bytes).
# The upload is unknown, expired, cancelled or failed: a new one can begin.
ENDED = (403, 404, 410)
# The server refuses the file or the user: another attempt has to start from the beginning.
FINAL = (400, 403, 404, 410, 412, 413, 415)


@dataclass(frozen=True)
class NewUpload:
    """The metadata that is sent when the upload of a file begins."""

    source: Source
    filename: str
    mimetype: str
    fields: Mapping[str, Any]
    conditions: Mapping[str, str]

    @property
    def metadata(self) -> str:
        """``Upload-Metadata``: keys with values in Base64."""
        texts = {"filename": self.filename, "filetype": self.mimetype}
        texts |= {name: json.dumps(value) for name, value in self.fields.items()}
        return ",".join(
            f"{name} {base64.b64encode(text.encode()).decode()}" for name, text in texts.items()
        )

    @property
    def fits(self) -> bool:
        """Whether the server accepts this much metadata with an upload."""
        return len(self.metadata) <= MAX_METADATA


class ResumableUpload:
    """The upload of one file to a record; ``endpoint`` is that of the record's attachment."""

    def __init__(
        self, session: Session, endpoint: str, new: NewUpload, progress: Progress | None = None
    ) -> None:
        self._session = session
        self._endpoint = f"{endpoint}/uploads"
        self._new = new
        self._progress = progress
        said = [session.server_url, self._endpoint, new.source.sha256, new.metadata]
        self._unfinished = Unfinished.of(*said, json.dumps(dict(new.conditions)))
        self.has_begun = False  # Whether the server has accepted an upload in several requests.

    def send(self) -> None:
        """Upload the file, or the rest of it.

        :raises ConflictError: a precondition has failed, at the beginning or at the end.
        :raises RejectedError: the server refuses the file.
        """
        url = self._unfinished.load()
        offset = self._known_offset(url) if url else None
        if url is None or offset is None:
            url, offset = self._create(), 0
        self.has_begun = True
        if self._progress:
            self._progress(offset, self._new.source.size)
        try:
            while offset < self._new.source.size:
                offset = self._append(url, offset)
        except ClientError as error:
            # After other errors, the upload can continue.
            if error.response is not None and error.response.status_code in FINAL:
                self._unfinished.forget()
            raise
        self._unfinished.forget()

    def _create(self) -> str:
        length = str(self._new.source.size)
        headers = {**TUS, **self._new.conditions, "Upload-Length": length}
        headers["Upload-Metadata"] = self._new.metadata
        response = self._session.send("POST", self._endpoint, headers, b"")
        url = urljoin(response.url, response.headers["Location"])
        self._unfinished.save(url, response.headers)
        return url

    def _known_offset(self, url: str) -> int | None:
        """Where to continue; None if the server no longer knows the upload."""
        try:
            return self._offset(url)
        except ClientError as error:
            if error.response is None or error.response.status_code not in ENDED:
                raise
            return None

    def _offset(self, url: str) -> int:
        return offset_of(self._session.send("HEAD", url, TUS, b""))

    def _append(self, url: str, offset: int) -> int:
        """Send the next bytes; returns the new offset, which may be before their end."""
        first = True

        def attempt() -> int:
            # What arrived before the connection broke is stored: the server knows how much it is.
            nonlocal first, offset
            if not first:
                offset = offset_of(self._session.send_once("HEAD", url, TUS))
            first = False
            if offset >= self._new.source.size:
                return offset  # The answer to the last bytes was lost.
            chunk = Chunk(self._new.source, offset, self._progress)
            headers = {
                **TUS,
                "Upload-Offset": str(offset),
                "Content-Type": "application/offset+octet-stream",
            }
            response = self._session.send_once("PATCH", url, headers, chunk)
            self._unfinished.extend(response.headers)
            return offset_of(response)

        return self._session.retry(attempt, passes=passes)


class Chunk:
    """The bytes that one request sends, from an offset in a source."""

    def __init__(self, source: Source, offset: int, progress: Progress | None) -> None:
        self._source = source
        self._offset = offset
        self._progress = progress
        self._size = min(CHUNK, source.size - offset)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        self._source.file.seek(self._source.start + self._offset)
        done = 0
        while done < self._size:
            block = self._source.read(min(BLOCK, self._size - done))
            done += len(block)
            yield block
            if self._progress:
                self._progress(self._offset + done, self._source.size)


def passes(response: requests.Response) -> bool:
    """Whether bytes that were refused may be accepted later, from the offset of that time.

    If a connection breaks, the server may process that request only after the next one, which then
    loses the upload to it. Refusals because of locks and holds have the same status, but have
    details.
    """
    if response.status_code != 423:
        return has_retried_status(response)
    try:
        return "details" not in response.json()
    except ValueError:  # The response is from a proxy.
        return False


def offset_of(response: requests.Response) -> int:
    """:raises MismatchError: the response has no offset, so the server does not support tus."""
    offset = response.headers.get("Upload-Offset", "")
    if not offset.isdecimal():
        raise MismatchError(f"{response.url}: the response has no Upload-Offset")
    return int(offset)
