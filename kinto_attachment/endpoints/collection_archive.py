"""``…/collections/{id}/attachments.zip``: the current files of a collection in one archive."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

import transaction
from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON
from pyramid.response import Response

from kinto_attachment.endpoints import openapi
from kinto_attachment.endpoints.attachment import outside_default_bucket
from kinto_attachment.endpoints.collection_context import ArchiveContext
from kinto_attachment.endpoints.downloads import (
    CURRENT,
    LINKED,
    SECURITY_HEADERS,
    StreamedResponse,
)
from kinto_attachment.errors import ArchiveFailed, FileNotFound, InvalidBody, TooLarge, cause
from kinto_attachment.files.archive_links import TOKEN
from kinto_attachment.files.events import AttachmentRead
from kinto_attachment.files.list_queries import HAS_FILE, ListQuery
from kinto_attachment.files.listing import Current, item_of, records_of, totals
from kinto_attachment.files.locations import find_own_file
from kinto_attachment.files.sources import is_known_otherwise
from kinto_attachment.files.transactions import in_batch, paused_transaction
from kinto_attachment.http.archives import Archive
from kinto_attachment.kinto_types import Request
from kinto_attachment.names import content_disposition
from kinto_attachment.storage import CHUNK_SIZE, ClosableReader
from kinto_attachment.storage.storages import metric_of
from kinto_attachment.uris import CollectionURI

logger = logging.getLogger(__name__)

ROUTE = "collection-attachments-archive"
PATH = "/buckets/{bucket_id}/collections/{collection_id}/attachments.zip"

MAX_FILES = 20_000  # Each takes a kilobyte of memory, until the archive ends.
RECORDS_AT_ONCE = 100
ATTEMPTS = 5  # A record may get another file after it was read.
INDEX_IN_MEMORY = 1024 * 1024  # Bytes of the index; more than that is in a temporary file.


def service(*, default_bucket: bool) -> Service:
    archive = Service(
        name=ROUTE,
        path=outside_default_bucket(PATH) if default_bucket else PATH,
        description="The files of a collection in one archive",
        factory=ArchiveContext,
    )
    archive.add_view("GET", get_archive, permission=DYNAMIC, **openapi.archive())
    return archive


def get_archive(request: Request) -> Response:
    """Each file and its record, and a list of them, in a ZIP that is made while it is sent."""
    context: Any = request.context
    context.check_exists()
    query = ListQuery.of_all(request, TOKEN)
    if request.method == "GET" and in_batch(request):
        raise InvalidBody("A batch cannot return a file: send the GET by itself.")
    check_count(request, context.uri, query)
    chunks = () if request.method == "HEAD" else started(Chunks(request, context.uri, query))
    name = content_disposition(f"{context.uri.collection_id}.zip", "attachment")
    headers = {
        "Content-Type": "application/zip",
        "Content-Disposition": name,
        **SECURITY_HEADERS,
        **CURRENT,
        **(LINKED if context.is_linked else {}),
    }
    return StreamedResponse(headerlist=list(headers.items()), app_iter=chunks)


# The steps.


def check_count(request: Request, collection: CollectionURI, query: ListQuery) -> None:
    """:raises TooLarge: the archive would have more files than one may have."""
    found = totals(request.registry, collection, query).files
    if found > MAX_FILES:
        raise TooLarge(f"{found} files, and {MAX_FILES} at most: use filters for parts of them.")


def started(chunks: Chunks) -> Chunks:
    """An archive whose first bytes exist, so that its first file is not missing.

    :raises ArchiveFailed: it is; nothing was sent.
    :raises StorageError: the storage does not answer.
    """
    # The archive reads each page of records in a transaction of its own.
    with paused_transaction():
        try:
            chunks.start()
        except FileNotFound as error:
            raise ArchiveFailed(str(error)) from error
    return chunks


@dataclass(frozen=True)
class Opened:
    """A file that is open, of a record that has been read; ``storage`` is where it is."""

    current: Current
    storage: str
    reader: ClosableReader


class Chunks:
    """The archive as a WSGI response.

    If a later file is missing, iterating fails: the server closes the connection without an end
    of the response, and the archive lacks its directory, so that nobody takes it for a whole one.
    """

    def __init__(self, request: Request, collection: CollectionURI, query: ListQuery) -> None:
        self._request = request
        self._collection = collection
        self._query = query
        self._chunks = self._generate()
        self._first = b""

    def start(self) -> None:
        """Open the first file, and make what is sent before it."""
        self._first = next(self._chunks)

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield self._first
            yield from self._chunks
        except Exception as error:
            logger.exception("The archive of %s broke off: %s", self._collection, cause(error))
            raise

    def close(self) -> None:
        self._chunks.close()

    def _generate(self) -> Generator[bytes, None, None]:
        archive = Archive()
        with tempfile.SpooledTemporaryFile(INDEX_IN_MEMORY) as index:
            index.write(b'{"data": [')
            separator = b""
            for current in self._records():
                found = self._open(current)
                if found is None:
                    continue
                item = item_of(self._request, found.current)
                with contextlib.closing(found.reader) as reader:
                    self._tell(found)
                    size = found.current.metadata["size"]
                    yield from archive.entry(name_of(item["id"]), chunks_of(reader), size)
                record = json.dumps(found.current.record).encode()
                yield from archive.entry(f"{name_of(item['id'])}.meta.json", [record], len(record))
                index.write(separator + json.dumps(item).encode())
                separator = b",\n"
            index.write(b"]}\n")
            size = index.tell()
            index.seek(0)
            yield from archive.entry("index.json", chunks_of(index), size)
        yield from archive.end()

    def _records(self) -> Iterator[Current]:
        """The records, page by page: no connection to the database is held in between."""
        before = None
        while True:
            found, before = self._read(before, *self._query.filters)
            yield from found
            if before is None:
                return

    def _read(self, before: int | None, *filters: Filter) -> tuple[list[Current], int | None]:
        with transaction.manager:
            return records_of(
                self._request.registry, self._collection, filters, RECORDS_AT_ONCE, before
            )

    def _open(self, current: Current) -> Opened | None:
        """The file of a record; None if it has none any more.

        :raises FileNotFound: the record has a file that is missing.
        """
        for _ in range(ATTEMPTS):
            if not current.is_outdated:
                with contextlib.suppress(FileNotFound):
                    return self._opened(current)
            # It may have been replaced or deleted since the page was read.
            is_it = Filter("id", current.record["id"], COMPARISON.EQ)
            found, _ = self._read(None, HAS_FILE, is_it)
            if not found:
                return None
            if found == [current]:
                break
            (current,) = found
        logger.error("The file of an attachment is missing: %s", current.uri)
        raise FileNotFound(f"The file of {current.uri} is missing.")

    def _opened(self, current: Current) -> Opened:
        storage, key = self._place_of(current)
        reader = self._request.registry.attachment_storages[storage].files.open(key)
        return Opened(current, storage, reader)

    def _place_of(self, current: Current) -> tuple[str, str]:
        if current.link is not None:
            return current.link.storage, current.link.key
        # A record from before the index.
        registry = self._request.registry
        with transaction.manager:
            found = find_own_file(registry, current.metadata)
            if found is None or is_known_otherwise(registry, found[1], current.metadata):
                raise FileNotFound()
        return found

    def _tell(self, found: Opened) -> None:
        """Count the bytes, and tell other plugins, as for a download of the one file."""
        registry, current = self._request.registry, found.current
        sent = metric_of(found.storage, "attachments.bytes_out")
        registry.metrics.count(sent, current.metadata["size"])
        metadata = current.record["attachment"]
        try:
            registry.notify(AttachmentRead(self._request, current.uri, metadata))
        except Exception as error:
            logger.exception("A subscriber of AttachmentRead failed: %s", cause(error))


def name_of(record_id: str) -> str:
    """The name in the archive: the id, without dots or slashes of some generator of ids."""
    return quote(record_id, safe="").replace(".", "%2E")


def chunks_of(reader: Any) -> Iterator[bytes]:
    return iter(partial(reader.read, CHUNK_SIZE), b"")
