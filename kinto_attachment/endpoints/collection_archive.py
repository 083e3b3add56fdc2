"""``…/collections/{id}/attachments.zip``: the current files of a collection in one archive."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from pyramid.response import Response

from kinto_attachment.endpoints import openapi
from kinto_attachment.endpoints.attachment import outside_default_bucket
from kinto_attachment.endpoints.collection_context import ArchiveContext
from kinto_attachment.endpoints.downloads import (
    CURRENT,
    LINKED,
    SECURITY_HEADERS,
    StoredFile,
    StreamedResponse,
    respond,
)
from kinto_attachment.errors import ArchiveFailed, FileNotFound, InvalidBody, TooLarge, cause
from kinto_attachment.files.archive_links import TOKEN
from kinto_attachment.files.archiving import CollectionArchive, Opened
from kinto_attachment.files.events import AttachmentRead
from kinto_attachment.files.list_queries import HAS_FILE, ListQuery
from kinto_attachment.files.listing import item_of, totals
from kinto_attachment.files.transactions import in_batch, paused_transaction
from kinto_attachment.files.uploads import rules_of
from kinto_attachment.index.bundles import Bundles, asks_for_bundle
from kinto_attachment.kinto_types import Request
from kinto_attachment.names import content_disposition
from kinto_attachment.storage.storages import metric_of
from kinto_attachment.uris import CollectionURI

logger = logging.getLogger(__name__)

ROUTE = "collection-attachments-archive"
PATH = "/buckets/{bucket_id}/collections/{collection_id}/attachments.zip"

MAX_FILES = 20_000  # Each file needs a kilobyte of memory until the archive ends.


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
    """The files, their records and an index in a ZIP, which is made while it is sent."""
    context: Any = request.context
    context.check_exists()
    query = ListQuery.of_all(request, TOKEN)
    if request.method == "GET" and in_batch(request):
        raise InvalidBody("A batch cannot return a file: send the GET by itself.")
    bundle = stored_bundle(request, query)
    if bundle is not None:
        return bundle
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


def stored_bundle(request: Request, query: ListQuery) -> Response | None:
    """The stored archive, if it is up to date and the query selects the whole collection."""
    context: Any = request.context
    registry, collection = request.registry, context.uri
    if query.filters != (HAS_FILE,) or not asks_for_bundle(context.current_object):
        return None
    link = Bundles(registry.storage, registry.attachment_links).fresh(collection)
    if link is None or link.storage not in registry.attachment_storages:
        return None
    storage = registry.attachment_storages[link.storage]
    caching = {**CURRENT, **(LINKED if context.is_linked else {})}
    try:
        file = StoredFile.find(storage, link.key, link.attachment)
        return respond(request, replace(file, is_saved=True), rules_of(request), caching)
    except FileNotFound:
        return None  # The archive is lost, or was just replaced.


def check_count(request: Request, collection: CollectionURI, query: ListQuery) -> None:
    """:raises TooLarge: the archive would exceed the limit of files."""
    found = totals(request.registry, collection, query).files
    if found > MAX_FILES:
        raise TooLarge(f"{found} files, and {MAX_FILES} at most: use filters for parts of them.")


def started(chunks: Chunks) -> Chunks:
    """An archive whose first bytes have been made, so its first file is not missing.

    :raises ArchiveFailed: the first file is missing; nothing was sent.
    :raises StorageError: the storage does not answer.
    """
    # The archive reads each page of records in a transaction of its own.
    with paused_transaction():
        try:
            chunks.start()
        except FileNotFound as error:
            raise ArchiveFailed(str(error)) from error
    return chunks


class Chunks:
    """The archive as a WSGI response.

    If a later file is missing, iterating fails. The server then closes the connection before the
    end of the response, and the archive lacks its directory. So nobody mistakes it for a complete
    one.
    """

    def __init__(self, request: Request, collection: CollectionURI, query: ListQuery) -> None:
        self._request = request
        self._collection = collection
        self._chunks = CollectionArchive(
            request.registry, collection, query.filters, partial(item_of, request), self._tell
        ).chunks()
        self._first = b""

    def start(self) -> None:
        """Open the first file, and make the bytes that precede it."""
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

    def _tell(self, found: Opened) -> None:
        """Count the bytes, and notify other plugins, as for a download of the single file."""
        registry, current = self._request.registry, found.current
        sent = metric_of(found.storage, "attachments.bytes_out")
        registry.metrics.count(sent, current.metadata["size"])
        metadata = current.record["attachment"]
        try:
            registry.notify(AttachmentRead(self._request, current.uri, metadata))
        except Exception as error:
            logger.exception("A subscriber of AttachmentRead failed: %s", cause(error))
