"""relocate: writes the locations that follow from the current configuration into the records.

Each page of records is read with its links. The records that need another location are locked,
checked once more against the index, and written, several in each transaction. Records that another
request is writing come last, one by one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial

import transaction
from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON, msec_time
from pyramid.httpexceptions import HTTPException

from kinto_attachment.errors import AttachmentError, AttachmentGone, StorageError
from kinto_attachment.files.command_writes import update, writing
from kinto_attachment.files.locations import location_of
from kinto_attachment.files.repeating import repeated
from kinto_attachment.index.bulk import BulkLinks
from kinto_attachment.index.bundles import Bundles
from kinto_attachment.index.link import Link
from kinto_attachment.index.objects import batches
from kinto_attachment.index.open_transactions import OpenTransactions
from kinto_attachment.index.quiet_writes import can_write_quietly, write_locations
from kinto_attachment.kinto_types import KintoObject, Registry
from kinto_attachment.maintenance import records
from kinto_attachment.maintenance.application import CommandError, first_line
from kinto_attachment.maintenance.digests import Digests
from kinto_attachment.maintenance.reports import Progress, Report, no_progress
from kinto_attachment.maintenance.selection import EVERYTHING, Selection
from kinto_attachment.maintenance.server_address import request_at_server
from kinto_attachment.metadata import FIELD
from kinto_attachment.uris import CollectionURI, RecordURI

logger = logging.getLogger(__name__)

# Records in a transaction: others who write them wait for its end. Kinto takes milliseconds for
# each, one statement writes many.
AT_ONCE = 50
QUIETLY_AT_ONCE = 200
# Milliseconds by which the clocks of the database and the command may differ.
MARGIN = 300_000
MAX_WAIT = 60.0  # Seconds.
NOT_POSTGRESQL = "--quiet-writes needs records in PostgreSQL"
NO_LINK = "no link to a file; run reindex, or adopt if it is of another release"
NOT_ENDED = (
    "A transaction of the database does not end. If it writes a record with its former location, "
    "another run finds that."
)
OTHER_FILE = "its attachment is not its file: another hash or size"


class State(Enum):
    """The states of a record."""

    RIGHT = auto()
    WRONG = auto()  # Its file has another location.
    PROBLEM = auto()  # Its location cannot be determined.
    ELSEWHERE = auto()  # Its file is in a storage that is not configured.
    LEFT_OUT = auto()  # Its file is in another storage than the selected one.
    REFUSED = auto()  # Another plugin refused the write.
    GONE = auto()  # The record or its attachment was deleted.


@dataclass(frozen=True)
class Judged:
    """The state of a record; ``text`` is its location, a problem, or the name of a storage."""

    state: State
    text: str = ""
    key: str = ""


@dataclass
class RelocateReport(Report):
    """``records`` is the number of checked records with an attachment."""

    records: int = 0
    right: int = 0
    relocated: int = 0
    unlinked: list[str] = field(default_factory=list)  # URIs of records, each with the reason.
    refused: list[str] = field(default_factory=list)  # By other plugins, each with the reason.
    # Records whose files are in storages that are not configured.
    elsewhere: dict[str, int] = field(default_factory=dict)

    def count(self, uri: str, judged: Judged) -> None:
        match judged.state:
            case State.RIGHT:
                self.right += 1
            case State.WRONG:
                self.relocated += 1
            case State.PROBLEM:
                self.unlinked.append(f"{uri}: {judged.text}")
            case State.REFUSED:
                self.refused.append(f"{uri}: {judged.text}")
            case State.ELSEWHERE:
                self.elsewhere[judged.text] = self.elsewhere.get(judged.text, 0) + 1


def relocate(
    registry: Registry,
    selection: Selection = EVERYTHING,
    *,
    server: str | None = None,
    quietly: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> RelocateReport:
    """Write the current locations of their files into the selected records.

    ``server`` is the server's URL. ``quietly`` changes no timestamps, and notifies nobody.

    :raises CommandError: the server's address is not known, or the database does not support
        ``quietly``.
    :raises NotThisSite: a storage belongs to another database; nothing was done.
    """
    return _Relocation(registry, selection, server, quietly, dry_run).run(progress)


class _Relocation:
    def __init__(
        self,
        registry: Registry,
        selection: Selection,
        server: str | None,
        quietly: bool,
        dry_run: bool,
    ) -> None:
        if quietly and not can_write_quietly(registry.storage):
            raise CommandError(NOT_POSTGRESQL)
        storages = registry.attachment_storages
        chosen = storages if selection.storage is None else [storages[selection.storage]]
        self.request = request_at_server(registry, server, chosen)
        self.registry = registry
        self.selection = selection
        self.quietly = quietly
        self.dry_run = dry_run
        self.bulk = BulkLinks(registry.storage, registry.attachment_links)
        self.report = RelocateReport()
        # Records that were counted: in the first pass, and those that only the second one found.
        self.noted, self.new = Digests(), set[str]()
        self.is_second_look = False

    def run(self, progress: Progress) -> RelocateReport:
        if not self.registry.attachment_site.is_in_memory:
            self.registry.attachment_site.check_not_of_others()
        total = records.count_with_attachment(self.registry)
        started = msec_time()
        # Requests may write records that they have read before, with the former location. So
        # records that were written since are checked again when these requests have ended.
        steps = (
            Filter("last_modified", started, COMPARISON.LT),
            Filter("last_modified", started - MARGIN, COMPARISON.MIN),
        )
        for recent in steps:
            for page in self.pages(recent):
                self.process(page)
                progress("records checked", self.report.records, total)
            if not self.is_second_look:
                self.wait_for_requests()
            self.is_second_look = True
        return self.report

    def wait_for_requests(self) -> None:
        if not self.dry_run and not OpenTransactions(self.registry.storage).wait(MAX_WAIT):
            logger.warning("%s", NOT_ENDED)

    def pages(self, which: Filter) -> Iterator[dict[str, KintoObject]]:
        """Records of one collection with an attachment, by their URIs."""
        for collection in records.collections(self.registry):
            if not self.selection.has_collection(collection):
                continue
            for rows in records.with_attachment(self.registry, collection, which):
                page = {f"{collection.records}{row['id']}": row for row in rows}
                yield {uri: page[uri] for uri in page if self.selection.shard.has(uri)}

    def process(self, page: Mapping[str, KintoObject]) -> None:
        with transaction.manager:
            links = self.bulk.of_records(page)
        todo = []
        for uri, record in page.items():
            judged = self.judge(record, links[uri])
            if judged.state in (State.RIGHT, State.LEFT_OUT):
                self.note(uri, judged)
            else:
                todo.append(uri)
        for uris in batches(todo, QUIETLY_AT_ONCE if self.quietly else AT_ONCE):
            self.relocate(uris)

    def note(self, uri: str, judged: Judged) -> None:
        if self.is_second_look:
            if uri in self.noted or uri in self.new:
                return
            self.new.add(uri)
        else:
            self.noted.add(uri)
        self.report.records += judged.state not in (State.GONE, State.LEFT_OUT)
        self.report.count(uri, judged)

    def relocate(self, uris: Sequence[str]) -> None:
        """Write the records that nobody else is writing, then the others."""
        try:
            done = self.repeated(uris, wait=False)
        except (HTTPException, AttachmentError):
            done = {}  # Statements for one record, which has to be found.
        for uri in uris:
            self.note(uri, done.get(uri) or self.alone(uri))

    def alone(self, uri: str) -> Judged:
        try:
            return self.repeated([uri], wait=True).get(uri, Judged(State.GONE))
        except StorageError:
            raise
        except (HTTPException, AttachmentError) as error:
            return Judged(State.REFUSED, first_line(error))

    def repeated(self, uris: Sequence[str], *, wait: bool) -> dict[str, Judged]:
        """Write records, repeating this after conflicts with other transactions."""
        return repeated(partial(self.write, uris, wait=wait), AttachmentGone)

    def write(self, uris: Sequence[str], *, wait: bool) -> dict[str, Judged]:
        """Lock and write records in one transaction; returns their states."""
        if self.quietly or self.dry_run:
            with transaction.manager:
                found, judged = self.locked(uris, wait=wait)
                if not self.dry_run:
                    self.write_quietly(judged)
            return judged
        with writing(self.registry, RecordURI.parse(uris[0])) as request:
            found, judged = self.locked(uris, wait=wait)
            for uri, each in judged.items():
                if each.state is State.WRONG:
                    old = found[uri]
                    new = {**old, FIELD: {**old[FIELD], "location": each.text}}
                    update(request, old, new, key=each.key)
        return judged

    def write_quietly(self, judged: Mapping[str, Judged]) -> None:
        wrong = {uri: each for uri, each in judged.items() if each.state is State.WRONG}
        if wrong:
            locations = {RecordURI.parse(uri): each.text for uri, each in wrong.items()}
            write_locations(self.registry.storage, locations)
            for collection in {
                CollectionURI(uri.bucket_id, uri.collection_id) for uri in locations
            }:
                Bundles(self.registry.storage, self.registry.attachment_links).spoil(collection)

    def locked(
        self, uris: Iterable[str], *, wait: bool
    ) -> tuple[dict[str, KintoObject], dict[str, Judged]]:
        found = self.bulk.locked_records(uris, wait=wait, to_write=True)
        links = self.bulk.of_records(found)
        return found, {uri: self.judge(found[uri], links[uri]) for uri in found}

    def judge(self, record: KintoObject, links: Iterable[Link]) -> Judged:
        attachment = record.get(FIELD)
        if attachment is None:
            return Judged(State.GONE)
        current = [link for link in links if link.is_current]
        link = next((each for each in current if each.describes(attachment)), None)
        selected = self.selection.storage
        if selected is not None and (link is None or link.storage != selected):
            return Judged(State.LEFT_OUT)
        if link is None:
            return Judged(State.PROBLEM, OTHER_FILE if current else NO_LINK)
        storage = self.registry.attachment_storages.get(link.storage)
        if storage is None:
            return Judged(State.ELSEWHERE, link.storage)
        location = location_of(self.request, storage, link.key)
        state = State.RIGHT if attachment.get("location") == location else State.WRONG
        return Judged(state, location, link.key)
