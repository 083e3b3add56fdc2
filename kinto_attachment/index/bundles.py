"""Bundles: the stored archives of collections, each found by its link.

The link of a bundle has the URI of a record that cannot exist, in its collection. So it ends with
the collection, and code that iterates over links finds it with the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from kinto.core.storage.exceptions import ObjectNotFoundError

from kinto_attachment.errors import AttachmentGone
from kinto_attachment.index.link import Link
from kinto_attachment.index.links import Links
from kinto_attachment.index.outbox import Garbage
from kinto_attachment.kinto_types import KintoObject, StorageBackend
from kinto_attachment.metadata import FIELD
from kinto_attachment.uris import CollectionURI, RecordURI

# Kinto's ids of records begin with a letter or a digit.
NAME = ".bundle"


class Bundles:
    """The bundles in a Kinto storage backend; all methods run in the caller's transaction."""

    def __init__(self, backend: StorageBackend, links: Links) -> None:
        self._backend = backend
        self._links = links

    def all_of(self, collection: CollectionURI) -> list[Link]:
        """The bundles of a collection, newest first: normally at most one."""
        found = [link for link in self._links.of_record(record_of(collection)) if is_bundle(link)]
        return sorted(found, key=lambda link: link.as_of, reverse=True)

    def fresh(self, collection: CollectionURI) -> Link | None:
        """The bundle of the collection's current state."""
        found = self.all_of(collection)
        if found and found[0].as_of == self.timestamp(collection):
            return found[0]
        return None

    def timestamp(self, collection: CollectionURI) -> int:
        """When a record of the collection was last written or deleted (ms): its ETag."""
        found: int = self._backend.resource_timestamp("record", str(collection))
        return found

    def wants_one(self, collection: CollectionURI) -> bool:
        """Whether the collection exists and asks for a bundle."""
        try:
            found = self._backend.get("collection", collection.bucket, collection.collection_id)
        except ObjectNotFoundError:
            return False
        return asks_for_bundle(found)

    def put(
        self, link: Link, linger: Mapping[str, int], known: Iterable[Link] = ()
    ) -> list[Garbage]:
        """Replace the collection's bundle by one whose file was just stored.

        The old bundle has to be older or in ``known``, the list of those to replace. Replaced
        files are entered in the outbox; those in a storage in ``linger`` stay until the time there
        (ms since the epoch).

        :raises AttachmentGone: the collection was deleted or changed, does not ask for a bundle,
            or has another one.
        """
        collection = collection_of(link)
        self._lock(collection)
        present = self.all_of(collection)
        keys = {each.key for each in known}
        is_newer = all(each.as_of < link.as_of or each.key in keys for each in present)
        same = self.timestamp(collection) == link.as_of and self.wants_one(collection)
        if not (is_newer and same):
            raise AttachmentGone("The collection has changed meanwhile.")
        self._links.add(link, is_new=True)
        self._links.confirm(link)
        return self._drop(present, linger)

    def drop(self, collection: CollectionURI, linger: Mapping[str, int]) -> list[Garbage]:
        """Remove the bundle of a collection."""
        self._lock(collection)
        return self._drop(self.all_of(collection), linger)

    def spoil(self, collection: CollectionURI) -> None:
        """Mark the bundle as outdated, although the timestamp of the collection is the same."""
        for link in self.all_of(collection):
            self._links.update(replace(link, as_of=0))

    def _drop(self, links: Iterable[Link], linger: Mapping[str, int]) -> list[Garbage]:
        orphans = self._links.drop([*links])
        return [
            entry
            for link in orphans
            for entry in self._links.outbox.add_files([link], linger.get(link.storage, 0))
        ]

    def _lock(self, collection: CollectionURI) -> None:
        """Make other transactions wait that change the bundle of the collection."""
        self._links.locks.lock(record_of(collection))
        self._links.locks.clear(record_of(collection))


def record_of(collection: CollectionURI) -> str:
    """The record in the link of a collection's bundle."""
    return f"{collection.records}{NAME}"


def collection_of(link: Link) -> CollectionURI:
    uri = RecordURI.parse(link.record)
    return CollectionURI(uri.bucket_id, uri.collection_id)


def is_bundle(link: Link) -> bool:
    return link.state == "bundle" and not link.ended


def asks_for_bundle(collection: KintoObject) -> bool:
    """Whether the data of a collection say ``{"attachment": {"bundle": true}}``."""
    own = collection.get(FIELD)
    return isinstance(own, Mapping) and own.get("bundle") is True
