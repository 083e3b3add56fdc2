"""The rows of the kinto-attachment that people run before this plugin, in releases up to 9.

It has one for each file that a record got and has not let go of, with the object key as
``location``. It deletes what the rows of a record, a collection or a bucket name.
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

RESOURCE_NAME = ""
PARENT = "__attachments__"


@dataclass(frozen=True)
class OldRow:
    id: str
    record: str
    key: str


class OldRows:
    """The rows in a Kinto storage backend; all methods run in the caller's transaction."""

    def __init__(self, backend: StorageBackend, page_size: int) -> None:
        self._backend = backend
        self._page_size = page_size

    def pages(self, size: int) -> Iterator[list[OldRow]]:
        """All rows, page by page; the caller may delete those that it has seen."""
        rules: list[list[Filter]] = []
        size = min(size, self._page_size)
        while True:
            rows = self._backend.list_all(
                resource_name=RESOURCE_NAME,
                parent_id=PARENT,
                sorting=[Sort("last_modified", 1)],
                pagination_rules=rules,
                limit=size,
            )
            yield [row for row in map(_load, rows) if row is not None]
            if len(rows) < size:
                return
            rules = [[Filter("last_modified", rows[-1]["last_modified"], COMPARISON.GT)]]

    def write(self, link: Link) -> None:
        """Write the row of a record's current file."""
        uri = RecordURI.parse(link.record)
        row = {
            "location": link.key,
            "record_uri": link.record,
            "collection_uri": uri.collection,
            "bucket_uri": uri.bucket,
        }
        self._backend.create(resource_name=RESOURCE_NAME, parent_id=PARENT, obj=row)

    def delete(self, row: OldRow) -> None:
        self._backend.delete(
            resource_name=RESOURCE_NAME, parent_id=PARENT, object_id=row.id, with_deleted=False
        )


def _load(row: Mapping[str, Any]) -> OldRow | None:
    """None for a row that names no file of a record."""
    record, key = row.get("record_uri"), row.get("location")
    if not isinstance(record, str) or not isinstance(key, str):
        return None
    try:
        RecordURI.parse(record)
    except ValueError:
        return None
    return OldRow(row["id"], record, key.lstrip("/"))
