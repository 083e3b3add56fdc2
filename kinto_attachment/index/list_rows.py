"""A page of a collection's current files in one statement of PostgreSQL, which writes their JSON.

Reading the rows of a page, and converting them to objects and to JSON, takes three times as long.
PostgreSQL writes an item if the link and the record agree, and the record has the location of the
file. ``files/listing.py`` makes all other items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kinto.core.storage import Filter, Sort
from kinto.core.storage.postgresql import Storage as PostgreSQLStorage

from kinto_attachment.index.link import Link
from kinto_attachment.index.tested_versions import is_tested
from kinto_attachment.kinto_types import StorageBackend
from kinto_attachment.metadata import DESCRIBED, FIELD

# Sizes are compared as JSON texts, because to PostgreSQL, 4 equals 4.0.
AGREES = """
    attachment->>'hash' = link.data->>'hash'
    AND CAST(attachment->'size' AS TEXT) = CAST(link.data->'size' AS TEXT)
"""
KNOWN = ", ".join(f"'{name}', attachment->'{name}'" for name in (*DESCRIBED, "location"))
# Kinto's storage fills in the conditions and the order. ``OFFSET 0`` makes PostgreSQL compute each
# item once.
ROWS = f"""
    SELECT id, last_modified, item,
           CASE WHEN item IS NULL THEN attachment END AS attachment,
           link_id, CASE WHEN item IS NULL THEN link END AS link
      FROM (SELECT record.id, record.last_modified, attachment,
                   link.id AS link_id, link.data AS link,
                   CASE WHEN {{writes_items}}
                         AND jsonb_typeof(attachment) = 'object'
                         AND NOT jsonb_exists_any(attachment, ARRAY['encoding', 'original'])
                         AND (link.id IS NULL
                              OR ({AGREES} AND attachment->>'location' IS NOT NULL))
                        THEN CAST(json_build_object(
                            'record', :parent_id || '/records/' || record.id,
                            'id', record.id, 'last_modified', record.last_modified, {KNOWN},
                            'key', link.data->'key', 'created', link.data->'created',
                            'state', 'current') AS TEXT)
                   END AS item
              FROM (SELECT id, as_epoch(last_modified) AS last_modified,
                           data->'{FIELD}' AS attachment
                      FROM objects
                     WHERE {{parent_id_filter}}
                       AND resource_name = :resource_name
                       {{conditions_deleted}}
                       {{conditions_filter}}
                       {{pagination_rules}}
                     {{sorting}}
                     LIMIT :pagination_limit) AS record
              LEFT JOIN LATERAL
                   (SELECT id, data FROM objects
                     WHERE parent_id = 'attachments:' || :parent_id || '/records/' || record.id
                       AND resource_name = 'attachment' AND NOT deleted
                       AND data->>'state' = 'current' AND COALESCE(data->>'ended', '') = ''
                     LIMIT 1) AS link ON TRUE
            OFFSET 0) AS listed
     ORDER BY last_modified DESC
"""  # noqa: S608 - all names are constants.
WITH_ITEMS = ROWS.replace("{writes_items}", "TRUE")
WITHOUT_ITEMS = ROWS.replace("{writes_items}", "FALSE")
NEWEST_FIRST = [Sort("last_modified", -1)]


class ListRow(NamedTuple):
    """A record of the list: its ``item`` as JSON, or else the data for the item."""

    id: str
    last_modified: int
    item: str | None
    attachment: object
    link: Link | None


def has_list_rows(storage: StorageBackend) -> bool:
    return is_tested() and isinstance(storage, PostgreSQLStorage)


def list_rows(
    storage: Any,
    collection: str,
    filters: Iterable[Filter],
    pagination_rules: list[list[Filter]],
    limit: int,
    *,
    items: bool,
) -> list[ListRow]:
    """A page of records, the newest first, in the caller's transaction.

    Only with ``items`` are items written.
    """
    rows = storage._get_rows(
        WITH_ITEMS if items else WITHOUT_ITEMS,
        "record",
        collection,
        filters=list(filters),
        sorting=NEWEST_FIRST,
        pagination_rules=pagination_rules,
        limit=limit,
    )
    return [
        ListRow(object_id, last_modified, item, attachment, _link(link_id, link))
        for object_id, last_modified, item, attachment, link_id, link in rows
    ]


def _link(link_id: str, row: Mapping[str, Any] | None) -> Link | None:
    return None if row is None else Link.load({**row, "id": link_id})
