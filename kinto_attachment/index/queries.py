"""Queries of the index: the files of a record, and the records of a file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator

from kinto.core.storage import Filter, Sort
from kinto.core.utils import COMPARISON

from kinto_attachment.index.link import Link
from kinto_attachment.index.lives import current_life
from kinto_attachment.index.objects import BATCH, Objects, batches, digest_of
from kinto_attachment.kinto_types import KintoObject, StorageBackend

DIGEST_LENGTH = 64
DIGITS = "0123456789abcdef"
PARTS = len(DIGITS)
FEW_RECORDS = 50  # Up to this many are looked up one by one.
ANY = "attachments:*"


def in_storage_filter(storage: str) -> Filter:
    """The filter for rows about files of a storage. Rows of the default storage do not name it."""
    if storage:
        return Filter("storage", storage, COMPARISON.EQ)
    return Filter("storage", False, COMPARISON.HAS)


class LinkQueries:
    """The queries of :class:`Links`, in the caller's transaction."""

    def __init__(self, backend: StorageBackend, page_size: int) -> None:
        self.page_size = page_size  # Kinto's ``storage_max_fetch_size``.
        self._rows = Objects(backend, "attachment")

    def of_record(self, record: str) -> list[Link]:
        """The links of a record, in any state."""
        parent = f"attachments:{record}"
        rows = self._rows.list(parent)
        if len(rows) >= self.page_size:  # There may be more than Kinto's storage returns at once.
            rows = self._all_rows(parent)
        return [Link.load(row) for row in rows]

    def _all_rows(self, parent: str) -> list[KintoObject]:
        rows, last = [], ""
        sorting, size = [Sort("id", 1)], self.page_size
        while page := self._rows.list(
            parent, Filter("id", last, COMPARISON.GT), sorting=sorting, limit=size
        ):
            rows += page
            last = page[-1]["id"]
        return rows

    def of_records(self, collection: str, ids: list[str]) -> list[Link]:
        """The links of several records; ``collection`` is a URI."""
        records = [f"{collection}/records/{object_id}" for object_id in ids]
        if len(records) <= FEW_RECORDS:
            return [link for record in records for link in self.of_record(record)]
        rows = []
        for batch in batches(records):
            rows += self._rows.list_below(
                f"attachments:{collection}/records/", Filter("record", batch, COMPARISON.IN)
            )
        return [Link.load(row) for row in rows]

    def is_of_earlier_life(self, link: Link) -> bool:
        """Whether a file was kept before the record was deleted and created again.

        For links of earlier releases, this is found by comparison with other links.
        """
        if link.ended or link.life or link.state != "kept":
            return bool(link.ended)
        return bool(current_life(self.of_record(link.record)))

    def of_key(self, key: str) -> list[Link]:
        """The links of a file."""
        digest = digest_of(key)
        rows = self._rows.list(ANY, Filter("id", [digest, f"{digest}-shared"], COMPARISON.IN))
        return [link for link in map(Link.load, rows) if link.key == key]

    def exist(self) -> bool:
        """Whether there are any links."""
        return bool(self._rows.list(ANY, limit=1))

    def are_in(self, storage: str) -> bool:
        """Whether there are links to files of a storage."""
        return bool(self.some_in(storage, 1))

    def some_in(self, storage: str, limit: int) -> list[Link]:
        """Some of the links to files of a storage."""
        rows = self._rows.list(ANY, in_storage_filter(storage), limit=limit)
        return [Link.load(row) for row in rows]

    def count(self) -> int:
        """The number of all links."""
        return self._rows.count(ANY)

    def of_keys(self, keys: Iterable[str]) -> dict[str, list[Link]]:
        """The links of several files, but not all of a file that thousands of records share."""
        found: dict[str, list[Link]] = defaultdict(list)
        for batch in batches(digest_of(key) for key in keys):
            both = {*batch, *(f"{digest}-shared" for digest in batch)}
            for row in self._rows.list(ANY, Filter("id", both, COMPARISON.IN)):
                found[row["key"]].append(Link.load(row))
        return found

    def under(self, prefix: str = "", within: str = "") -> Iterator[list[Link]]:
        """All links of records whose URI starts with ``prefix``, page by page.

        Kinto's storage returns a limited number of objects. A full page is queried again in
        sixteen parts, by the next hexadecimal digit of the ids. So links may be dropped during the
        iteration. ``within`` are the first digits of the ids, to get a part of the links.
        """
        yield from self._under(prefix, within, len(within))

    def _under(self, prefix: str, within: str, digits: int) -> Generator[list[Link], None, int]:
        """Query the parts whose ids begin with ``within``, divided by ``digits`` digits or more.

        The ids are hashes: if a part is too large for a page, its neighbours are too.

        :returns: the number of digits with which to query the next part.
        """
        if len(within) >= digits:
            rows = self._rows.list_below(
                f"attachments:{prefix}",
                Filter("id", within, COMPARISON.MIN),
                Filter("id", f"{within}g", COMPARISON.LT),
            )
            if len(rows) < self.page_size:
                if rows:
                    # Backends of other packages may take the ``_`` of an id for any character.
                    links = map(Link.load, rows)
                    yield [link for link in links if link.record.startswith(prefix)]
                would_fit_above = len(rows) * PARTS < self.page_size
                return len(within) - would_fit_above
            if len(within) == DIGEST_LENGTH:
                yield from self._under_of_one_file(prefix, within)
                return digits
            del rows
        for digit in DIGITS:
            # Only one level down: a part with a file of many records has small neighbours.
            digits = min(digits, len(within) + 2)
            digits = yield from self._under(prefix, within + digit, digits)
        return digits

    def kept_below(self, prefix: str, after: tuple[str, str] | None, limit: int) -> list[Link]:
        """Kept files of records whose URI starts with ``prefix``, by their links' ids and records.

        ``after`` are the id and the record of the link before the page.
        Those of an earlier life of the collection or bucket are left out. Backends of other
        packages may add links of other collections, if they take ``_`` for any character.
        """
        rules = (
            []
            if after is None
            else [
                [Filter("id", after[0], COMPARISON.GT)],
                [
                    Filter("id", after[0], COMPARISON.EQ),
                    Filter("record", after[1], COMPARISON.GT),
                ],
            ]
        )
        rows = self._rows.list_below(
            f"attachments:{prefix}",
            Filter("state", "kept", COMPARISON.EQ),
            Filter("ended", "collection", COMPARISON.NOT),
            sorting=[Sort("id", 1), Sort("record", 1)],
            pagination_rules=rules,
            limit=limit,
        )
        return [Link.load(row) for row in rows]

    def held_below(self, prefix: str, now: int) -> list[Link]:
        """Links with a valid hold, of records whose URI starts with ``prefix``."""
        has = Filter("hold", True, COMPARISON.HAS)
        rows = []
        for stands in (
            Filter("hold.until", now, COMPARISON.GT),
            Filter("hold.is_open", True, COMPARISON.EQ),
        ):
            rows += self._rows.list_below(f"attachments:{prefix}", has, stands)
        # Backends of other packages may take the ``_`` of an id for any character.
        links = map(Link.load, rows)
        return [each for each in links if each.record.startswith(prefix) and not each.ended]

    def _under_of_one_file(self, prefix: str, digest: str) -> Iterator[list[Link]]:
        """The same for a single file that has more links than a page holds."""
        last = ""
        while rows := self._rows.list_below(
            f"attachments:{prefix}",
            Filter("id", [digest, f"{digest}-shared"], COMPARISON.IN),
            Filter("record", last, COMPARISON.GT),
            sorting=[Sort("record", 1)],
            limit=self.page_size,
        ):
            last = rows[-1]["record"]
            yield [link for link in map(Link.load, rows) if link.record.startswith(prefix)]

    def linked_records(self, keys: Iterable[str]) -> set[str]:
        """The records that have one of these files as their current one."""
        linked: set[str] = set()
        for batch in batches({digest_of(key) for key in keys}, BATCH // 2):
            both = [*batch, *(f"{digest}-shared" for digest in batch)]
            rows = self._rows.list(ANY, Filter("id", both, COMPARISON.IN))
            linked.update(row["record"] for row in rows if row["state"] == "current")
        return linked

    def without_links(self, keys: list[str]) -> set[str]:
        """The keys among ``keys`` that have no link."""
        return set(keys) - self.of_keys(keys).keys()
