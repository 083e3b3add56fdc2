"""Reading and deleting records in Kinto's storage while a request changes them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import transaction
from kinto.core.storage.exceptions import ObjectNotFoundError

from kinto_attachment.index.patterns import starting_with
from kinto_attachment.kinto_types import KintoObject, Registry
from kinto_attachment.uris import RecordURI


def stored_record(registry: Registry, uri: str) -> KintoObject | None:
    """A record in the caller's transaction; None if it does not exist."""
    parsed = RecordURI.parse(uri)
    try:
        return registry.storage.get("record", parsed.collection, parsed.record_id)
    except ObjectNotFoundError:
        return None


def committed_record(registry: Registry, uri: str) -> KintoObject | None:
    """The committed record, which this transaction is overwriting; None if it does not exist."""

    def read() -> KintoObject | None:
        with transaction.manager:
            return stored_record(registry, uri)

    # In another thread, since Kinto has one transaction and one connection per thread.
    with ThreadPoolExecutor(max_workers=1) as other:
        return other.submit(read).result()


def delete_records_below(registry: Registry, uri: str) -> None:
    """Delete all records. Kinto deletes only those of one query, and no new ones.

    The others would reappear, without their files, in a new bucket or collection with that id.
    """
    links = registry.attachment_links
    if "/collections/" in uri:
        links.collections.wait_for_new_records(uri)
        parents = uri
    else:
        parents = starting_with(registry.storage, f"{uri}/")
    if _delete_all_records(registry, parents, links.page_size):
        below = starting_with(registry.permission, f"{uri}/")
        registry.permission.delete_object_permissions(below)


def _delete_all_records(registry: Registry, parent_id: str, at_once: int) -> int:
    count = 0
    while True:
        deleted = registry.storage.delete_all(
            resource_name="record", parent_id=parent_id, with_deleted=False
        )
        count += len(deleted)
        if len(deleted) < at_once:
            return count
