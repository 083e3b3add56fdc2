"""The upload of a request, and the permission to continue it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from kinto.authorization import RouteFactory
from kinto.core.errors import ERRORS, http_error
from kinto.core.storage.exceptions import ObjectNotFoundError
from pyramid.httpexceptions import HTTPNotFound

from kinto_attachment.endpoints.context import check_collection, check_ids
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.locations import check_host
from kinto_attachment.index.session import Session
from kinto_attachment.kinto_types import Request
from kinto_attachment.uris import RecordURI


class UploadContext(RouteFactory):  # type: ignore[misc]
    """An upload and its record, which are read on first use.

    The view checks who may use the upload, since for other users it must look as if it did not
    exist. To Kinto's authorization policy, this context is a write of the record.
    """

    resource_name = "record"

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._request = request
        ids = request.matchdict
        self.uri = RecordURI(ids["bucket_id"], ids["collection_id"], ids["id"])
        check_host(request)
        check_ids(request, self.uri)
        # Set by the view. A request that is repeated while it attaches the file already has it.
        self.session: Session | None = Ledger.of(request).attaching

    @property
    def implicit_parents(self) -> bool:
        return self.session is not None and self.session.implicit_parents

    @property
    def preconditions(self) -> Mapping[str, str]:
        return {} if self.session is None else self.session.preconditions

    @cached_property
    def record(self) -> dict[str, Any] | None:
        return self._get("record", self.uri.collection, self.uri.record_id)

    @property
    def current_object(self) -> dict[str, Any] | None:
        return self.record

    @property
    def _creates(self) -> bool:
        return self.record is None or self.preconditions.get("If-None-Match") == "*"

    @property
    def permission_object_id(self) -> str:
        return f"{self.uri.collection}/records" if self._creates else str(self.uri)

    @property
    def required_permission(self) -> str:
        return "create" if self._creates else "write"

    def check_permission(self, principals: object, bound_perms: object) -> bool:
        if self.implicit_parents and not self._has_collection():
            return True  # In their own default bucket, users may create collections.
        allowed: bool = super().check_permission(principals, bound_perms)
        return allowed

    def existing_record(self) -> dict[str, Any]:
        """:raises HTTPNotFound: the record does not exist."""
        if self.record is None:
            details = {"id": self.uri.record_id, "resource_name": "record"}
            raise http_error(HTTPNotFound(), errno=ERRORS.INVALID_RESOURCE_ID, details=details)
        return self.record

    def _has_collection(self) -> bool:
        if self.record is not None:
            return True
        return self._get("collection", self.uri.bucket, self.uri.collection_id) is not None

    def _get(self, resource_name: str, parent: str, object_id: str) -> dict[str, Any] | None:
        storage = self._request.registry.storage
        try:
            return storage.get(resource_name, parent, object_id)
        except ObjectNotFoundError:
            return None


class UploadsOfCollection(RouteFactory):  # type: ignore[misc]
    """All uploads in a collection, for users who may write it."""

    resource_name = "collection"
    required_permission = "write"

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        ids = request.matchdict
        check_collection(request, ids["bucket_id"], ids["collection_id"])
        uri = RecordURI(ids["bucket_id"], ids["collection_id"], "-")
        self.permission_object_id = uri.collection
        self.current_object: dict[str, Any] = {}  # Nobody may write a deleted collection.
