"""Linking records to their stored files, page by page, while the server is running.

For each page, the files are searched in the storages, and the links are written in one
transaction, which locks the records. Records that changed in between are skipped, because the
request that changed them has written newer links.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import transaction

from kinto_attachment.errors import AttachmentGone, FileNotFound
from kinto_attachment.files.locations import own_files
from kinto_attachment.index.bulk import BulkLinks
from kinto_attachment.index.link import Link
from kinto_attachment.index.lives import Lives
from kinto_attachment.index.objects import batches
from kinto_attachment.kinto_types import KintoObject, Registry
from kinto_attachment.metadata import FIELD, same_json
from kinto_attachment.storage import CHUNK_SIZE, FileStat

THREADS = 16  # Threads that query a storage. An object store takes milliseconds for each response.

FOREIGN = "its location is under no address of this server"
MISSING = "its file does not exist"
TAKEN = "its file {} is being deleted, or is that of a record with another hash"
NO_HASH = "its attachment has no size or hash"


@dataclass(frozen=True)
class Candidate:
    """A candidate for the file of a record's attachment, and whether it is trusted.

    Otherwise, the content is compared, because anybody may have written the location.
    """

    storage: str
    key: str
    is_trusted: bool = True
    readonly: bool = False


@dataclass(frozen=True)
class Placed:
    """The result for a record: its file, or the reason why there is none."""

    record: str
    key: str = ""
    reason: str = ""
    is_new: bool = False  # Whether the link was written by this call.


Locate = Callable[[str, KintoObject], Sequence[Candidate]]
"""The candidates for the file of a record, from its URI and the record."""


def by_location(registry: Registry) -> Locate:
    """Trust locations that this server generates with its current configuration."""
    settings, prefix = registry.attachment_settings, registry.route_prefix

    def locate(uri: str, record: KintoObject) -> list[Candidate]:
        return [Candidate(*each) for each in own_files(settings, prefix, record[FIELD])]

    return locate


class Placer:
    """Links records to their files.

    With ``verify``, the content of each file is compared with the hash in the record. With
    ``dry_run``, nothing is written.
    """

    def __init__(
        self, registry: Registry, locate: Locate, *, verify: bool = False, dry_run: bool = False
    ) -> None:
        self._registry = registry
        self._links = registry.attachment_links
        self._bulk = BulkLinks(registry.storage, self._links)
        self._locate = locate
        self._verify = verify
        self._dry_run = dry_run
        self._threads = ThreadPoolExecutor(THREADS)

    def __enter__(self) -> Placer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._threads.shutdown()

    def place(self, page: Mapping[str, KintoObject]) -> Iterator[Placed]:
        """Link the records of a page, by URI, that have no link to their current file."""
        with transaction.manager:
            present = self._bulk.of_records(page)
        todo: dict[str, list[Candidate]] = {}
        linked: dict[str, Link] = {}
        for uri, record in page.items():
            own = [link for link in present[uri] if is_of(link, record)]
            if own:
                linked[uri] = own[0]
            elif not is_described(record[FIELD]):
                yield Placed(uri, reason=NO_HASH)
            else:
                todo[uri] = list(dict.fromkeys(self._locate(uri, record)))
        yield from self._checked(linked, page)
        found: dict[str, Link] = {}
        known = self._known_contents(todo, page)
        searched = self._search_all(page, todo, known)
        for uri, result in zip(todo, searched, strict=True):
            if isinstance(result, str):
                yield Placed(uri, reason=result)
            else:
                candidate, stat = result
                found[uri] = _link(uri, page[uri][FIELD], candidate, stat)
                for link in present[uri]:
                    if link.state == "current" and not self._dry_run:
                        self._retire(link, page[uri])
        yield from self._written(found, page)

    def _checked(
        self, linked: Mapping[str, Link], page: Mapping[str, KintoObject]
    ) -> Iterator[Placed]:
        """The result for records that already have their link."""
        for uri, link in linked.items():
            reason = ""
            if self._verify and link.storage in self._registry.attachment_storages:
                file = Candidate(link.storage, link.key)
                found = self._search(page[uri][FIELD], [file], set())
                reason = found if isinstance(found, str) else ""
            yield Placed(uri, link.key, reason)

    def _known_contents(
        self, todo: Mapping[str, Sequence[Candidate]], page: Mapping[str, KintoObject]
    ) -> set[tuple[str, str]]:
        """The pairs of key and hash that the index confirms, among those that need it."""
        keys = {each.key for many in todo.values() for each in many if not each.is_trusted}
        with transaction.manager:
            linked = self._links.of_keys(keys)
        return {(key, link.hash) for key, links in linked.items() for link in links}

    def _search_all(
        self,
        page: Mapping[str, KintoObject],
        todo: Mapping[str, Sequence[Candidate]],
        known: set[Any],
    ) -> Iterator[tuple[Candidate, FileStat] | str]:
        """The results of :meth:`_search` for the records, in their order."""

        def search(uris: list[str]) -> list[tuple[Candidate, FileStat] | str]:
            return [self._search(page[uri][FIELD], todo[uri], known) for uri in uris]

        # One part for each thread: handing over a file takes longer than looking at a local one.
        parts = batches(todo, -(-len(todo) // THREADS) or 1)
        return chain.from_iterable(self._threads.map(search, parts))

    def _search(
        self, attachment: Mapping[str, Any], candidates: Sequence[Candidate], known: set[Any]
    ) -> tuple[Candidate, FileStat] | str:
        """The first candidate that is the attachment's file, or the reason why none is."""
        reason = FOREIGN
        for candidate in candidates:
            files = self._registry.attachment_storages[candidate.storage].files
            try:
                stat = files.stat(candidate.key)
            except FileNotFound:
                reason = MISSING if reason == FOREIGN else reason
                continue
            if stat.size != attachment["size"]:
                reason = f"its file {candidate.key} has {stat.size} bytes"
                continue
            vouched = candidate.is_trusted or (candidate.key, attachment["hash"]) in known
            if self._verify or not vouched:
                digest = sha256_of(self._registry, candidate.storage, candidate.key)
                if digest != attachment["hash"]:
                    reason = f"its file {candidate.key} has another hash"
                    continue
            return candidate, stat
        return reason

    def _written(
        self, found: Mapping[str, Link], page: Mapping[str, KintoObject]
    ) -> Iterator[Placed]:
        if self._dry_run or not found:
            yield from (Placed(uri, link.key, is_new=True) for uri, link in found.items())
            return
        rest = dict(found)
        with transaction.manager:
            links = self._living(found, page)
            for link in self._bulk.add(links) if links else ():
                del rest[link.record]
        yield from (Placed(uri, found[uri].key, is_new=True) for uri in found if uri not in rest)
        # Files of several records, files in the outbox, and records that others are writing.
        for uri in rest:
            placed = self._share(found[uri], page)
            if placed is not None:
                yield placed

    def _living(
        self,
        found: Mapping[str, Link],
        page: Mapping[str, KintoObject],
        *,
        wait: bool = False,
    ) -> list[Link]:
        """The links, with their lives, of records that have not changed since they were read.

        These records stay locked until the commit. Records that have got their link are left out,
        and so are, unless ``wait`` is true, those that another transaction is writing.
        """
        locked = self._bulk.locked_records(found, wait=wait)
        same = [uri for uri in locked if same_json(locked[uri].get(FIELD), page[uri][FIELD])]
        present, lives = self._bulk.of_records(same), Lives()
        return [
            replace(found[uri], life=lives.of(uri, present[uri]))
            for uri in same
            if not any(is_of(link, page[uri]) for link in present[uri])
        ]

    def _retire(self, link: Link, record: KintoObject) -> None:
        """Keep the former file, if it exists, of a record that was changed without this plugin."""
        try:
            self._registry.attachment_storages[link.storage].files.stat(link.key)
            is_there = True
        except FileNotFound:
            is_there = False
        with transaction.manager:
            if not self._living({link.record: link}, {link.record: record}, wait=True):
                return
            present = self._links.of_record(link.record)
            if (link.key, link.storage) not in {(each.key, each.storage) for each in present}:
                return  # The file was moved to another storage in the meantime.
            if is_there or link.hold is not None:
                self._links.retain(link, "kept")
            else:
                self._links.drop([link])

    def _share(self, link: Link, page: Mapping[str, KintoObject]) -> Placed | None:
        """Link one record in a separate transaction; None if the record has changed."""
        with transaction.manager:
            living = self._living({link.record: link}, page, wait=True)
            if not living:
                return None
            try:
                self._links.share(living[0], known_in=[link.storage])
            except AttachmentGone:
                return Placed(link.record, reason=TAKEN.format(link.key))
            self._links.locks.clear(link.key)
            return Placed(link.record, link.key, is_new=True)


def is_of(link: Link, record: KintoObject) -> bool:
    """Whether a link is about a record's attachment."""
    return link.is_current and link.describes(record[FIELD])


def is_described(attachment: object) -> bool:
    """Whether an attachment object has a hash and a size, so that a file can be its file."""
    return (
        isinstance(attachment, Mapping)
        and isinstance(attachment.get("hash"), str)
        and type(attachment.get("size")) is int
    )


def sha256_of(registry: Registry, storage: str, key: str) -> str:
    """:raises FileNotFound: it was deleted in the meantime."""
    digest = hashlib.sha256()
    with closing(registry.attachment_storages[storage].files.open(key)) as reader:
        while chunk := reader.read(CHUNK_SIZE):
            digest.update(chunk)
    return digest.hexdigest()


def milliseconds(stat: FileStat) -> int:
    return int(stat.modified.timestamp() * 1000)


def _link(uri: str, attachment: Mapping[str, Any], file: Candidate, stat: FileStat) -> Link:
    at = milliseconds(stat)
    return Link.to(
        uri,
        file.key,
        attachment,
        storage=file.storage,
        created=at,
        attached=at,
        readonly=file.readonly,
    )
