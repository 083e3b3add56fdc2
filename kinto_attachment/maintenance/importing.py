"""import: copies the collections of an export, with records and files, to this site.

Everything is checked first: the export, which anybody may have written, and the rules of the
target. If anything is refused, nothing is written. Then each record is written with its file in a
separate transaction. A repetition of an interrupted run skips the records that exist.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pyramid.httpexceptions import HTTPException

from kinto_attachment.errors import AttachmentError, AttachmentGone, StorageError
from kinto_attachment.files import imports, locks
from kinto_attachment.files.imports import CREATED, REPLACED, SAME, Differs, Imported, Terms
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.own_writes import create_parent, replace_parent
from kinto_attachment.kinto_types import KintoObject, Registry
from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.maintenance.exported_records import ExportedCollection
from kinto_attachment.maintenance.import_checks import (
    EXISTS,
    Checks,
    Parents,
    finding_of,
    identity,
    imported,
    parents_of,
    stored_records,
)
from kinto_attachment.maintenance.import_reader import ExportReader, Head, Line
from kinto_attachment.maintenance.import_sources import opened
from kinto_attachment.maintenance.import_state import Seen
from kinto_attachment.maintenance.reports import Progress, RecordFinding, Report, no_progress
from kinto_attachment.maintenance.selection import EVERYTHING, Selection
from kinto_attachment.maintenance.server_address import server_address
from kinto_attachment.metadata import FIELD, same_json

MOST_FINDINGS = 1000
ATTEMPTS = 3  # Attempts for records that others write at the same time.
BELOW = "--server should be the address by which Kinto itself is reached, not one below a path"
NO_PERMISSIONS = "The export has no permissions."


@dataclass
class ImportReport(Report):
    """The result of an import, or of a dry run."""

    for_information: ClassVar[tuple[str, ...]] = ("left",)

    collections: int = 0  # Created collections.
    created: int = 0
    replaced: int = 0
    same: int = 0  # Records that already existed.
    files: int = 0
    bytes: int = 0
    left: list[str] = field(default_factory=list)  # Collections with other data.
    refused: list[RecordFinding] = field(default_factory=list)  # Refused by the target.
    invalid: list[str] = field(default_factory=list)  # In the export.


def import_(
    registry: Registry,
    path: str,
    selection: Selection = EVERYTHING,
    *,
    permissions: bool = False,
    replace: bool = False,
    server: str | None = None,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> ImportReport:
    """Import the selected collections of an export.

    ``replace`` replaces existing records with other content. ``server`` is the URL with which
    clients reach this server.

    :raises CommandError: this is not an export, or the server does not know its address.
    :raises StorageError: a storage does not answer; the import can be repeated.
    """
    with opened(path) as source, Seen() as seen:
        reader = ExportReader(registry, source)
        heads = reader.heads(selection)
        if not heads and not selection.is_whole:
            raise CommandError("The export has no such collection.")
        if permissions and not all(head.collection.has_permissions for head in heads):
            raise CommandError(NO_PERMISSIONS)
        terms = Terms(_address(registry, server, heads), replace)
        importer = _Importer(registry, reader, seen, terms, permissions, progress)
        for head in heads:
            importer.check(head)
        planned = importer.report
        if dry_run:
            return planned
        if planned.found:
            return ImportReport(refused=planned.refused, invalid=planned.invalid)
        importer.report = ImportReport(left=planned.left)
        for head in heads:
            if not importer.write(head):
                break
    return importer.report


def _address(registry: Registry, server: str | None, heads: list[Head]) -> str:
    """The server's URL without the API version.

    :raises CommandError: it is invalid, or it is needed and not known.
    """
    resolver, ledger = registry.attachment_collection_settings, Ledger()
    rules = [resolver.without_user(head.collection.uri, ledger) for head in heads]
    storages = registry.attachment_storages
    found = server_address(registry, server, [storages[each.storage] for each in rules])
    if found is None:
        return "http://localhost"  # No location contains it.
    if urlsplit(found).path:
        raise CommandError(BELOW)
    return found


class _Importer:
    def __init__(
        self,
        registry: Registry,
        reader: ExportReader,
        seen: Seen,
        terms: Terms,
        permissions: bool,
        progress: Progress,
    ) -> None:
        self.report = ImportReport()
        self._registry = registry
        self._reader = reader
        self._seen = seen
        self._terms = terms
        self._permissions = permissions
        self._progress = progress
        self._checks = Checks(registry, terms, seen)
        self._done = 0

    def check(self, head: Head) -> None:
        """Report the problems of a collection, or the pending changes."""
        exported, report = head.collection, self.report
        parents = parents_of(self._registry, exported)
        if not parents.exists:
            report.collections += 1
        elif not (_has_data(exported, parents) or _is_to_be_locked(exported, parents)):
            report.left.append(str(exported.uri))
        for page in self._reader.pages(head):
            wanted = self._wanted(head, page)
            stored = stored_records(self._registry, wanted, permissions=self._permissions)
            for uri, each in wanted.items():
                self._check(head, each, *stored[uri], parents)
            self._count("records checked", len(page))
            if len(report.invalid) + len(report.refused) >= MOST_FINDINGS:
                return

    def write(self, head: Head) -> bool:
        """Write a collection; False if the target has refused a record in the meantime."""
        exported = head.collection
        uri = exported.uri
        self._create(exported)
        for page in self._reader.pages(head):
            wanted = self._again(head, page)
            stored = stored_records(self._registry, wanted, permissions=self._permissions)
            for name, each in wanted.items():
                if not self._write(head, each, *stored[name]):
                    return False
            self._count("records imported", len(page))
        if _is_to_be_locked(exported, parents_of(self._registry, exported)):
            replace_parent(self._registry, "collection", str(uri), exported.collection.data)
        return True

    def _wanted(self, head: Head, page: list[Line]) -> dict[str, Imported]:
        """The valid records of a page by URI; problems of the others are reported."""
        found = {}
        for line in page:
            problem = line.problem
            if line.record is not None:
                each = imported(head.collection.uri, line.record, permissions=self._permissions)
                if self._seen.add("record", str(each.uri)):
                    found[str(each.uri)] = each
                    continue
                problem = "its record is there twice"
            self.report.invalid.append(f"{line.place}: {problem}")
        return found

    def _again(self, head: Head, page: list[Line]) -> dict[str, Imported]:
        """The records of a page by URI, after everything was checked.

        :raises CommandError: the export has changed since then.
        """
        found = {}
        for line in page:
            if line.record is None:
                raise CommandError(f"{line.place}: {line.problem}")
            each = imported(head.collection.uri, line.record, permissions=self._permissions)
            found[str(each.uri)] = each
        return found

    def _check(
        self,
        head: Head,
        wanted: Imported,
        old: KintoObject | None,
        permissions: Any,
        parents: Parents,
    ) -> None:
        report = self.report
        if old is not None and wanted.is_same(old, permissions):
            report.same += 1
            return
        refusal = self._checks.refusal(wanted, old, parents)
        if refusal is not None:
            report.refused.append(refusal)
            return
        if wanted.file is not None and not wanted.has_file_of(old):
            problem = self._problem_of_file(head, wanted)
            if problem:
                report.invalid.append(f"{wanted.uri}: {problem}")
                return
        self._add(CREATED if old is None else REPLACED, wanted, old)

    def _problem_of_file(self, head: Head, wanted: Imported) -> str:
        """The problem of a record's file, if any. Each file is read once."""
        assert wanted.file is not None  # noqa: S101
        known = f"{head.folder} {wanted.file.size} {wanted.file.hash} {wanted.file.original}"
        problem = self._seen.value("verified", known)
        if problem is None:
            problem = self._reader.problem_of(head, wanted.file)
            self._seen.add("verified", known, problem)
        return problem

    def _create(self, exported: ExportedCollection) -> None:
        """Create the bucket and the collection. A lock in the export is set at the end."""
        uri, registry = exported.uri, self._registry
        bucket, collection = exported.bucket, exported.collection
        granted = bucket.permissions if self._permissions else None
        create_parent(registry, "bucket", uri.bucket, bucket.data, granted)
        granted = collection.permissions if self._permissions else None
        data = _unlocked(collection.data)
        created = create_parent(registry, "collection", str(uri), data, granted)
        self.report.collections += created

    def _write(
        self, head: Head, wanted: Imported, old: KintoObject | None, permissions: Any
    ) -> bool:
        """Write a record; False if the target refuses it, although it was checked."""
        if old is not None and wanted.is_same(old, permissions):
            self._add(SAME, wanted, old)
            return True
        try:
            outcome = self._bring(head, wanted, old)
        except Differs:
            self.report.refused.append(RecordFinding(record=str(wanted.uri), reason=EXISTS))
            return False
        except StorageError:
            raise
        except (AttachmentError, HTTPException) as error:
            self.report.refused.append(finding_of(wanted, error))
            return False
        self._add(outcome, wanted, old)
        return True

    def _bring(self, head: Head, wanted: Imported, old: KintoObject | None) -> str:
        like, open_file = None, None
        if wanted.file is not None:
            like = self._seen.value("brought", identity(wanted.file))
            open_file = partial(self._reader.open, head, wanted.file)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return imports.bring(self._registry, wanted, old, self._terms, open_file, like)
            except AttachmentGone:  # The file to share, or the record as it was read.
                if attempt == ATTEMPTS:
                    raise
                like = None
                page = {str(wanted.uri): wanted}
                stored = stored_records(self._registry, page, permissions=False)
                old = stored[str(wanted.uri)][0]
        raise AssertionError("unreachable")

    def _add(self, outcome: str, wanted: Imported, old: KintoObject | None) -> None:
        setattr(self.report, outcome, getattr(self.report, outcome) + 1)
        if wanted.file is None:
            return
        self._seen.add("brought", identity(wanted.file), str(wanted.uri))
        # A record to create may have had this file when it was read, and was deleted since.
        if outcome == CREATED or (outcome == REPLACED and not wanted.has_file_of(old)):
            self.report.files += 1
            self.report.bytes += wanted.file.size

    def _count(self, step: str, more: int) -> None:
        self._done += more
        self._progress(step, self._done)


def _has_data(exported: ExportedCollection, parents: Parents) -> bool:
    return same_json(_plain(parents.collection), _plain(exported.collection.data))


def _plain(collection: KintoObject) -> KintoObject:
    return {name: value for name, value in collection.items() if name != "last_modified"}


def _unlocked(collection: KintoObject) -> KintoObject:
    """The data of a collection without its lock, which would refuse the import."""
    if not locks.is_locked_by_data(collection):
        return collection
    own = {name: value for name, value in collection[FIELD].items() if name != "locked"}
    rest = {name: value for name, value in collection.items() if name != FIELD}
    return {**rest, FIELD: own} if own else rest


def _is_to_be_locked(exported: ExportedCollection, parents: Parents) -> bool:
    """Whether the collection differs from that in the export only by the missing lock."""
    data = exported.collection.data
    if not locks.is_locked_by_data(data) or not parents.exists:
        return False
    return same_json(_plain(parents.collection), _plain(_unlocked(data)))
