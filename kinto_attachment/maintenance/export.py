"""export: writes one or all collections with records and files to a folder or a ZIP.

Records and tombstones are read in the order of their timestamps. So records that are written
during the export come again at the end, and the last state counts. A file is copied before its
record is saved. If the file no longer exists, the record was written or deleted after it was read,
and comes again; otherwise, the file is missing. So the export shows the collection at the time
when its last page was read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import IO, Any

import transaction
from kinto.core.storage import Filter, Sort
from kinto.core.storage.exceptions import ObjectNotFoundError
from kinto.core.utils import COMPARISON

from kinto_attachment.errors import FileNotFound, StorageNotConfigured
from kinto_attachment.files.sources import file_before_index
from kinto_attachment.http.streams import Reader
from kinto_attachment.index.bulk import BulkLinks
from kinto_attachment.index.link import Link
from kinto_attachment.index.objects import batches
from kinto_attachment.kinto_types import KintoObject, Registry
from kinto_attachment.maintenance import exported, records
from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.maintenance.export_targets import Target, opened
from kinto_attachment.maintenance.linking import NO_HASH, is_described
from kinto_attachment.maintenance.reports import Progress, RecordFinding, Report, no_progress
from kinto_attachment.maintenance.selection import EVERYTHING, Selection
from kinto_attachment.metadata import FIELD
from kinto_attachment.storage import CHUNK_SIZE
from kinto_attachment.uris import CollectionURI

AT_ONCE = 200  # Records read in one transaction.
THREADS = 4  # Threads that copy files.
SHA256 = re.compile("[0-9a-f]{64}")
FOREIGN = "its file is not one of this server"
NOT_THERE = "its file does not exist"
CHANGED = "its attachment is not what the index has"
OTHER = "its file has other content: {} bytes with the SHA-256 {}"


@dataclass
class ExportReport(Report):
    """``files`` and ``bytes`` count a file of several records of a collection once."""

    collections: int = 0
    records: int = 0
    files: int = 0
    bytes: int = 0
    # Records that were left out.
    missing: list[RecordFinding] = field(default_factory=list)
    damaged: list[RecordFinding] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """A record as it was read, its current link, and its permissions if they are exported."""

    record: KintoObject
    link: Link | None
    permissions: Mapping[str, Any] | None
    listed: int  # The timestamp by which it was found; the record may be newer.
    is_deleted: bool = False

    @property
    def attachment(self) -> Any:
        return self.record.get(FIELD)


@dataclass(frozen=True)
class Place:
    """The source and the target of a file."""

    storage: str
    key: str
    path: str
    hash: str
    size: int


@dataclass(frozen=True)
class Problem:
    """A record cannot be exported as it was read."""

    kind: str  # A list of the report.
    reason: str


def export(
    registry: Registry,
    to: str,
    selection: Selection = EVERYTHING,
    *,
    permissions: bool = False,
    progress: Progress = no_progress,
) -> ExportReport:
    """Export the selected collections, with permissions if requested.

    :raises CommandError: the collection does not exist, or the target is not empty.
    :raises OSError: the target cannot be written and is incomplete.
    :raises StorageError: a storage does not answer.
    """
    collections = [uri for uri in records.collections(registry) if selection.has_collection(uri)]
    is_one = None not in (selection.bucket, selection.collection)
    if not collections and not selection.is_whole:
        raise CommandError("There is no such collection.")
    with opened(to) as target, ThreadPoolExecutor(THREADS) as threads:
        exporter = _Exporter(registry, target, threads, permissions, progress)
        written = []
        for uri in collections:
            if exporter.export(uri, "" if is_one else exported.folder_of(uri)):
                written.append({"bucket": uri.bucket_id, "collection": uri.collection_id})
            elif is_one:
                raise CommandError("The collection was deleted meanwhile.")
        if not is_one:
            index = {"format": exported.FORMAT, "collections": written}
            target.write(exported.SITE, [exported.dump(index)])
        target.finish()
    return exporter.report


class _Exporter:
    def __init__(
        self,
        registry: Registry,
        target: Target,
        threads: ThreadPoolExecutor,
        permissions: bool,
        progress: Progress,
    ) -> None:
        self.report = ExportReport()
        self._registry = registry
        self._bulk = BulkLinks(registry.storage, registry.attachment_links)
        self._target = target
        self._state = target.state
        self._threads = threads
        self._permissions = permissions
        self._progress = progress
        self._read = 0

    def export(self, uri: CollectionURI, folder: str) -> bool:
        """Export a collection; False if it was deleted before the end."""
        self._state.begin()
        after, is_last = 0, False
        while not is_last:
            page = self._page(uri, after)
            is_whole = self._copy(page, uri, folder)
            is_last = not page or (is_whole and len(page) < AT_ONCE)
            after = page[-1].listed if page else after
        described = self._described(uri)
        if described is not None:
            self._finish(described, folder)
        unused = self._state.files(unused=described is not None)
        for digest in unused:
            self._target.remove(exported.file_path(folder, digest))
        return described is not None

    def _page(self, uri: CollectionURI, after: int) -> list[Row]:
        """The next records, by the time of their last change."""
        with transaction.manager:
            found = self._registry.storage.list_all(
                resource_name="record",
                parent_id=str(uri),
                sorting=[Sort("last_modified", 1)],
                pagination_rules=[[Filter("last_modified", after, COMPARISON.GT)]],
                limit=AT_ONCE,
                include_deleted=True,
            )
            rows = {f"{uri.records}{each['id']}": each for each in found}
            listed = {name: each["last_modified"] for name, each in rows.items()}
            # Clients may write records that look like tombstones.
            doubtful = [name for name, each in rows.items() if each.get("deleted") is True]
            living = records.by_uri(self._registry, doubtful)
            rows |= {name: each for name, each in living.items() if each is not None}
            deleted = {name for name, each in living.items() if each is None}
            with_file = [name for name, each in rows.items() if each.get(FIELD) is not None]
            links = self._bulk.of_records(with_file)
            permissions = self._permissions_of([*rows])
        current = {
            link.record: link for many in links.values() for link in many if link.is_current
        }
        return [
            Row(record, current.get(name), permissions.get(name), listed[name], name in deleted)
            for name, record in rows.items()
        ]

    def _copy(self, page: list[Row], uri: CollectionURI, folder: str) -> bool:
        """Copy the files of records and save the records; False if some files no longer exist."""
        is_whole = True
        for rows in batches(page, 2 * THREADS):
            # Threads only access storages and not the database.
            places = [self._place_of(row, folder) for row in rows]
            for row, place, fetched in zip(
                rows, places, self._threads.map(self._fetch, places), strict=True
            ):
                if row.is_deleted:
                    self._state.drop(row.record["id"])
                elif isinstance(fetched, Problem):
                    self._note_problem(row, uri, fetched)
                    is_whole = False
                else:
                    self._keep(place, fetched)
                    self._note(row)
            self._progress("records read", self._count(len(rows)))
        return is_whole

    def _place_of(self, row: Row, folder: str) -> Place | Problem | None:
        """The source and target of a record's file; None if there is nothing to copy."""
        attachment = row.attachment
        if attachment is None or row.is_deleted:
            return None
        if not is_described(attachment) or not SHA256.fullmatch(attachment["hash"]):
            return Problem("damaged", NO_HASH)
        digest, size = attachment["hash"], attachment["size"]
        path = exported.file_path(folder, digest)
        if self._state.has_file(digest):
            return None
        link = row.link
        if link is not None and not link.describes(attachment):
            return Problem("damaged", CHANGED)  # Unless a client has just written it.
        if link is None:
            with transaction.manager:
                found = file_before_index(self._registry, attachment)
            return Place(*found, path, digest, size) if found else Problem("missing", FOREIGN)
        return Place(link.storage, link.key, path, digest, size)

    def _fetch(self, place: Place | Problem | None) -> IO[bytes] | Problem | None:
        """Copy a file from its storage to a draft; None if the export already has it."""
        if not isinstance(place, Place):
            return place
        if self._target.has(place.path, place.hash, place.size):
            return None
        try:
            files = self._registry.attachment_storages[place.storage].files
        except StorageNotConfigured as error:
            return Problem("missing", str(error))
        draft = self._target.draft()
        try:
            with closing(files.open(place.key)) as reader:
                size, digest = _copied(reader, draft, place.size)
        except FileNotFound:
            self._target.discard(draft)
            return Problem("missing", NOT_THERE)
        except BaseException:
            self._target.discard(draft)
            raise
        if (size, digest) == (place.size, place.hash):
            return draft
        self._target.discard(draft)
        return Problem("damaged", OTHER.format(size, digest))

    def _keep(self, place: Place | Problem | None, draft: IO[bytes] | None) -> None:
        if isinstance(place, Place):
            if draft is None or self._state.has_file(place.hash):
                if draft is not None:
                    self._target.discard(draft)
            else:
                self._target.place(place.path, draft)
            self._state.add_file(place.hash, place.size)

    def _note(self, row: Row) -> None:
        data = {**row.record}
        digest = None
        if row.attachment is not None:
            # The target's configuration determines the location.
            data[FIELD] = {k: v for k, v in row.attachment.items() if k != "location"}
            digest = row.attachment["hash"]
        line: dict[str, Any] = {"data": data}
        if row.permissions is not None:
            line["permissions"] = row.permissions
        self._state.put(data["id"], exported.dump(line), digest)

    def _note_problem(self, row: Row, uri: CollectionURI, problem: Problem) -> None:
        found = {"kind": problem.kind, "record": f"{uri.records}{row.record['id']}"}
        found["reason"] = problem.reason
        self._state.put_problem(row.record["id"], exported.dump(found))

    def _described(self, uri: CollectionURI) -> dict[str, Any] | None:
        """The current collection and its bucket; None if they were deleted."""
        storage = self._registry.storage
        with transaction.manager:
            try:
                found = {
                    "bucket": storage.get("bucket", "", uri.bucket_id),
                    "collection": storage.get("collection", uri.bucket, uri.collection_id),
                }
            except ObjectNotFoundError:
                return None
            names = {"bucket": uri.bucket, "collection": str(uri)}
            permissions = self._permissions_of([*names.values()])
        described: dict[str, Any] = {"format": exported.FORMAT}
        described["has_permissions"] = self._permissions
        for kind, data in found.items():
            described[kind] = {"data": data}
            if self._permissions:
                described[kind]["permissions"] = permissions[names[kind]]
        return described

    def _permissions_of(self, uris: list[str]) -> dict[str, dict[str, list[str]]]:
        if not (self._permissions and uris):
            return {}
        found = self._registry.permission.get_objects_permissions(uris)
        return {
            uri: {name: sorted(principals) for name, principals in each.items() if principals}
            for uri, each in zip(uris, found, strict=True)
        }

    def _finish(self, described: dict[str, Any], folder: str) -> None:
        """Write the file with the records, and then the file that completes the collection."""
        totals, report = self._state.totals(), self.report
        self._target.write(f"{folder}{exported.RECORDS}", self._state.lines())
        described |= asdict(totals)
        self._target.write(f"{folder}{exported.COLLECTION}", [exported.dump(described)])
        report.collections += 1
        report.records += totals.records
        report.files += totals.files
        report.bytes += totals.bytes
        for line in self._state.problems():
            problem = json.loads(line)
            getattr(report, problem.pop("kind")).append(RecordFinding(problem))

    def _count(self, more: int) -> int:
        self._read += more
        return self._read


def _copied(reader: Reader, draft: IO[bytes], size: int) -> tuple[int, str]:
    """Copy a file; returns its size and SHA-256, both of at most one byte more than ``size``."""
    digest, copied = hashlib.sha256(), 0
    while copied <= size and (chunk := reader.read(min(CHUNK_SIZE, size - copied + 1))):
        digest.update(chunk)
        draft.write(chunk)
        copied += len(chunk)
    return copied, digest.hexdigest()
