"""The archive of a collection's files: the files, their records and an index in a ZIP."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

import transaction
from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from kinto_attachment.errors import FileNotFound
from kinto_attachment.files.list_queries import HAS_FILE
from kinto_attachment.files.listing import Current, records_of
from kinto_attachment.files.sources import file_before_index
from kinto_attachment.http.archives import Archive
from kinto_attachment.kinto_types import Registry
from kinto_attachment.storage import CHUNK_SIZE, ClosableReader
from kinto_attachment.uris import CollectionURI

logger = logging.getLogger(__name__)

RECORDS_AT_ONCE = 100
ATTEMPTS = 5  # The file of a record may be replaced after it was read.
INDEX_IN_MEMORY = 1024 * 1024  # Bytes. A larger index is in a temporary file.


@dataclass(frozen=True)
class Opened:
    """The open file of a record, and the storage that it is read from."""

    current: Current
    storage: str
    reader: ClosableReader


class CollectionArchive:
    """The bytes of an archive, which are made while they are read.

    ``item`` describes a file in ``index.json``. ``when_opened`` is called with each file.
    """

    def __init__(
        self,
        registry: Registry,
        collection: CollectionURI,
        filters: Iterable[Filter],
        item: Callable[[Current], dict[str, Any]],
        when_opened: Callable[[Opened], None] | None = None,
    ) -> None:
        self._registry = registry
        self._collection = collection
        self._filters = tuple(filters)
        self._item = item
        self._when_opened = when_opened

    def chunks(self) -> Generator[bytes, None, None]:
        """:raises FileNotFound: a file is missing; the archive then lacks its directory."""
        archive = Archive()
        with tempfile.SpooledTemporaryFile(INDEX_IN_MEMORY) as index:
            index.write(b'{"data": [')
            separator = b""
            for current in self._records():
                found = self._open(current)
                if found is None:
                    continue
                item = self._item(found.current)
                with contextlib.closing(found.reader) as reader:
                    if self._when_opened is not None:
                        self._when_opened(found)
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
        """The records, page by page, without a database connection between pages."""
        before = None
        while True:
            found, before = self._read(before, *self._filters)
            yield from found
            if before is None:
                return

    def _read(self, before: int | None, *filters: Filter) -> tuple[list[Current], int | None]:
        with transaction.manager:
            return records_of(self._registry, self._collection, filters, RECORDS_AT_ONCE, before)

    def _open(self, current: Current) -> Opened | None:
        """The file of a record; None if it no longer has one.

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
        reader = self._registry.attachment_storages[storage].files.open(key)
        return Opened(current, storage, reader)

    def _place_of(self, current: Current) -> tuple[str, str]:
        if current.link is not None:
            return current.link.storage, current.link.key
        with transaction.manager:
            found = file_before_index(self._registry, current.metadata)
        if found is None:
            raise FileNotFound()
        return found


def name_of(record_id: str) -> str:
    """The name in the archive: the id, without the dots or slashes that id generators may use."""
    return quote(record_id, safe="").replace(".", "%2E")


def chunks_of(reader: Any) -> Iterator[bytes]:
    return iter(partial(reader.read, CHUNK_SIZE), b"")
