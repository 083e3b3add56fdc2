"""Writing or deleting the rows of the kinto-attachment on PyPI, for ``adopt``.

That plugin deletes the files in its rows, so rows contain only files of a single record.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import transaction

from kinto_attachment.errors import FileNotFound
from kinto_attachment.index.link import Link
from kinto_attachment.index.objects import batches
from kinto_attachment.index.old_rows import OldRow, OldRows
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance import records
from kinto_attachment.maintenance.digests import Digests
from kinto_attachment.maintenance.linking import is_described
from kinto_attachment.maintenance.old_locations import names_key
from kinto_attachment.maintenance.reports import Progress, Report, no_progress
from kinto_attachment.maintenance.shards import WHOLE
from kinto_attachment.metadata import FIELD

ROWS_AT_ONCE = 500


@dataclass
class BackReport(Report):
    """The rows written for the other release, and the files that it cannot serve or delete."""

    rows: int = 0  # Rows that exist now.
    written: int = 0
    deleted: int = 0
    # URIs of records. The other plugin cannot serve their location, or their file is not in the
    # default storage.
    unreachable: list[str] = field(default_factory=list)
    # Their file is shared or readonly, so the other release must not delete it.
    without_row: list[str] = field(default_factory=list)

    for_information: ClassVar[tuple[str, ...]] = ("without_row",)


@dataclass
class ForgetReport(Report):
    """The number of deleted rows, and the rows that are needed until adopt links their files."""

    deleted: int = 0
    needed: list[str] = field(default_factory=list)


def back(
    registry: Registry, *, dry_run: bool = False, progress: Progress = no_progress
) -> BackReport:
    """Write the rows that the other release would have if it had stored the files.

    The server must not be running, because later changes are missing in the rows.
    """
    report = BackReport()
    known = Digests()  # Of record and key.
    with transaction.manager:
        resource_name = _rows(registry).resource_name()
    for rows in pages_of(registry):
        with transaction.manager:
            right, wrong = _sorted(registry, rows)
            for row in right:
                known.add(f"{row.record} {row.key}")
            for row in wrong if not dry_run else ():
                _rows(registry).delete(row)
        report.rows += len(right)
        report.deleted += len(wrong)
        progress("old rows checked", report.rows + report.deleted)
    for page in WHOLE.pages(registry.attachment_links):
        for batch in batches((link for link in page if link.state == "current"), ROWS_AT_ONCE):
            with transaction.manager:
                for link in _missing_rows(registry, batch, known, report):
                    if not dry_run:
                        _rows(registry).write(link, resource_name)
            progress("links checked", report.rows)
    return report


def forget(
    registry: Registry, *, dry_run: bool = False, progress: Progress = no_progress
) -> ForgetReport:
    """Delete the other release's rows, except those of files without a link."""
    report = ForgetReport()
    for rows in pages_of(registry):
        with transaction.manager:
            linked = registry.attachment_links.of_keys(row.key for row in rows)
        needed = [row for row in rows if row.key not in linked and _exists(registry, row.key)]
        report.needed += [f"{row.record}: {row.key}" for row in needed]
        with transaction.manager:
            for row in rows:
                if row not in needed:
                    report.deleted += 1
                    if not dry_run:
                        _rows(registry).delete(row)
        progress("old rows deleted", report.deleted)
    return report


def pages_of(registry: Registry) -> Iterator[list[OldRow]]:
    """The other release's rows; each page has a separate transaction."""
    pages = _rows(registry).pages(ROWS_AT_ONCE)
    while True:
        with transaction.manager:
            page = next(pages, None)
        if page is None:
            return
        yield page


def _rows(registry: Registry) -> OldRows:
    return OldRows(registry.storage, registry.attachment_links.page_size)


def _sorted(registry: Registry, rows: list[OldRow]) -> tuple[list[OldRow], list[OldRow]]:
    """The correct rows, and those with which the other release would delete a wrong file."""
    linked = registry.attachment_links.of_keys(row.key for row in rows)
    written = records.by_uri(registry, {row.record for row in rows})
    right: list[OldRow] = []
    wrong: list[OldRow] = []
    seen: set[tuple[str, str]] = set()
    for row in rows:
        links = linked.get(row.key, [])
        record = written[row.record] or {}
        if links:
            is_current = links[0].record == row.record and links[0].describes(record.get(FIELD))
            stays = _is_owned(links) and is_current
        else:  # A row of a file that adopt has not linked.
            stays = is_described(record.get(FIELD)) and names_key(record, row.key)
        stays = stays and (row.record, row.key) not in seen
        seen.add((row.record, row.key))
        (right if stays else wrong).append(row)
    return right, wrong


def _is_owned(links: list[Link]) -> bool:
    """Whether the other release may have a row of a file, which it deletes with the record."""
    first = links[0]
    is_sole = len(links) == 1 and first.state == "current"
    return is_sole and not first.readonly and not first.storage


def _missing_rows(
    registry: Registry, links: list[Link], known: Digests, report: BackReport
) -> Iterator[Link]:
    """The current links of files that need a row and have none."""
    written = records.by_uri(registry, {link.record for link in links})
    of_files = registry.attachment_links.of_keys(link.key for link in links)
    for link in links:
        attachment = (written[link.record] or {}).get(FIELD) or {}
        if not link.describes(attachment):  # It was changed without this plugin.
            continue
        if not _is_served(registry, link, attachment.get("location")):
            report.unreachable.append(link.record)
        if not _is_owned(of_files[link.key]):
            report.without_row.append(link.record)
        elif f"{link.record} {link.key}" not in known:
            report.rows += 1
            report.written += 1
            yield link


def _is_served(registry: Registry, link: Link, location: object) -> bool:
    own = f"/{registry.route_prefix}/attachments/{link.key.partition('/')[0]}"
    return isinstance(location, str) and own not in location and not link.storage


def _exists(registry: Registry, key: str) -> bool:
    for storage in registry.attachment_storages:
        try:
            storage.files.stat(key)
        except FileNotFound:
            continue
        return True
    return False
