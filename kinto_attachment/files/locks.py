"""Locks: collections whose files clients cannot change.

A collection is locked by a setting or by its data: ``{"attachment": {"locked": true}}``. Code on
the server can change the files inside ``allow_metadata_changes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kinto.core.storage.exceptions import ObjectNotFoundError

from kinto_attachment.errors import Locked
from kinto_attachment.files.guard import is_allowed
from kinto_attachment.kinto_types import KintoObject, Request
from kinto_attachment.metadata import FIELD
from kinto_attachment.settings import CollectionSettings
from kinto_attachment.uris import RecordURI

# The cache into which Kinto reads collections when it writes a record.
COLLECTIONS = "collections"
# The plugin's cache for /buckets/default, where Kinto's cache has empty objects.
READ = "kinto_attachment.collections"
# An attribute of sub-requests that change files: whether a client makes the change.
BY_CLIENT = "kinto_attachment_by_client"


def refuse(rules: CollectionSettings, collection: Mapping[str, Any] | None) -> None:
    """:raises Locked: a setting or its data lock the collection."""
    if rules.locked:
        raise Locked(f"The setting is {rules.setting('locked')}.")
    if is_locked_by_data(collection):
        raise Locked("The collection's data have attachment.locked.")


def is_locked(rules: CollectionSettings, collection: Mapping[str, Any] | None) -> bool:
    return rules.locked or is_locked_by_data(collection)


def is_locked_by_data(collection: Mapping[str, Any] | None) -> bool:
    own = (collection or {}).get(FIELD)
    return isinstance(own, Mapping) and own.get("locked") is True


def collection_of(request: Request, uri: RecordURI) -> KintoObject | None:
    """The collection of a record that Kinto is about to write; None if there is none.

    It is read once, by Kinto or here. Below ``/buckets/default``, Kinto has an empty object for a
    collection that exists, and does not read it.
    """
    known = request.bound_data.setdefault(COLLECTIONS, {})
    collection: KintoObject | None = known.get(uri.collection)
    if not collection:
        collection = _read(request, uri.bucket, uri.collection_id)
        if collection is not None:
            known.setdefault(uri.collection, collection)
    return collection


def read_ahead(request: Request, bucket: str, collection_id: str) -> None:
    """Read a collection below ``/buckets/default`` before Kinto checks whether it exists.

    The result is stored in Kinto's cache, so no additional statement is needed.
    """
    uri = f"{bucket}/collections/{collection_id}"
    known = request.bound_data.setdefault(COLLECTIONS, {})
    if uri not in known and _read(request, bucket, collection_id) is not None:
        known[uri] = {}


def forget(request: Request) -> None:
    """Empty the caches, because the request has changed collections."""
    request.bound_data.pop(COLLECTIONS, None)
    request.bound_data.pop(READ, None)


def _read(request: Request, bucket: str, collection_id: str) -> KintoObject | None:
    read = request.bound_data.setdefault(READ, {})
    uri = f"{bucket}/collections/{collection_id}"
    if uri not in read:
        storage = request.registry.storage
        try:
            read[uri] = storage.get("collection", bucket, collection_id)
        except ObjectNotFoundError:
            return None
    collection: KintoObject = read[uri]
    return collection


def is_of_upload(request: Request) -> bool:
    """Whether a request is a sub-request that changes files."""
    return hasattr(request, BY_CLIENT)


def is_by_client(request: Request) -> bool:
    """Whether a client, and not code on the server, makes the writes of a request."""
    return bool(getattr(request, BY_CLIENT, not is_allowed(request)))
