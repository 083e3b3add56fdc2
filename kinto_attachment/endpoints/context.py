"""The permission that an attachment request needs; checked before the body is read."""

from __future__ import annotations

from typing import Any

from kinto.authorization import RouteFactory
from kinto.core.errors import ERRORS, http_error, raise_invalid
from kinto.views import raise_404_if_invalid_id
from pyramid.httpexceptions import HTTPNotFound

from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.locations import check_host
from kinto_attachment.files.overviews import Check, check_by, read_overview
from kinto_attachment.files.records import PRECONDITIONS
from kinto_attachment.files.transactions import in_batch, shares_transaction
from kinto_attachment.kinto_types import IdGenerator, KintoObject, Request
from kinto_attachment.uris import RecordURI

READS = ("GET", "HEAD")
WRITES = ("POST", "PUT")


def check_ids(request: Request, uri: RecordURI) -> None:
    """Refuse ids that no object can have, before the database is asked for them.

    Also, Kinto's backends treat ``*`` in the id of a parent as a wildcard.

    :raises HTTPException: as Kinto answers for such an id.
    """
    check_collection(request, uri.bucket_id, uri.collection_id)
    if not id_generator(request).match(uri.record_id):
        raise_invalid(request, location="path", description="Invalid object id")


def check_collection(request: Request, bucket_id: str, collection_id: str) -> None:
    """The same for the ids of a collection and its bucket."""
    raise_404_if_invalid_id(request, "bucket", bucket_id)
    raise_404_if_invalid_id(request, "collection", collection_id)


def id_generator(request: Request) -> IdGenerator:
    generators = request.registry.id_generators
    return generators.get("record", generators[""])


class RecordContext(RouteFactory):  # type: ignore[misc]
    """The record that ``…/records/{id}/attachment`` is about.

    Kinto's authorization policy reads ``resource_name``, ``required_permission``,
    ``permission_object_id`` and ``current_object``.
    """

    resource_name = "record"
    _check_permission: Check

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._request = request
        ids = request.matchdict
        self.uri = RecordURI(ids["bucket_id"], ids["collection_id"], self._record_id())
        # Set by the view of the default bucket, where parents are created with their children.
        self.implicit_parents = getattr(request, "implicit_parents", False)
        check_host(request)
        check_ids(request, self.uri)
        record, self.collection = self._find()
        self.current_object = self._found(record)
        # If the record exists, so does its collection.
        self.collection_exists = self.record is not None or self.collection is not None
        if not self.collection_exists and self._must_exist():
            raise self._not_found("collection", self.uri.collection_id, ERRORS.MISSING_RESOURCE)
        self.permission_object_id, self.required_permission = self._permission()

    @property
    def record(self) -> dict[str, Any] | None:
        """The record as it was before the body was read; None if it did not exist."""
        record: dict[str, Any] | None = self.current_object
        return record or None

    @property
    def preconditions(self) -> dict[str, str]:
        headers = self._request.headers
        return {name: headers[name] for name in PRECONDITIONS if name in headers}

    def existing_record(self) -> dict[str, Any]:
        """:raises HTTPNotFound: as Kinto answers for a record that does not exist."""
        if self.record is None:
            raise self._not_found("record", self.uri.record_id, ERRORS.INVALID_RESOURCE_ID)
        return self.record

    def check_permission(self, principals: object, bound_perms: object) -> bool:
        if self.implicit_parents and not self.collection_exists:
            return True  # Users may create collections in their own default bucket.
        allowed: bool = super().check_permission(principals, bound_perms)
        return allowed

    def _record_id(self) -> str:
        return str(self._request.matchdict["id"])

    def _find(self) -> tuple[KintoObject | None, KintoObject | None]:
        """The record, and the collection unless the request reads a record that exists."""
        if self._request.method in READS:
            collections = self._request.registry.attachment_links.collections
            return collections.record_or_parent(self.uri)
        # Before a body is received, the transaction ends.
        is_last = self._request.method in WRITES and not shares_transaction(self._request)
        overview = read_overview(self._request, self.uri, is_last=is_last)
        self._check_permission = check_by(overview, self._check_permission)
        return overview.record, overview.collection

    def _found(self, record: KintoObject | None) -> KintoObject | None:
        """The object to which the permission applies."""
        return record

    def _must_exist(self) -> bool:
        # As in Kinto, users without the read permission cannot find out what exists.
        method = self._request.method
        return self.implicit_parents == (method not in WRITES)

    def _permission(self) -> tuple[str, str]:
        method = self._request.method
        if method in READS:
            return str(self.uri), "read"
        creates = self.record is None or self._request.headers.get("If-None-Match") == "*"
        if method in WRITES and creates:
            return f"{self.uri.collection}/records", "create"
        return str(self.uri), "write"

    def _not_found(self, resource_name: str, object_id: str, errno: ERRORS) -> HTTPNotFound:
        details = {"id": object_id, "resource_name": resource_name}
        return http_error(HTTPNotFound(), errno=errno, details=details)


class VersionsContext(RecordContext):
    """The record whose versions a request is about; it may have been deleted."""

    def _found(self, record: KintoObject | None) -> KintoObject:
        # Not None: Kinto would ask for ``read`` on the parent of an object that does not exist,
        # instead of ``write``.
        return record or {}

    def _must_exist(self) -> bool:
        return self.implicit_parents  # No parents are created for versions.

    def _permission(self) -> tuple[str, str]:
        if self._request.method in READS:
            return str(self.uri), "read"
        if self.record is not None:
            return str(self.uri), "write"
        self.resource_name = "collection"
        return self.uri.collection, "write"


class HoldContext(VersionsContext):
    """The record whose file is held, for users who may write its collection."""

    def _permission(self) -> tuple[str, str]:
        if self._request.method in READS:
            return str(self.uri), "read"
        self.resource_name = "collection"
        return self.uri.collection, "write"


class NewRecordContext(RecordContext):
    """A new record in a collection, with an id from Kinto's generator."""

    def _record_id(self) -> str:
        new_id = id_generator(self._request)()
        if in_batch(self._request):
            return new_id  # Each part of a batch creates another record.
        ledger = Ledger.of(self._request)
        ledger.new_id = ledger.new_id or new_id
        return ledger.new_id

    def _found(self, record: KintoObject | None) -> None:
        return None
