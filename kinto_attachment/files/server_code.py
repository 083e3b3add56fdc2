"""Attachments for other plugins and views: in the request's transaction, as its user.

The steps and checks of an upload follow. Their exceptions, which are errors of this package and
Kinto's HTTP exceptions, fail the request unless the caller catches them.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from kinto.core.utils import build_request

from kinto_attachment.errors import FileNotFound
from kinto_attachment.files import arrivals
from kinto_attachment.files.copying import give, readable_source
from kinto_attachment.files.ledger import Ledger, Received
from kinto_attachment.files.locations import outermost
from kinto_attachment.files.signed_links import Linker
from kinto_attachment.files.sources import Source, open_source
from kinto_attachment.files.stored_records import stored_record
from kinto_attachment.files.target import KnownTarget
from kinto_attachment.files.transactions import JOINS
from kinto_attachment.files.uploads import IncomingFile, store
from kinto_attachment.http.streams import ClaimedDigests, Reader
from kinto_attachment.index.link import Link
from kinto_attachment.kinto_types import Request
from kinto_attachment.metadata import Attachment
from kinto_attachment.names import clean_filename
from kinto_attachment.storage import ClosableReader
from kinto_attachment.uris import RecordURI

# Headers that apply to the client's request, and not to the writes of server code.
NOT_INHERITED = (
    "Content-Disposition",
    "Content-Encoding",
    "Content-Length",
    "Content-MD5",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "If-Unmodified-Since",
)


class OpenedAttachment:
    """The bytes of a file, with its attachment object as ``metadata``; a context manager."""

    def __init__(self, reader: ClosableReader, metadata: Mapping[str, Any]) -> None:
        self._reader = reader
        self.metadata = metadata

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes, possibly fewer before the end; all bytes if it is negative."""
        if size >= 0:
            return self._reader.read(size)
        return b"".join(iter(lambda: self._reader.read(1024 * 1024), b""))

    def close(self) -> None:
        self._reader.close()

    def __enter__(self) -> OpenedAttachment:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def attach(
    request: Request,
    record_uri: str,
    file: bytes | Reader,
    filename: str,
    mimetype: str | None = None,
    data: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Attach a file to a record, which is created if it does not exist.

    ``record_uri`` is without the API version. ``file`` are the bytes, or an object with
    ``read(size)``. ``data`` are attributes of the record. The user needs the permission to write
    or create the record. The file is deleted again if the request fails.

    :returns: the attachment object.
    :raises AttachmentError: the collection's rules refuse the file, or a storage fails.
    :raises pyramid.httpexceptions.HTTPException: Kinto refuses the record: permissions, schema.
    """
    target = _request_for(request, record_uri)
    reader = BytesIO(file) if isinstance(file, bytes) else file
    stored = store(target, IncomingFile(filename, mimetype, reader, ClaimedDigests()))
    return _attached(target, stored, data)


def copy_attachment(
    request: Request, source_uri: str, target_uri: str, data: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Attach the file of another record, which the user may read, to a record.

    Within a storage, they share the file. The rest is as for :func:`attach`.

    :raises FileNotFound: the source has no file.
    """
    target = _request_for(request, target_uri)
    source = readable_source(request, RecordURI.parse(source_uri))
    return _attached(target, give(target, source), data)


def open_attachment(request: Request, record_uri: str) -> OpenedAttachment:
    """The file of a record that the user may read, including a file that this request attached.

    :raises pyramid.httpexceptions.HTTPForbidden: the user may not read the record.
    :raises FileNotFound: the record does not exist or has no file.
    """
    source = readable_source(request, RecordURI.parse(record_uri))
    metadata = source.attachment(request).to_json()
    return OpenedAttachment(open_source(request.registry, source), metadata)


def signed_url(
    request: Request,
    record_uri: str,
    expires_in: int = 600,
    *,
    disposition: str | None = None,
    filename: str | None = None,
    version: str | None = None,
) -> str:
    """A URL of a record's file, or of a version, that needs no credentials.

    The user needs the permission to read it. The URL is valid for ``expires_in`` seconds or a
    little longer. For a file that this request attached, it works after the commit.
    ``disposition`` is ``inline`` or ``attachment``, ``filename`` another name.

    :raises ValueError: ``expires_in`` or ``disposition`` is invalid.
    :raises pyramid.httpexceptions.HTTPForbidden: the user may not read the record.
    :raises FileNotFound: the record, file or version does not exist.
    :raises LinksNotConfigured: the server has no key to sign with.
    """
    longest = int(request.registry.attachment_settings["links.max_age"])
    if not 1 <= expires_in <= longest:
        raise ValueError(f"expires_in should be 1 to {longest} seconds")
    if disposition not in (None, "inline", "attachment"):
        raise ValueError("disposition should be inline or attachment")
    uri = RecordURI.parse(record_uri)
    resolver = request.registry.attachment_collection_settings
    rules = resolver.of(request, uri.bucket_id, uri.collection_id)
    link = _linkable(request, uri, readable_source(request, uri, version))
    name = None if filename is None else clean_filename(filename)
    return Linker(request, rules, expires_in).link(link, disposition, name).url


def _linkable(request: Request, uri: RecordURI, source: Source) -> Link:
    """The record's link to its file, or its future link after the request.

    :raises FileNotFound: the index does not know the file.
    """
    if source.link is not None:
        return source.link
    if Ledger.of(request).key_of(str(uri), source.described) is None:
        raise FileNotFound("The index does not know the file: kinto-attachment reindex adds it.")
    return Link.to(str(uri), source.key, source.described, storage=source.storage)


def _request_for(request: Request, record_uri: str) -> Request:
    """A sub-request about a record, in the transaction of the request."""
    uri = RecordURI.parse(record_uri)
    inner: Request = build_request(request, {"method": "PUT", "path": record_uri})
    for name in NOT_INHERITED:
        inner.headers.pop(name, None)
    inner.bound_data = request.bound_data
    # Requests that Kinto built, which events may have, lack this method.
    inner.invoke_subrequest = outermost(request).invoke_subrequest  # type: ignore[method-assign]
    inner.context = KnownTarget(uri, stored_record(request.registry, record_uri))
    setattr(inner, JOINS, True)
    return inner


def _attached(
    target: Request, attachment: Attachment, data: dict[str, Any] | None
) -> dict[str, Any]:
    arrivals.write(target, Received(attachment, data))
    return attachment.to_json()
