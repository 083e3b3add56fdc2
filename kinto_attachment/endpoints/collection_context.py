"""The permission to list the files of a collection."""

from __future__ import annotations

from typing import Any

from kinto.authorization import RouteFactory
from kinto.core.errors import ERRORS, http_error
from kinto.core.storage.exceptions import ObjectNotFoundError
from kinto.views import raise_404_if_invalid_id
from pyramid.httpexceptions import HTTPNotFound

from kinto_attachment.files.archive_links import is_linked_archive
from kinto_attachment.files.list_queries import wants_kept
from kinto_attachment.files.locations import check_host
from kinto_attachment.kinto_types import Request
from kinto_attachment.uris import CollectionURI


class CollectionContext(RouteFactory):  # type: ignore[misc]
    """A collection whose settings are read by users who may read its attributes in Kinto.

    They include users who may only create records in it.
    """

    resource_name = "collection"
    required_permission = "read"

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.uri = CollectionURI(
            request.matchdict["bucket_id"], request.matchdict["collection_id"]
        )
        check_host(request)
        raise_404_if_invalid_id(request, "bucket", self.uri.bucket_id)
        raise_404_if_invalid_id(request, "collection", self.uri.collection_id)
        # Kinto lets readers of the parent pass if the object of a write does not exist.
        self.current_object = self._find(request)
        if self.current_object is None and getattr(request, "implicit_parents", False):
            raise self._not_found()  # Users may know this about their own default bucket.
        self.permission_object_id = str(self.uri)

    def check_exists(self) -> None:
        """:raises HTTPNotFound: as Kinto answers for a collection that does not exist."""
        if self.current_object is None:
            raise self._not_found()

    def _find(self, request: Request) -> dict[str, Any] | None:
        try:
            return request.registry.storage.get(
                "collection", self.uri.bucket, self.uri.collection_id
            )
        except ObjectNotFoundError:
            return None

    def _not_found(self) -> HTTPNotFound:
        details = {"id": self.uri.collection_id, "resource_name": "collection"}
        return http_error(HTTPNotFound(), errno=ERRORS.MISSING_RESOURCE, details=details)


class FilesContext(CollectionContext):
    """The files of a collection, for users who may read all of its records.

    Only users who may write the collection can list earlier files.
    """

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        if wants_kept(request):
            self.required_permission = "write"
            return
        # As for Kinto's list of the records. With the URI of the collection itself, users who may
        # only create records could read, since they may read the collection's attributes.
        self.resource_name = "record"
        self.permission_object_id = f"{self.uri}/records"


class ArchiveContext(FilesContext):
    """The same for the archive, which can also be read with a link."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        found = self.current_object
        self.is_linked = found is not None and is_linked_archive(request, self.uri, found)

    def check_permission(self, principals: object, bound_perms: object) -> bool:
        return self.is_linked or bool(super().check_permission(principals, bound_perms))
