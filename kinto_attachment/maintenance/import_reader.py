"""Reading an export: its collections, its records page by page, and the content of its files."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kinto_attachment.http.streams import Reader
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance import exported
from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.maintenance.exported_records import (
    MAX_LINE,
    ExportedCollection,
    ExportedRecord,
    Invalid,
    Parser,
)
from kinto_attachment.maintenance.import_sources import (
    ExportFile,
    NotInExport,
    NotThere,
    Source,
)
from kinto_attachment.maintenance.selection import Selection
from kinto_attachment.metadata import Attachment, Original
from kinto_attachment.storage import CHUNK_SIZE

AT_ONCE = 200


@dataclass(frozen=True)
class Head:
    """A collection of the export, and its folder."""

    collection: ExportedCollection
    folder: str


@dataclass(frozen=True)
class Line:
    """A line of ``records.jsonl``: its record, or its problem."""

    place: str
    record: ExportedRecord | None
    problem: str = ""
    size: int = 0  # Bytes.


class ExportReader:
    def __init__(self, registry: Registry, source: Source) -> None:
        self._source = source
        self._parser = Parser(registry)

    def heads(self, selection: Selection) -> list[Head]:
        """The selected collections of the export.

        :raises CommandError: the export is incomplete or invalid.
        """
        site = self._content(exported.SITE)
        if site is None:
            heads = [self._head("")]
        else:
            with _named(exported.SITE):
                collections = self._parser.site(site)
            folders = {exported.folder_of(uri): uri for uri in collections}
            heads = [
                self._head(folder)
                for folder, uri in folders.items()
                if selection.has_collection(uri)
            ]
            for head in heads:
                if head.collection.uri != folders[head.folder]:
                    raise CommandError(f"{head.folder}: this is another collection")
        return [head for head in heads if selection.has_collection(head.collection.uri)]

    def pages(self, head: Head) -> Iterator[list[Line]]:
        """The lines of a collection's records, in batches of limited number and size."""
        page, size = list[Line](), 0
        for line in self._lines(head):
            page.append(line)
            size += line.size
            if len(page) >= AT_ONCE or size >= MAX_LINE:
                yield page
                page, size = [], 0
        if page:
            yield page

    def open(self, head: Head, file: Attachment) -> ExportFile:
        """The bytes of a record's file.

        :raises NotInExport:
        """
        return self._source.open(exported.file_path(head.folder, file.hash))

    def problem_of(self, head: Head, file: Attachment) -> str:
        """Read a file; returns its problem, or an empty text."""
        try:
            with self.open(head, file) as reader:
                problem = _problem(reader, file)
            if problem or file.original is None:
                return problem
            with self.open(head, file) as reader:
                return _problem_of_original(reader, file.original)
        except NotInExport as error:
            return str(error)

    def _head(self, folder: str) -> Head:
        path = f"{folder}{exported.COLLECTION}"
        content = self._content(path)
        if content is None:
            raise CommandError(f"{path}: it does not exist: this is no export that is complete")
        with _named(path):
            return Head(self._parser.collection(content), folder)

    def _content(self, path: str) -> bytes | None:
        """The JSON value of a file; None if it does not exist."""
        try:
            with self._source.open(path) as file:
                content = file.read(MAX_LINE + 1)
        except NotThere:
            return None
        except NotInExport as error:
            raise CommandError(str(error)) from error
        if len(content) > MAX_LINE:
            raise CommandError(f"{path}: it is larger than {MAX_LINE} bytes")
        return content

    def _lines(self, head: Head) -> Iterator[Line]:
        path, number, count = f"{head.folder}{exported.RECORDS}", 0, 0
        try:
            with self._source.open(path) as file:
                while line := file.readline(MAX_LINE + 1):
                    number += 1
                    place = f"{path}, line {number}"
                    if len(line) > MAX_LINE:
                        yield Line(place, None, f"it is longer than {MAX_LINE} bytes")
                        return
                    count += 1
                    yield self._line(place, line)
        except NotInExport as error:
            yield Line(path, None, str(error))
            return
        if count != head.collection.records:
            told = head.collection.records
            yield Line(path, None, f"it has {count} records, and should have {told}")

    def _line(self, place: str, line: bytes) -> Line:
        try:
            return Line(place, self._parser.record(line), size=len(line))
        except Invalid as error:
            return Line(place, None, str(error))


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Add the path of the invalid file to an error."""
    try:
        yield
    except Invalid as error:
        raise CommandError(f"{path}: {error}") from error


def _problem(reader: Reader, file: Attachment | Original) -> str:
    digest, size = hashlib.sha256(), 0
    while size <= file.size and (chunk := reader.read(min(CHUNK_SIZE, file.size - size + 1))):
        digest.update(chunk)
        size += len(chunk)
    if size != file.size:
        found = f"more than {file.size}" if size > file.size else str(size)
        return f"its file has {found} bytes instead of {file.size}"
    return "" if digest.hexdigest() == file.hash else "its file has another SHA-256"


def _problem_of_original(reader: ExportFile, original: Original) -> str:
    """The problem of a file that the server compressed, decompressing as much as needed."""
    try:
        with gzip.GzipFile(fileobj=reader.raw) as unpacked:
            problem = _problem(unpacked, original)
    except (OSError, EOFError, zlib.error):
        problem = "it is not compressed"
    return f"`original`: {problem}" if problem else ""
