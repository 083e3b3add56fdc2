"""The files of a collection: Kinto's records, newest first, with the data of the index.

Kinto has a database index for this order, so each page costs the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kinto.core.storage import Filter, Sort
from kinto.core.utils import COMPARISON, msec_time

from kinto_attachment.files.list_queries import ListQuery, refuse
from kinto_attachment.files.locations import location_of
from kinto_attachment.files.signed_links import Linker
from kinto_attachment.index.bulk import BulkLinks
from kinto_attachment.index.link import Link
from kinto_attachment.index.list_rows import ListRow, has_list_rows, list_rows
from kinto_attachment.index.totals import Totals, totals_of
from kinto_attachment.kinto_types import KintoObject, Registry, Request
from kinto_attachment.metadata import DESCRIBED, FIELD
from kinto_attachment.uris import CollectionURI

NEWEST_FIRST = [Sort("last_modified", -1)]
TIMESTAMP = re.compile(r"\d{1,14}", re.ASCII)
LINK_AND_RECORD = re.compile(r"([0-9a-f]{64}(?:-shared)?)~([\w.-]{1,255})", re.ASCII)


@dataclass(frozen=True)
class Current:
    """A record with a file and its link; None if the record is older than the index."""

    uri: str
    record: KintoObject
    link: Link | None

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The attachment object. That of the index may be newer than that of the record."""
        written: Mapping[str, Any] = self.record[FIELD]
        return self.link.attachment if self.link and self.is_outdated else written

    @property
    def is_outdated(self) -> bool:
        return self.link is not None and not self.link.describes(self.record[FIELD])


@dataclass(frozen=True)
class Page:
    """``items`` are JSON; ``next`` is the token of the next page, empty on the last one."""

    items: list[str]
    next: str = ""


def page_of(
    request: Request, collection: CollectionURI, query: ListQuery, linker: Linker | None = None
) -> Page:
    """One page of a collection's current or kept files, with links to them if there is a linker.

    :raises HTTPBadRequest: the token is invalid.
    """
    listed = _kept_files if query.kept else _current_files
    return listed(request, collection, query, linker)


def totals(registry: Registry, collection: CollectionURI, query: ListQuery) -> Totals:
    """The number of files on all pages, and their bytes."""
    if not query.kept:
        return totals_of(registry.storage, str(collection), query.filters)
    found, after = Totals(), None
    links = registry.attachment_links
    while page := links.kept_below(collection.records, after, links.page_size):
        for link in (link for link in page if _is_listed(registry, collection, link)):
            found += Totals(1, link.size)
        after = page[-1].id, page[-1].record
    return found


def records_of(
    registry: Registry,
    collection: CollectionURI,
    filters: Iterable[Filter],
    limit: int,
    before: int | None = None,
) -> tuple[list[Current], int | None]:
    """A page of records with their files, the newest first, in the caller's transaction.

    Attachments that are not objects, which faulty code may have written, are left out.

    :returns: also the timestamp ``before`` which the next page starts; None on the last page.
    """
    rows = registry.storage.list_all(
        resource_name="record",
        parent_id=str(collection),
        filters=list(filters),
        sorting=NEWEST_FIRST,
        pagination_rules=_up_to(before),
        limit=limit + 1,  # The additional record shows whether there is another page.
    )
    shown = rows[:limit]
    more = shown[-1]["last_modified"] if len(rows) > limit else None
    return [*_with_links(registry, collection, shown)], more


def _up_to(before: int | None) -> list[list[Filter]]:
    return [] if before is None else [[Filter("last_modified", before, COMPARISON.LT)]]


def _with_links(
    registry: Registry, collection: CollectionURI, rows: list[KintoObject]
) -> Iterator[Current]:
    records = {f"{collection.records}{row['id']}": row for row in rows}
    links = BulkLinks(registry.storage, registry.attachment_links).of_records(records)
    for uri, record in records.items():
        if isinstance(record.get(FIELD), dict):
            current = (link for link in links[uri] if link.is_current)
            yield Current(uri, record, next(current, None))


def _current_files(
    request: Request, collection: CollectionURI, query: ListQuery, linker: Linker | None
) -> Page:
    before = None
    if query.token:
        if not TIMESTAMP.fullmatch(query.token):
            refuse(request, "_token", "_token has invalid content")
        before = int(query.token)
    if has_list_rows(request.registry.storage):
        return _page_of_rows(request, collection, query, linker, before)
    found, more = records_of(request.registry, collection, query.filters, query.limit, before)
    return Page([_written(request, each, linker) for each in found], str(more or ""))


def _page_of_rows(
    request: Request,
    collection: CollectionURI,
    query: ListQuery,
    linker: Linker | None,
    before: int | None,
) -> Page:
    """The same page in one statement. The database writes most of the JSON."""
    rows = list_rows(
        request.registry.storage,
        str(collection),
        query.filters,
        _up_to(before),
        query.limit + 1,
        items=linker is None,
    )
    shown = rows[: query.limit]
    more = str(shown[-1].last_modified) if len(rows) > query.limit else ""
    items = []
    for row in shown:
        if row.item is not None:
            items.append(row.item)
        elif isinstance(row.attachment, dict):
            items.append(_written(request, _current_of(collection, row), linker))
    return Page(items, more)


def _current_of(collection: CollectionURI, row: ListRow) -> Current:
    record = {"id": row.id, "last_modified": row.last_modified, FIELD: row.attachment}
    return Current(f"{collection.records}{row.id}", record, row.link)


def _written(request: Request, current: Current, linker: Linker | None) -> str:
    return json.dumps(item_of(request, current) | _urls(linker, current.link))


def _urls(linker: Linker | None, link: Link | None) -> dict[str, Any]:
    return linker.members(link) if linker else {}


def item_of(request: Request, current: Current) -> dict[str, Any]:
    """A current file as an item of a listing."""
    link, metadata = current.link, current.metadata
    location = metadata.get("location")
    if location is None and link is not None:
        storage = request.registry.attachment_storages.get(link.storage)
        location = location_of(request, storage, link.key) if storage else None
    return {
        "record": current.uri,
        "id": current.record["id"],
        "last_modified": current.record["last_modified"],
        **described(metadata),
        "location": location,
        "key": link.key if link else None,
        "created": (link.created or None) if link else None,
        "state": "current",
    }


def described(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The members of an attachment object, without those that other code has added."""
    known = {name: metadata.get(name) for name in DESCRIBED}
    optional = {name: metadata.get(name) for name in ("encoding", "original")}
    return known | {name: value for name, value in optional.items() if value}


def _kept_files(
    request: Request, collection: CollectionURI, query: ListQuery, linker: Linker | None
) -> Page:
    registry = request.registry
    after = _place_of(request, collection, query.token) if query.token else None
    found = registry.attachment_links.kept_below(collection.records, after, query.limit + 1)
    shown = found[: query.limit]
    more = f"{shown[-1].id}~{_id_of(shown[-1])}" if len(found) > query.limit else ""
    listed = [link for link in shown if _is_listed(registry, collection, link)]
    items = [_kept_item(request, link) | _urls(linker, link) for link in listed]
    return Page([*map(json.dumps, items)], more)


def _place_of(request: Request, collection: CollectionURI, token: str) -> tuple[str, str]:
    """The id and the record of the link that a page of kept files follows."""
    match = LINK_AND_RECORD.fullmatch(token)
    if match is None:
        refuse(request, "_token", "_token has invalid content")
    return match[1], f"{collection.records}{match[2]}"


def _is_listed(registry: Registry, collection: CollectionURI, link: Link) -> bool:
    """Whether a kept file belongs to this life of the collection."""
    if not link.record.startswith(collection.records):
        return False  # Backends of other packages may take ``_`` for any character.
    if link.ended:
        return link.ended == "record"
    return not registry.attachment_links.is_of_earlier_life(link)


def _kept_item(request: Request, link: Link) -> dict[str, Any]:
    storage = request.registry.attachment_storages.get(link.storage)
    readable = storage is not None and link.is_readable(msec_time())
    return {
        "record": link.record,
        "id": _id_of(link),
        **described(link.attachment),
        "location": location_of(request, storage, link.key) if storage and readable else None,
        "key": link.key,
        "created": link.created or None,
        "state": link.state,
    }


def _id_of(link: Link) -> str:
    return link.record.rpartition("/")[2]
