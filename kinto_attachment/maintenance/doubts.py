"""Reasons against deleting files without a record. gc then only deletes known garbage."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.placing import records_without_link

# More deletions than this look like a mistake if they are more than a tenth of all files.
MANY = 20
SHARE = 10

UNPLACED = (
    "Nothing but known garbage was deleted: {count} records have attachments whose location is "
    "not one of this server (such as {examples}). Set base_url and former_base_urls so that they "
    "are found, and run `kinto-attachment reindex`; if their files are elsewhere, use --really."
)
UNLINKED = (
    "Nothing but known garbage was deleted: {count} records have files that the index does not "
    "know (such as {examples}). Run `kinto-attachment reindex`."
)
TOO_MANY = (
    "Nothing but known garbage was deleted: {count} of {total} files belong to no record, which "
    "may be a mistake. See which with --dry-run; if it is right, use --really."
)


def about_records(registry: Registry, dangling: Collection[str], *, really: bool) -> Iterator[str]:
    """Doubts because of records whose files the index does not know.

    ``dangling`` are keys whose links name other records, which a dry run does not correct.
    """
    foreign: list[str] = []
    unlinked: list[str] = []
    for uri, is_foreign in records_without_link(registry, dangling):
        (foreign if is_foreign else unlinked).append(uri)
    for message, uris in ((UNLINKED, unlinked), (UNPLACED, foreign)):
        if uris and not (really and uris is foreign):
            yield message.format(count=f"{len(uris):,}", examples=", ".join(uris[:3]))


def about_number(due: int, total: int, *, really: bool) -> Iterator[str]:
    """A doubt because of very many deletions."""
    if due > MANY and due * SHARE > total and not really:
        yield TOO_MANY.format(count=f"{due:,}", total=f"{total:,}")
