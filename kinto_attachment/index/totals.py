"""The number of records with a file, and their bytes: one statement on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kinto.core.storage import Filter, Sort
from kinto.core.storage.postgresql import Storage as PostgreSQLStorage
from kinto.core.utils import COMPARISON

from kinto_attachment.index.tested_versions import is_tested
from kinto_attachment.kinto_types import StorageBackend
from kinto_attachment.metadata import FIELD

# Kinto's storage fills in the conditions. Other code may have written a size that is not a number.
SUM = f"""
    SELECT COUNT(*) AS files,
           COALESCE(SUM(CASE WHEN jsonb_typeof(data->'{FIELD}'->'size') = 'number'
                             THEN CAST(data->'{FIELD}'->>'size' AS NUMERIC) END), 0) AS bytes
      FROM objects
     WHERE {{parent_id_filter}}
       AND resource_name = :resource_name
       {{conditions_deleted}}
       {{conditions_filter}}
"""  # noqa: S608 - FIELD is a constant.
PAGE = 1000


@dataclass(frozen=True)
class Totals:
    files: int = 0
    bytes: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(self.files + other.files, self.bytes + other.bytes)

    def __sub__(self, other: Totals) -> Totals:
        return Totals(self.files - other.files, self.bytes - other.bytes)

    def __bool__(self) -> bool:
        return bool(self.files or self.bytes)


def totals_of(storage: StorageBackend, collection: str, filters: Iterable[Filter]) -> Totals:
    """The totals of those records of a collection that filters select."""
    if is_tested() and isinstance(storage, PostgreSQLStorage):
        backend: Any = storage
        (row,) = backend._get_rows(SUM, "record", collection, filters=list(filters))
        return Totals(int(row.files), int(row.bytes))
    return _by_pages(storage, collection, list(filters))


def _by_pages(storage: StorageBackend, collection: str, filters: list[Filter]) -> Totals:
    found, rules = Totals(), list[list[Filter]]()
    while True:
        rows = storage.list_all(
            resource_name="record",
            parent_id=collection,
            filters=filters,
            sorting=[Sort("last_modified", -1)],
            pagination_rules=rules,
            limit=PAGE,
        )
        found += Totals(len(rows), sum(_size(row) for row in rows))
        if len(rows) < PAGE:
            return found
        rules = [[Filter("last_modified", rows[-1]["last_modified"], COMPARISON.LT)]]


def _size(row: dict[str, Any]) -> int:
    attachment = row.get(FIELD)
    size = attachment.get("size") if isinstance(attachment, dict) else None
    return int(size) if isinstance(size, int | float) and not isinstance(size, bool) else 0
