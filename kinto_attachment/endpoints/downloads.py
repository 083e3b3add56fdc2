"""A stored file becomes a response: conditional, in ranges, handed over or redirected."""

from __future__ import annotations

import base64
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from kinto.core.errors import ERRORS, http_error
from pyramid.httpexceptions import HTTPPreconditionFailed, HTTPRequestRangeNotSatisfiable
from pyramid.response import Response

from kinto_attachment.errors import FileNotFound, InvalidBody, StorageError
from kinto_attachment.files.events import AttachmentRead
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.transactions import in_batch
from kinto_attachment.files.uploads import served_as
from kinto_attachment.http import ranges
from kinto_attachment.names import clean_filename, content_disposition, public_url
from kinto_attachment.options import DownloadMode
from kinto_attachment.settings import CollectionSettings
from kinto_attachment.storage import (
    CHUNK_SIZE,
    ClosableReader,
    FileStat,
    FileStorage,
    HasPaths,
    SignsUrls,
)

logger = logging.getLogger(__name__)

# The content is hostile: whatever a browser makes of it, it runs nothing, with nobody's rights.
# A video that is opened in a tab is a page of the browser's own making, with the file as media.
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": (
        "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; sandbox"
    ),
    # Files are made to be shown in pages of other origins; who may read them is asked before.
    "Cross-Origin-Resource-Policy": "cross-origin",
}
MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[ -~]+", re.ASCII)
# Answers depend on who asks: a cache must not give one user's to another, nor to nobody when the
# user has logged out.
IDENTITY = "Authorization"
FOREVER = "max-age=31536000, immutable"
CURRENT = {"Cache-Control": "private, no-cache", "Vary": IDENTITY}
# Not for ever: Chromium does not compare credentials that it adds to a request by itself.
PRIVATE = CURRENT
PUBLIC = {"Cache-Control": f"public, {FOREVER}"}
FIRST_SIZE = 64 * 1024  # Of the first read, which everybody waits for.


class StreamedResponse(Response):  # type: ignore[misc]
    """A response whose bytes nobody but the WSGI server may ask for.

    Kinto measures each response by its ``body``, which would read the file into memory.
    """

    body = property(lambda self: b"")


@dataclass(frozen=True)
class StoredFile:
    """A file to send, with what its record says of it."""

    key: str
    filename: str
    mimetype: str
    hash: str
    stat: FileStat
    is_saved: bool = False  # By a browser, even if it could be shown in place.

    @classmethod
    def find(cls, storage: FileStorage, key: str, metadata: Mapping[str, Any]) -> StoredFile:
        """:raises FileNotFound: a record points at a file that is not there, which is logged."""
        try:
            stat = storage.stat(key)
        except FileNotFound:
            logger.error("The file of an attachment is missing: %s", key)
            raise
        if stat.size != metadata.get("size"):
            logger.error("The file of an attachment has another size: %s", key)
            raise FileNotFound()
        filename, mimetype, sha256 = (
            str(metadata.get(name) or "") for name in ("filename", "mimetype", "hash")
        )
        # Quoted, since it becomes a header, and other code than ours may have written it.
        return cls(key, filename, mimetype, quote(sha256, safe=""), stat)


def as_asked(request: Any, file: StoredFile) -> StoredFile:
    """The file with the name and the disposition that the query asks for.

    :raises InvalidBody, InvalidForm: the query is not understood.
    """
    disposition, filename = (request.GET.get(name) for name in ("disposition", "filename"))
    if disposition not in (None, "inline", "attachment"):
        raise InvalidBody("disposition in querystring: should be inline or attachment")
    if filename is not None:
        file = replace(file, filename=clean_filename(filename))
    # What browsers may show in place is the collection's to say, and shown so if nobody objects.
    return replace(file, is_saved=disposition == "attachment")


def respond(
    request: Any, file: StoredFile, rules: CollectionSettings, caching: Mapping[str, str]
) -> Response:
    """Answer a GET or HEAD for a stored file (200, 206, 304, 412, 416; or a redirect).

    ``caching`` are the headers that say who may keep the answer, and for whom.

    :raises InvalidBody: a batch asks for the bytes, which have no place in its JSON.
    """
    if request.method == "GET" and in_batch(request):
        raise InvalidBody("A batch cannot answer with a file: GET it by itself, or use HEAD.")
    wanted = ranges.evaluate(
        request.method, request.headers, file.hash, file.stat.modified, file.stat.size
    )
    headers = {**_headers(file, rules), **caching}
    if wanted.status in (304, 412, 416):
        return _refuse(wanted, file, headers)
    registry = request.registry
    handing_out: DownloadMode = registry.attachment_download_mode
    storage: FileStorage = registry.attachment_storage
    # A URL is signed for one method, so a HEAD that is sent there with a GET's is refused.
    if handing_out.mode == "redirect" and request.method == "GET":
        return _redirect(request, storage, file, headers)
    if handing_out.mode.startswith("x-"):
        return _hand_over(handing_out, storage, file, headers)
    return _stream(request, storage, file, headers, wanted)


def _headers(file: StoredFile, rules: CollectionSettings) -> dict[str, str]:
    headers = {
        "Content-Type": _media_type(file.mimetype),
        "Content-Disposition": _disposition(file, rules),
        "Accept-Ranges": "bytes",
        "ETag": f'"{file.hash}"',
        "Last-Modified": ranges.http_date(file.stat.modified),
        **SECURITY_HEADERS,
    }
    if re.fullmatch(r"[0-9a-f]{64}", file.hash):
        digest = base64.b64encode(bytes.fromhex(file.hash)).decode()
        headers["Repr-Digest"] = f"sha-256=:{digest}:"
    return headers


def _disposition(file: StoredFile, rules: CollectionSettings) -> str:
    if file.is_saved:
        return content_disposition(file.filename, "attachment")
    return served_as(rules, file.filename, file.mimetype)


def _media_type(mimetype: str) -> str:
    # Metadata may have been written by other code than ours.
    return mimetype if MEDIA_TYPE.fullmatch(mimetype) else "application/octet-stream"


def _answer(status: int, headers: Mapping[str, str], body: Iterable[bytes] = ()) -> Response:
    return StreamedResponse(status=status, headerlist=list(headers.items()), app_iter=body)


def _refuse(wanted: ranges.Outcome, file: StoredFile, headers: dict[str, str]) -> Response:
    for name in ("Content-Type", "Content-Disposition", "Repr-Digest"):
        headers.pop(name, None)
    if wanted.status == 304:
        return _answer(304, headers)
    headers["Cache-Control"] = "no-store"
    if wanted.status == 412:
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


def _redirect(
    request: Any, storage: FileStorage, file: StoredFile, headers: dict[str, str]
) -> Response:
    assert isinstance(storage, SignsUrls)  # noqa: S101 - checked at the start-up.
    ttl = request.registry.attachment_settings["signed_url_ttl"]
    kind = headers["Content-Disposition"].partition(";")[0]
    url = storage.signed_url(file.key, ttl, file.filename, kind, headers["Content-Type"])
    answer = {"Location": url, "Cache-Control": "no-store", "Content-Length": "0"}
    if "Vary" in headers:
        answer["Vary"] = headers["Vary"]
    return _answer(302, answer)


def _hand_over(
    handing_out: DownloadMode, storage: FileStorage, file: StoredFile, headers: dict[str, str]
) -> Response:
    """Tell the web server in front which file to send; ranges are its business then."""
    if handing_out.mode == "x-sendfile":
        assert isinstance(storage, HasPaths)  # noqa: S101 - checked at the start-up.
        headers["X-Sendfile"] = _header_of_path(storage.path(file.key))
    else:
        headers["X-Accel-Redirect"] = public_url(handing_out.prefix, file.key)
    return _answer(200, headers)


def _header_of_path(path: str) -> str:
    # The bytes of the path as PEP 3333 has them in a header, since Apache's mod_xsendfile decodes
    # nothing. lighttpd does, and must not be led elsewhere by what only looks like an escape.
    return os.fsencode(path.replace("%", "%25")).decode("latin-1")


def _stream(
    request: Any,
    storage: FileStorage,
    file: StoredFile,
    headers: dict[str, str],
    wanted: ranges.Outcome,
) -> Response:
    headers["Content-Length"] = str(wanted.end - wanted.start)
    if wanted.status == 206:
        headers["Content-Range"] = ranges.content_range(wanted.start, wanted.end, file.stat.size)
    if request.method == "HEAD":
        return _answer(wanted.status, headers)
    reader = storage.open(file.key, wanted.start, wanted.end)
    body = _body(request, reader)
    request.registry.metrics.count("attachments.bytes_out", wanted.end - wanted.start)
    return _answer(wanted.status, headers, body)


def _body(request: Any, reader: ClosableReader) -> Iterable[bytes]:
    wrapper = request.environ.get("wsgi.file_wrapper")
    if wrapper is not None and hasattr(reader, "fileno"):
        wrapped: Iterable[bytes] = wrapper(reader, CHUNK_SIZE)
        return wrapped
    return _Chunks(reader)


class _Chunks:
    """The reader as a WSGI server iterates it, closed when the server closes it.

    :raises StorageError: the first bytes do not come, while there is time to say so.
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


def announce(request: Any, response: Response, record_uri: str, metadata: Any) -> None:
    if request.method == "GET" and response.status_code in (200, 206, 302):
        ledger = Ledger.of(request)
        ledger.when_committed(ledger.events, AttachmentRead(request, record_uri, metadata))
