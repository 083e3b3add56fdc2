"""Finding records whose files the index does not know; while they exist, nothing is garbage."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import transaction

from kinto_attachment.files.locations import own_files, possible_keys
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance import records
from kinto_attachment.metadata import FIELD
from kinto_attachment.uris import CollectionURI


def records_without_link(
    registry: Registry, dangling: Collection[str] = ()
) -> Iterator[tuple[str, bool]]:
    """The URIs of records with an attachment but without a link, and whether they are *foreign*.

    A foreign one has a location on another server. Other records are left out if their file does
    not exist, since nothing can be lost, or has a ``dangling`` link.
    """
    for collection in records.collections(registry):
        for page in records.with_attachment(registry, collection):
            yield from _of_page(registry, collection, page, dangling)


def _of_page(
    registry: Registry,
    collection: CollectionURI,
    page: list[dict[str, Any]],
    dangling: Collection[str],
) -> Iterator[tuple[str, bool]]:
    links, settings, prefix = (
        registry.attachment_links,
        registry.attachment_settings,
        registry.route_prefix,
    )
    attachments = {f"{collection.records}{each['id']}": each[FIELD] for each in page}
    keys = {uri: possible_keys(settings, prefix, each) for uri, each in attachments.items()}
    with transaction.manager:
        linked = links.linked_records({key for each in keys.values() for key in each})
        others = [uri for uri in attachments if uri not in linked]
        # By record, since its location may be from an earlier `base_url`.
        unlinked = [uri for uri in others if not _has_link(registry, uri)]
    for uri in unlinked:
        files = own_files(settings, prefix, attachments[uri])
        if not files:
            yield uri, True
        elif any(
            _is_there(registry, storage, key) for storage, key in files if key not in dangling
        ):
            yield uri, False


def _has_link(registry: Registry, uri: str) -> bool:
    return any(link.state == "current" for link in registry.attachment_links.of_record(uri))


def _is_there(registry: Registry, storage: str, key: str) -> bool:
    return registry.attachment_storages[storage].files.exists(key)
