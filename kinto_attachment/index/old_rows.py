"""The rows of the kinto-attachment on PyPI, up to release 9.

That plugin has a row for each file that a record has, with the object key as ``location``. It
deletes the files in the rows of a record, a collection or a bucket. Its release 9 has another
resource name, to which ``kinto migrate`` changed the existing rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kinto.core.storage import Filter, Sort
from kinto.core.utils import COMPARISON

from kinto_attachment.index.link import Link
from kinto_attachment.kinto_types import StorageBackend
from kinto_attachment.uris import RecordURI

PARENT = "__attachments__"
UNTIL_8, SINCE_9 = "", "attachments"  # Resource names of rows.
# This exists after release 9 has renamed all rows, which it does only once; it ignores other rows.
RENAMED = "SELECT count(*) FROM metadata WHERE name = 'kinto_attachment_schema_version'"


@dataclass(frozen=True)
class OldRow:
    id: str
    record: str
    key: str
    resource_name: str


class OldRows:
    """The rows in a Kinto storage backend; all methods run in the caller's transaction."""

    def __init__(self, backend: StorageBackend, page_size: int) -> None:
        self._backend = backend
        self._page_size = page_size

    def pages(self, size: int) -> Iterator[list[OldRow]]:
        """All rows, page by page; the caller may delete those that it has seen."""
        for resource_name in (UNTIL_8, SINCE_9):
            yield from self._pages_of(resource_name, min(size, self._page_size))

    def _pages_of(self, resource_name: str, size: int) -> Iterator[list[OldRow]]:
        rules: list[list[Filter]] = []
        while True:
            rows = self._backend.list_all(
                resource_name=resource_name,
                parent_id=PARENT,
                sorting=[Sort("last_modified", 1)],
                pagination_rules=rules,
                limit=size,
            )
            loaded = (_load(row, resource_name) for row in rows)
            yield [row for row in loaded if row is not None]
            if len(rows) < size:
                return
            rules = [[Filter("last_modified", rows[-1]["last_modified"], COMPARISON.GT)]]

    def resource_name(self) -> str:
        """The resource name that the other release uses for its rows."""
        if self._is_renamed() or self._backend.list_all(SINCE_9, PARENT, limit=1):
            return SINCE_9
        return UNTIL_8

    def _is_renamed(self) -> bool:
        from sqlalchemy import text

        client = getattr(self._backend, "client", None)
        if client is None:
            return False
        with client.connect(readonly=True) as session:
            return bool(session.execute(text(RENAMED)).scalar())

    def write(self, link: Link, resource_name: str) -> None:
        """Write the row of a record's current file."""
        uri = RecordURI.parse(link.record)
        row = {
            "location": link.key,
            "record_uri": link.record,
            "collection_uri": uri.collection,
            "bucket_uri": uri.bucket,
        }
        self._backend.create(resource_name=resource_name, parent_id=PARENT, obj=row)

    def delete(self, row: OldRow) -> None:
        self._backend.delete(
            resource_name=row.resource_name,
            parent_id=PARENT,
            object_id=row.id,
            with_deleted=False,
        )


def _load(row: Mapping[str, Any], resource_name: str) -> OldRow | None:
    """None for a row without the file of a record."""
    record, key = row.get("record_uri"), row.get("location")
    if not isinstance(record, str) or not isinstance(key, str):
        return None
    try:
        RecordURI.parse(record)
    except ValueError:
        return None
    return OldRow(row["id"], record, key.lstrip("/"), resource_name)
