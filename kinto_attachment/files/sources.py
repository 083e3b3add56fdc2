"""A record's file: its storage, its key and its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kinto_attachment.errors import FileMissing, FileNotFound
from kinto_attachment.files.locations import StorageName, find_own_file, location_of
from kinto_attachment.index.link import Link
from kinto_attachment.kinto_types import Registry, Request
from kinto_attachment.metadata import Attachment
from kinto_attachment.storage import ClosableReader


@dataclass(frozen=True)
class Source:
    """The stored file of a record; ``link`` is None for records older than the index.

    ``described`` is the attachment object, whose location may be missing.
    """

    storage: str
    key: str
    described: Mapping[str, Any]
    link: Link | None = None

    @classmethod
    def of(cls, link: Link) -> Source:
        return cls(link.storage, link.key, link.attachment, link)

    def attachment(self, request: Request) -> Attachment:
        """The attachment object for a record that gets the file."""
        storage = request.registry.attachment_storages[self.storage]
        return Attachment.at(location_of(request, storage, self.key), self.described)


def current_link(registry: Registry, record_uri: str) -> Link | None:
    links = registry.attachment_links.of_record(record_uri)
    return next((link for link in links if link.state == "current"), None)


def current_source(registry: Registry, record_uri: str, metadata: Any) -> Source:
    """The current file of a record, from its attachment object.

    :raises FileNotFound: the record has no attachment, or one on another server.
    """
    if isinstance(metadata, Mapping):
        link = current_link(registry, record_uri)
        if link is not None:
            # The record may have been replaced since it was read.
            described = metadata if link.describes(metadata) else link.attachment
            return Source(link.storage, link.key, described, link)
        found = file_before_index(registry, metadata)
        if found is not None:
            return Source(*found, metadata)
    raise FileNotFound("The record has no attachment.")


def open_source(registry: Registry, source: Source) -> ClosableReader:
    """The bytes of a file, even if it was moved to another storage since the index was read.

    :raises FileNotFound:
    """
    storages = registry.attachment_storages
    try:
        return storages[source.storage].files.open(source.key)
    except FileNotFound:
        links = registry.attachment_links.of_key(source.key)
        others = {link.storage for link in links} - {source.storage}
        if not others:
            raise
        return storages[others.pop()].files.open(source.key)


def is_outdated(registry: Registry, missing: FileMissing) -> bool:
    """Whether, in the index, the file is no longer in the storage that lacks it."""
    links = registry.attachment_links.of_key(missing.key)
    return all(link.storage != missing.storage for link in links)


def file_before_index(
    registry: Registry, metadata: Mapping[str, Any]
) -> tuple[StorageName, str] | None:
    """The storage and key of the file of a record that is older than the index, or None.

    :raises StorageError: a storage that has to be asked does not answer.
    """
    found = find_own_file(registry, metadata)
    if found is None or _is_known_otherwise(registry, found[1], metadata):
        return None
    return found


def _is_known_otherwise(registry: Registry, key: str, metadata: Mapping[str, Any]) -> bool:
    """Whether the index knows the file with other metadata."""
    links = registry.attachment_links.of_key(key)
    return bool(links) and not any(link.describes(metadata) for link in links)
