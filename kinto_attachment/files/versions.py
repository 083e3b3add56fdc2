"""The versions of a record's attachment: its current file and earlier ones."""

from __future__ import annotations

from operator import attrgetter

from kinto_attachment.errors import FileNotFound
from kinto_attachment.files.collection_settings import CollectionSettingsResolver
from kinto_attachment.files.permissions import may_now
from kinto_attachment.index.link import NO_VERSIONS, Link
from kinto_attachment.index.links import Links
from kinto_attachment.index.lives import current_life
from kinto_attachment.kinto_types import Request
from kinto_attachment.uris import RecordURI


def versions_of(links: Links, record_uri: str) -> list[Link]:
    """The versions of an existing record, newest first."""
    living = [link for link in links.of_record(record_uri) if not link.ended]
    life = current_life(living)
    return _by_age(
        [link for link in living if link.life == life and link.state not in NO_VERSIONS]
    )


def versions_of_deleted(links: Links, record_uri: str) -> list[Link]:
    """The versions of deleted records with this URI, in the current life of the collection."""
    return _by_age([link for link in links.of_record(record_uri) if link.ended == "record"])


def readable_versions(request: Request, uri: RecordURI, *, exists: bool) -> list[Link]:
    """The versions that the user may read. The user may read the record, if it ``exists``.

    Only users who may write the collection can read those of a deleted record.
    """
    links = request.registry.attachment_links
    if not exists:
        if not may_now(request, "write", uri.collection):
            return []
        return versions_of_deleted(links, str(uri))
    versions = versions_of(links, str(uri))
    if may_read_earlier(request, uri):
        return versions
    return [version for version in versions if version.state == "current"]


def may_read_earlier(request: Request, uri: RecordURI) -> bool:
    """Whether a user who may read a record may also read its earlier files."""
    resolver: CollectionSettingsResolver = request.registry.attachment_collection_settings
    permission = resolver.of(request, uri.bucket_id, uri.collection_id).versions_permission
    return permission == "read" or may_now(request, permission, str(uri))


def find(versions: list[Link], version: str) -> Link:
    """:raises FileNotFound: none of the versions has this id."""
    for link in versions:
        if link.version == version:
            return link
    raise FileNotFound("There is no such version.")


def _by_age(links: list[Link]) -> list[Link]:
    return sorted(links, key=attrgetter("age"), reverse=True)
