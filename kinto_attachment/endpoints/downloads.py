"""A stored file as a response: streamed, sent by the web server, or redirected to the storage."""

from __future__ import annotations

import base64
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any
from urllib.parse import quote

from kinto.core.errors import ERRORS, http_error
from pyramid.httpexceptions import HTTPPreconditionFailed, HTTPRequestRangeNotSatisfiable
from pyramid.response import Response

from kinto_attachment.errors import FileMissing, FileNotFound, InvalidBody, StorageError
from kinto_attachment.files.events import AttachmentRead
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.sources import is_outdated
from kinto_attachment.files.transactions import in_batch
from kinto_attachment.files.uploads import disposition_of
from kinto_attachment.http import ranges
from kinto_attachment.kinto_types import Request
from kinto_attachment.names import (
    clean_filename,
    content_disposition,
    disposition_type,
    public_url,
    sendable_type,
)
from kinto_attachment.settings import CollectionSettings
from kinto_attachment.storage import (
    CHUNK_SIZE,
    ClosableReader,
    FileStat,
    HasPaths,
    SignsUrls,
)
from kinto_attachment.storage.storages import Storage, metric_of

logger = logging.getLogger(__name__)

# Files may be hostile: browsers must not run scripts in them, nor give them the site's origin.
# A video that is opened in a tab is shown in a page of the browser, with the file as its media.
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": (
        "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; sandbox"
    ),
    # Pages of other origins may show files. The permission was checked before.
    "Cross-Origin-Resource-Policy": "cross-origin",
}
# Responses depend on the user: a cache must not give them to another user, or after a logout.
IDENTITY = "Authorization"
FOREVER = "max-age=31536000, immutable"
CURRENT = {"Cache-Control": "private, no-cache", "Vary": IDENTITY}
# Not for ever: Chromium does not compare credentials that it adds to a request by itself.
PRIVATE = CURRENT
# The URL is a credential.
LINKED = {"Referrer-Policy": "no-referrer"}
PUBLIC = {"Cache-Control": f"public, {FOREVER}"}
FIRST_SIZE = 64 * 1024  # The first read is small because it delays the response.
LOOKUPS = 3  # Per file and request: the file may be moved or replaced in the meantime.

View = Callable[[Request], Response]


class StreamedResponse(Response):  # type: ignore[misc]
    """A response whose bytes are only for the WSGI server.

    Kinto reads the ``body`` of each response to log its size; that would load the file.
    """

    body = property(lambda self: b"")


@dataclass(frozen=True)
class StoredFile:
    """A file to send, with its metadata from the record."""

    storage: Storage
    key: str
    filename: str
    mimetype: str
    hash: str
    stat: FileStat
    encoding: str = ""
    is_saved: bool = False  # Sent as an attachment, even if the settings allow its type inline.

    @classmethod
    def find(cls, storage: Storage, key: str, metadata: Mapping[str, Any]) -> StoredFile:
        """:raises FileMissing: the record's file does not exist."""
        try:
            stat = storage.files.stat(key)
        except FileNotFound as error:
            raise FileMissing(storage.name, key) from error
        if stat.size != metadata.get("size"):
            logger.error("The file of an attachment has another size: %s", key)
            raise FileNotFound()
        filename, mimetype, sha256 = (
            str(metadata.get(name) or "") for name in ("filename", "mimetype", "hash")
        )
        # Quoted, since it is sent in a header, and may have been written by other code.
        encoding = "gzip" if metadata.get("encoding") == "gzip" else ""
        return cls(storage, key, filename, mimetype, quote(sha256, safe=""), stat, encoding)


def following(view: View) -> View:
    """A view of a file that looks it up again if it was moved to another storage in the meantime.

    The same if the file was replaced.

    :raises FileMissing: the file is not where the index says, which is logged.
    """

    @wraps(view)
    def looking(request: Request) -> Response:
        for left in reversed(range(LOOKUPS)):
            try:
                return view(request)
            except FileMissing as error:
                if not left or not is_outdated(request.registry, error):
                    logger.error("The file of an attachment is missing: %s", error.key)
                    raise
        raise AssertionError("unreachable")

    return looking


def as_requested(request: Request, file: StoredFile) -> StoredFile:
    """The file with the name and the disposition of the query.

    :raises InvalidBody, InvalidForm: the query has an invalid value.
    """
    disposition, filename = requested_disposition(request)
    if filename is not None:
        file = replace(file, filename=filename)
    # ``inline`` needs nothing: the settings decide which types may be shown in place.
    return replace(file, is_saved=disposition == "attachment")


def requested_disposition(request: Request) -> tuple[str | None, str | None]:
    """The disposition and the filename of the query.

    :raises InvalidBody, InvalidForm: one of them has an invalid value.
    """
    disposition, filename = (request.GET.get(name) for name in ("disposition", "filename"))
    if disposition not in (None, "inline", "attachment"):
        raise InvalidBody("disposition in querystring: should be inline or attachment")
    return disposition, clean_filename(filename) if filename is not None else None


def respond(
    request: Request, file: StoredFile, rules: CollectionSettings, caching: Mapping[str, str]
) -> Response:
    """Answer a GET or HEAD for a stored file (200, 206, 304, 412, 416; or a redirect).

    ``caching`` are the headers that control caches.

    :raises InvalidBody: a GET in a batch, whose JSON cannot contain a file.
    """
    if request.method == "GET" and in_batch(request):
        raise InvalidBody("A batch cannot return a file: send the GET by itself, or use HEAD.")
    outcome = ranges.evaluate(
        request.method, request.headers, file.hash, file.stat.modified, file.stat.size
    )
    headers = {**_headers(file, rules), **caching}
    if outcome.status in (304, 412, 416):
        return _refuse(outcome, file, headers)
    downloads = file.storage.downloads
    # A URL is signed for one method: a HEAD would be refused at the URL for a GET.
    if downloads.mode == "redirect" and request.method == "GET":
        return _redirect(file, headers)
    if downloads.mode.startswith("x-") and not _only_kinto_can(request, file):
        return _hand_over(file, headers)
    return _stream(request, file, headers, outcome)


def _headers(file: StoredFile, rules: CollectionSettings) -> dict[str, str]:
    headers = {
        "Content-Type": sendable_type(file.mimetype),
        "Content-Disposition": _disposition(file, rules),
        "Accept-Ranges": "bytes",
        "ETag": f'"{file.hash}"',
        "Last-Modified": ranges.http_date(file.stat.modified),
        **SECURITY_HEADERS,
    }
    if file.encoding:
        headers["Content-Encoding"] = file.encoding
    if re.fullmatch(r"[0-9a-f]{64}", file.hash):
        digest = base64.b64encode(bytes.fromhex(file.hash)).decode()
        headers["Repr-Digest"] = f"sha-256=:{digest}:"
    return headers


def _disposition(file: StoredFile, rules: CollectionSettings) -> str:
    if file.is_saved:
        return content_disposition(file.filename, "attachment")
    return disposition_of(rules, file.filename, file.mimetype)


def _answer(status: int, headers: Mapping[str, str], body: Iterable[bytes] = ()) -> Response:
    return StreamedResponse(status=status, headerlist=list(headers.items()), app_iter=body)


def _refuse(outcome: ranges.Outcome, file: StoredFile, headers: dict[str, str]) -> Response:
    for name in ("Content-Type", "Content-Encoding", "Content-Disposition", "Repr-Digest"):
        headers.pop(name, None)
    if outcome.status == 304:
        return _answer(304, headers)
    headers["Cache-Control"] = "no-store"
    if outcome.status == 412:
        refusal = http_error(
            HTTPPreconditionFailed(),
            errno=ERRORS.MODIFIED_MEANWHILE,
            message="The attachment is not the one that was expected",
        )
    else:
        headers["Content-Range"] = ranges.content_range(0, 0, file.stat.size)
        refusal = http_error(
            HTTPRequestRangeNotSatisfiable(),
            errno=ERRORS.INVALID_PARAMETERS,
            message="The attachment has no such bytes",
        )
    refusal.headers.update(headers)
    return refusal


def _redirect(file: StoredFile, headers: dict[str, str]) -> Response:
    backend, ttl = file.storage.files, file.storage.signed_url_ttl
    assert isinstance(backend, SignsUrls)  # noqa: S101 - checked at the start-up.
    kind = disposition_type(headers["Content-Disposition"])
    url = backend.signed_url(file.key, ttl, file.filename, kind, headers["Content-Type"])
    answer = {"Location": url, "Cache-Control": "no-store", "Content-Length": "0"}
    # Pages that only embed resources that allow it also check redirects (Fetch Standard, "HTTP
    # fetch").
    for name in ("Vary", "Cross-Origin-Resource-Policy"):
        if name in headers:
            answer[name] = headers[name]
    return _answer(302, answer)


def _hand_over(file: StoredFile, headers: dict[str, str]) -> Response:
    """Tell the web server which file to send; it also handles ranges."""
    backend, downloads = file.storage.files, file.storage.downloads
    if downloads.mode == "x-sendfile":
        assert isinstance(backend, HasPaths)  # noqa: S101 - checked at the start-up.
        headers["X-Sendfile"] = _header_of_path(backend.path(file.key))
    else:
        headers["X-Accel-Redirect"] = public_url(downloads.prefix, file.key)
    return _answer(200, headers)


def _only_kinto_can(request: Request, file: StoredFile) -> bool:
    """Whether the web server would send another response than the right one.

    Apache's mod_xsendfile and nginx drop the encoding, without which the file looks damaged.
    nginx compares ``If-Match`` once more, with an ETag that it makes of the file's size and time,
    or with none (``etag off``), and before ``add_header`` sets ours: the answer is always a 412.
    """
    is_nginx = file.storage.downloads.mode == "x-accel-redirect"
    return bool(file.encoding) or (is_nginx and "If-Match" in request.headers)


def _header_of_path(path: str) -> str:
    # The bytes of the path as PEP 3333 has them in a header, since Apache's mod_xsendfile decodes
    # nothing. lighttpd does, and must not decode names that only look like escapes.
    return os.fsencode(path.replace("%", "%25")).decode("latin-1")


def _stream(
    request: Request,
    file: StoredFile,
    headers: dict[str, str],
    outcome: ranges.Outcome,
) -> Response:
    headers["Content-Length"] = str(outcome.end - outcome.start)
    if outcome.status == 206:
        headers["Content-Range"] = ranges.content_range(outcome.start, outcome.end, file.stat.size)
    if request.method == "HEAD":
        return _answer(outcome.status, headers)
    try:
        reader = file.storage.files.open(file.key, outcome.start, outcome.end)
    except FileNotFound as error:
        raise FileMissing(file.storage.name, file.key) from error
    body = _body(request, reader)
    sent = metric_of(file.storage.name, "attachments.bytes_out")
    request.registry.metrics.count(sent, outcome.end - outcome.start)
    return _answer(outcome.status, headers, body)


def _body(request: Request, reader: ClosableReader) -> Iterable[bytes]:
    wrapper = request.environ.get("wsgi.file_wrapper")
    if wrapper is not None and hasattr(reader, "fileno"):
        wrapped: Iterable[bytes] = wrapper(reader, CHUNK_SIZE)
        return wrapped
    return _Chunks(reader)


class _Chunks:
    """The chunks of a reader, as a WSGI response; closes the reader with the response.

    :raises StorageError: the first read fails, when an error can still be sent.
    """

    def __init__(self, reader: ClosableReader) -> None:
        self.reader = reader
        try:
            self._first = reader.read(FIRST_SIZE)
        except StorageError:
            reader.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        chunk, self._first = self._first, b""
        while chunk:
            yield chunk
            chunk = self.reader.read(CHUNK_SIZE)

    def close(self) -> None:
        self.reader.close()


def announce(request: Request, response: Response, record_uri: str, metadata: Any) -> None:
    if request.method == "GET" and response.status_code in (200, 206, 302):
        ledger = Ledger.of(request)
        ledger.when_committed(ledger.events, AttachmentRead(request, record_uri, metadata))
