"""adopt --manifest: registers objects that other programs have stored, as files of records.

A line of the manifest is a JSON object: ``record`` (its URI), ``key``, ``size``, ``hash``, and
optionally ``filename``, ``mimetype``, ``storage`` (its name), and ``readonly`` for an object that
is never to be deleted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import transaction

from kinto_attachment import names
from kinto_attachment.errors import FileNotFound, InvalidForm, InvalidKey
from kinto_attachment.index.bulk import BulkLinks
from kinto_attachment.index.objects import batches
from kinto_attachment.kinto_types import KintoObject, Registry
from kinto_attachment.maintenance import records
from kinto_attachment.maintenance.linking import MISSING, Candidate, Placed, Placer
from kinto_attachment.maintenance.reports import Progress, Report, no_progress
from kinto_attachment.metadata import FIELD
from kinto_attachment.parsers import DEFAULT_STORAGE
from kinto_attachment.uris import RecordURI

KINDS = {str: "text", int: "number", bool: "boolean (true or false)"}
FIELDS: dict[str, type] = {
    **dict.fromkeys(("record", "key", "hash", "filename", "mimetype", "storage"), str),
    "size": int,
    "readonly": bool,
}
# RFC 6838 4.2, with parameters.
MIMETYPE = re.compile(r"[\w!#$&^.+-]{1,127}/[\w!#$&^.+-]{1,127}( *;[\x20-\x7e]{1,255})?", re.ASCII)

NO_RECORD = "there is no such record"
OTHER = "its attachment is not of this size and hash"
OTHER_FILE = "its file is {} already"
TWICE = "it is in the manifest before, with another object"
NO_ADDRESS = "its location needs kinto.attachment.base_url or kinto.http_host"


@dataclass(frozen=True)
class Entry:
    record: str
    key: str
    size: int
    hash: str
    filename: str
    mimetype: str
    storage: str
    readonly: bool

    @classmethod
    def parse(cls, line: str) -> Entry:
        """:raises ValueError: the line does not describe an object; the message says why."""
        try:
            row = json.loads(line)
        except RecursionError as error:
            raise ValueError("is nested too deeply") from error
        if not isinstance(row, dict):
            raise ValueError("should be a JSON object")
        # With a misspelt `readonly`, the object would be deleted one day.
        if unknown := sorted(row.keys() - FIELDS.keys()):
            raise ValueError(f"has unknown fields: {', '.join(unknown)}")
        for name, kind in FIELDS.items():
            if name in row and type(row[name]) is not kind:
                raise ValueError(f"`{name}` should be a {KINDS[kind]}")
        key = _key(row.get("key", ""))
        uri = str(RecordURI.parse(_text(row.get("record", ""))))
        size, digest = row.get("size", -1), row.get("hash", "")
        if size < 0 or not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError("`size` should be in bytes, and `hash` a SHA-256 in hex")
        filename = _filename(row.get("filename") or names.printable(key.rpartition("/")[2]))
        mimetype = row.get("mimetype") or names.mimetype(filename, None, {})
        if not MIMETYPE.fullmatch(mimetype):
            raise ValueError("`mimetype` should be a media type, such as text/plain")
        storage = row.get("storage", DEFAULT_STORAGE)
        storage = "" if storage == DEFAULT_STORAGE else storage
        return cls(uri, key, size, digest, filename, mimetype, storage, row.get("readonly", False))


def _key(text: str) -> str:
    try:
        return names.check_key(text)
    except InvalidKey as error:
        raise ValueError("`key` should be an object key") from error


def _text(text: str) -> str:
    """:raises ValueError: the database cannot store the text."""
    if names.printable(text) != text:
        raise ValueError("`record` has control characters")
    return text


def _filename(text: str) -> str:
    try:
        clean = names.clean_filename(text)
    except InvalidForm as error:
        raise ValueError("`filename` should be the name of a file") from error
    if clean != text:
        raise ValueError("`filename` should be the name of a file, without folders")
    return text


@dataclass
class ManifestReport(Report):
    """The number of objects that became files of records, and those that did not."""

    objects: int = 0
    linked: int = 0
    unplaced: list[str] = field(default_factory=list)  # URIs of records, each with the reason.

    def count(self, placed: Placed) -> None:
        self.linked += placed.is_new
        if placed.reason:
            self.unplaced.append(f"{placed.record}: {placed.reason}")


def register(
    registry: Registry,
    lines: Iterable[str],
    *,
    verify: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> ManifestReport:
    """Link the records of a manifest to their objects; records without an attachment get one.

    :raises NotThisSite: a storage belongs to another database; nothing was done.
    """
    return _Registration(registry, verify, dry_run, progress).run(lines)


class _Registration:
    def __init__(
        self, registry: Registry, verify: bool, dry_run: bool, progress: Progress
    ) -> None:
        self.registry = registry
        self.bulk = BulkLinks(registry.storage, registry.attachment_links)
        self.verify = verify
        self.dry_run = dry_run
        self.progress = progress
        self.report = ManifestReport()

    def run(self, lines: Iterable[str]) -> ManifestReport:
        self.registry.attachment_site.check_not_of_others()
        for page in batches(self.entries(lines), records.RECORDS_AT_ONCE):
            self.register(self.by_record(page))
            self.progress("objects registered", self.report.objects)
        if not self.dry_run:
            self.registry.attachment_site.claim()
        return self.report

    def entries(self, lines: Iterable[str]) -> Iterator[Entry]:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            self.report.objects += 1
            try:
                entry = Entry.parse(line)
            except ValueError as error:
                self.report.unplaced.append(f"line {number}: {error}")
                continue
            if entry.storage in self.registry.attachment_storages:
                yield entry
            else:
                self.report.unplaced.append(f"line {number}: there is no such storage")

    def by_record(self, page: Iterable[Entry]) -> dict[str, Entry]:
        """If several lines have the same record, the first one counts."""
        found: dict[str, Entry] = {}
        for entry in page:
            if found.setdefault(entry.record, entry) != entry:
                self.report.count(Placed(entry.record, reason=TWICE))
        return found

    def register(self, entries: dict[str, Entry]) -> None:
        with transaction.manager:
            written = records.by_uri(self.registry, entries)
        page: dict[str, KintoObject] = {}
        for uri, record in written.items():
            described = self.described(entries[uri], record)
            if isinstance(described, str):
                self.report.count(Placed(uri, reason=described))
            else:
                page[uri] = described

        def locate(uri: str, record: KintoObject) -> list[Candidate]:
            entry = entries[uri]
            return [Candidate(entry.storage, entry.key, readonly=entry.readonly)]

        with Placer(self.registry, locate, verify=self.verify, dry_run=self.dry_run) as placer:
            for placed in placer.place(page):
                entry = entries[placed.record]
                if placed.key and placed.key != entry.key:
                    placed = Placed(placed.record, reason=OTHER_FILE.format(placed.key))
                self.report.count(placed)
                if entry.readonly and placed.key and not self.dry_run:
                    self.make_readonly(placed.key)

    def described(self, entry: Entry, record: KintoObject | None) -> KintoObject | str:
        """The record with its attachment, written if it was missing, or the reason against it."""
        if record is None:
            return NO_RECORD
        attachment = record.get(FIELD)
        if attachment is None:
            return self.write(entry)
        same = isinstance(attachment, Mapping) and (
            (attachment.get("size"), attachment.get("hash")) == (entry.size, entry.hash)
        )
        return record if same else OTHER

    def write(self, entry: Entry) -> KintoObject | str:
        location = self.location(entry)
        if location is None:
            return NO_ADDRESS
        attachment: dict[str, Any] = {
            "filename": entry.filename,
            "hash": entry.hash,
            "location": location,
            "mimetype": entry.mimetype,
            "size": entry.size,
        }
        try:
            stat = self.registry.attachment_storages[entry.storage].files.stat(entry.key)
        except FileNotFound:
            return MISSING
        if stat.size != entry.size:
            return f"its file {entry.key} has {stat.size} bytes"
        if self.dry_run:
            return {FIELD: attachment}
        uri = RecordURI.parse(entry.record)
        with transaction.manager:
            record = self.bulk.locked_records([entry.record], wait=True).get(entry.record)
            if record is None:
                return NO_RECORD
            if record.get(FIELD) is not None:
                return OTHER
            written = {**record, "id": uri.record_id, FIELD: attachment}
            written.pop("last_modified", None)
            return self.registry.storage.update("record", uri.collection, uri.record_id, written)

    def location(self, entry: Entry) -> str | None:
        base_url = self.registry.attachment_storages[entry.storage].base_url
        if base_url is not None:
            return names.public_url(base_url, entry.key)
        settings = self.registry.attachment_settings
        if settings.http_host is None:
            return None
        server = f"{settings.http_scheme or 'http'}://{settings.http_host}"
        return names.public_url(f"{server}/{self.registry.route_prefix}/attachments/", entry.key)

    def make_readonly(self, key: str) -> None:
        """For links that already existed."""
        with transaction.manager:
            links = self.registry.attachment_links
            if not all(link.readonly for link in links.of_key(key)):
                links.revise(key, lambda link: replace(link, readonly=True))
