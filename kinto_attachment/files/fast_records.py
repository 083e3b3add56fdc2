"""A faster way to write the record of an upload: Kinto's own class for records, in this request.

A sub-request costs more than writing the record: Kinto finds its route, reads the collection's
timestamp three times and the record three times. Here, Kinto's class is called by itself, with the
record and the collection that are read after the body, after the same steps as in a sub-request:
the permission by Kinto's policy, locks and holds, the validation by the service's own schema. What
Kinto does from there on is its own: preconditions, the collection's schema, patches, events.

The result is that of a sub-request, so whoever writes a record may try this first, and has to be
able to do without. It is not done

- if the setting ``fast_records`` is off;
- with a version of Kinto that it was not tested with, or if parts of Kinto that it relies on were
  replaced: a storage backend, the class for records, the authorization, the views;
- in a batch, for code on the server, and in default buckets, whose collections are created;
- if the client chooses the record's ``last_modified``, which may be before that of the collection;
- for files that were stored before: copies, versions, uploads in several requests;
- for the first record of a collection in PostgreSQL, with which Kinto stores the timestamp that
  the collection has when all its records are gone;
- if the record or the collection was created or deleted, or the permission withdrawn, while the
  body arrived: a sub-request finds the right answer.

Subscribers of Pyramid's ``NewRequest``, ``ContextFound`` and ``NewResponse`` see no sub-request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from kinto.authorization import AuthorizationPolicy, RouteFactory
from kinto.core.authorization import DYNAMIC
from kinto.core.cornice.pyramidhook import wrap_request
from kinto.core.resource.model import Model
from kinto.core.storage.memory import Storage as MemoryStorage
from kinto.core.storage.postgresql import Storage as PostgreSQLStorage
from kinto.core.utils import json, prefixed_principals
from kinto.views import records as kinto_records
from pyramid.events import NewRequest
from pyramid.httpexceptions import HTTPNotFound
from pyramid.interfaces import IAuthorizationPolicy, IRoutesMapper, IViewDerivers

from kinto_attachment.files import holds, locks
from kinto_attachment.files.guard import allow_metadata_changes
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.overviews import check_by, read_overview
from kinto_attachment.files.record_requests import (
    RequestKind,
    Written,
    headers_of,
    record_request,
)
from kinto_attachment.files.transactions import shares_transaction
from kinto_attachment.files.uploads import rules_of
from kinto_attachment.index.overviews import Overview
from kinto_attachment.index.tested_versions import is_tested
from kinto_attachment.kinto_types import KintoObject, Registry, Request
from kinto_attachment.metadata import FIELD
from kinto_attachment.uris import RecordURI

BACKENDS = (MemoryStorage, PostgreSQLStorage)
ROUTE = "record-object"
# The service whose requests are uploads of whole files to records.
SERVICE, METHODS = "attachment", ("POST", "PUT")
# Those of Pyramid, and of this plugin, whose checks are done here.
DERIVERS = {
    "secured_view",
    "owrapped_view",
    "http_cached_view",
    "decorated_view",
    "rendered_view",
    "mapped_view",
    "csrf_view",
    "kinto_attachment.record_writes",
    "kinto_attachment.protection",
}


class WriteModel(Model):  # type: ignore[misc]
    """Kinto's class without queries whose results an upload already has or does not need."""

    written: int | None = None
    # Whether the user is known to have the ``write`` permission on the record itself.
    has_write = False

    def timestamp(self, parent_id: str | None = None) -> int:
        # This transaction has just written the last timestamp of the collection.
        return super().timestamp(parent_id) if self.written is None else self.written

    def create_object(self, obj: KintoObject, parent_id: str | None = None) -> KintoObject:
        order = dict.fromkeys(obj)
        if isinstance(self.storage, PostgreSQLStorage):
            # Kinto's method looks for a record with the id. That was done before, and the INSERT
            # detects a record that was created since.
            object_id = obj.pop(self.id_field)
            self.id_generator = lambda: object_id
        return {**order, **self._note(super().create_object(obj, parent_id))}

    def update_object(self, obj: KintoObject, parent_id: str | None = None) -> KintoObject:
        self.has_write &= "write" not in obj.get(self.permissions_field, {})
        return self._note(super().update_object(obj, parent_id))

    def _allow_write(self, perm_object_id: str) -> None:
        if not self.has_write:
            super()._allow_write(perm_object_id)

    def _note(self, written: KintoObject) -> KintoObject:
        self.written = written[self.modified_field]
        return written

    def _annotate(self, obj: KintoObject, perm_object_id: str) -> KintoObject:
        # The permissions are no part of an upload's response. Memory backends return what they
        # have stored, which listeners may change.
        return {**obj}


class NoRecord(HTTPNotFound):  # type: ignore[misc]
    """The error that Kinto expects if there is no record, without the response that it makes."""

    def __init__(self) -> None:
        Exception.__init__(self)


class Record(kinto_records.Record):  # type: ignore[misc]
    """Kinto's class for a record that its context has read.

    Kinto stores records under the name of the class.
    """

    default_model = WriteModel
    timestamp = None  # That of the collection, which is not read again.

    def __init__(self, request: Request, context: WriteContext) -> None:
        uri = context.uri
        self.bucket_id, self.collection_id = uri.bucket_id, uri.collection_id
        self._parent_id = uri.collection
        super().__init__(request, context=context)

    def get_parent_id(self, request: Request) -> str:
        # Kinto computes it three times from the route. The ids were checked before the body.
        return self._parent_id

    def _get_object_or_404(self, object_id: str) -> KintoObject:
        if self.context.current_object is None:
            raise NoRecord()
        return cast(KintoObject, self.context.current_object)


class Refused(Exception):
    """The user may not write the record. A sub-request will find the same, and log it."""


class WriteContext(RouteFactory):  # type: ignore[misc]
    """The context that Kinto's factory would make, built from data that is already known."""

    resource_name = "record"
    on_plural_endpoint = False

    def __init__(self, request: Request, uri: RecordURI, overview: Overview) -> None:
        registry, record = request.registry, overview.record
        self.uri = uri
        self._check_permission = check_by(overview, registry.permission.check_permission)
        self._get_accessible_objects = registry.permission.get_accessible_objects
        self._settings = registry.settings
        self._resource = None
        self.current_object = record
        if record is None:
            self.permission_object_id = f"{uri.collection}/records"
            self.required_permission = "create"
        else:
            self.permission_object_id, self.required_permission = str(uri), "write"
        self._request = request

    def get_prefixed_principals(self) -> Any:
        return prefixed_principals(self._request)

    def check_permission(self, principals: object, bound_perms: object) -> bool:
        if not super().check_permission(principals, bound_perms):
            raise Refused
        return True


@dataclass(frozen=True)
class FastRecords:
    """The arguments of Kinto's views of records, by method."""

    route: Any
    arguments: dict[str, dict[str, Any]]
    requests: RequestKind

    @classmethod
    def find(cls, registry: Registry) -> FastRecords | None:
        """None if records are to be written by sub-requests."""
        if not (registry.attachment_settings["fast_records"] and is_as_tested(registry)):
            return None
        route = registry.queryUtility(IRoutesMapper).get_route(ROUTE)
        service = registry.cornice_services.get(route.pattern) if route else None
        if service is None or service.resource is not kinto_records.Record:
            return None
        arguments = {
            method: arguments
            for method, _, arguments in service.definitions
            # There is a second PATCH, for JSON patches.
            if method in ("PUT", "PATCH") and isinstance(arguments["content_type"], tuple | list)
        }
        if len(arguments) < 2:  # A setting of Kinto's switches one of them off.
            return None
        return cls(route, arguments, RequestKind.of(registry))


def is_as_tested(registry: Registry) -> bool:
    """Whether this was tested with this version of Kinto, and no part of Kinto is replaced."""
    derivers = registry.queryUtility(IViewDerivers)
    return (
        is_tested()
        and type(registry.storage) in BACKENDS
        and type(registry.queryUtility(IAuthorizationPolicy)) is AuthorizationPolicy
        and not registry.settings.get("available_languages")
        and {name for name, _ in derivers.sorted()} <= DERIVERS
    )


def write(request: Request, body: dict[str, Any], *, exists: bool) -> Written | None:
    """Write the record of an upload; None if nothing was done, and a sub-request has to do it.

    :raises HTTPException: Kinto refuses it, as it would the sub-request.
    """
    known = request.registry.attachment_fast_records
    uri, attachment = request.context.uri, body["data"][FIELD]
    if known is None or not is_upload(request, attachment) or "last_modified" in body["data"]:
        return None
    subrequest = prepared(request, known, body, exists=exists)
    overview = read_overview(subrequest, uri)
    record, collection = overview.record, overview.collection
    if collection is None or exists != (record is not None) or not overview.has_timestamp:
        return None
    context = WriteContext(subrequest, uri, overview)
    try:
        if not subrequest.has_permission(DYNAMIC, context):
            return None
    except Refused:
        return None
    request.bound_data.setdefault(locks.COLLECTIONS, {})[uri.collection] = collection
    refuse_protected(subrequest, request, record, attachment)
    validate(subrequest, known.arguments[subrequest.method], body)
    resource = Record(request=subrequest, context=context)
    resource.model.has_write = has_write(overview, uri, resource.model.current_principal)
    with allow_metadata_changes(request):
        answer = resource.patch() if exists else resource.put()
    headers = subrequest.response.headers
    status = subrequest.response.status_code
    return Written(status, headers["ETag"], headers["Last-Modified"], answer["data"], {})


def has_write(overview: Overview, uri: RecordURI, principal: str) -> bool:
    """Whether a principal is known to be among the writers of the record itself."""
    rights = overview.rights
    return rights is not None and (str(uri), "write", principal) in rights.granted


def is_upload(request: Request, attachment: dict[str, Any] | None) -> bool:
    """Whether a request has just stored the file, for a record in an ordinary bucket."""
    service = request.current_service
    return (
        service is not None
        and service.name == SERVICE
        and request.method in METHODS
        and not shares_transaction(request)
        and not request.context.implicit_parents
        and Ledger.of(request).new_file(attachment) is not None
    )


def prepared(
    request: Request, known: FastRecords, body: dict[str, Any], *, exists: bool
) -> Request:
    """The sub-request as it would be after Kinto has found its route."""
    uri, settings = request.context.uri, request.registry.settings
    subrequest = record_request(request, str(uri), body, exists=exists, kind=known.requests)
    if settings.get("http_scheme"):
        subrequest.scheme = settings["http_scheme"]
    if settings.get("http_host"):
        subrequest.host = settings["http_host"]
    wrap_request(NewRequest(subrequest))
    subrequest.matched_route = known.route
    subrequest.matchdict = {
        "bucket_id": uri.bucket_id,
        "collection_id": uri.collection_id,
        "id": uri.record_id,
    }
    return subrequest


def refuse_protected(
    subrequest: Request, request: Request, record: KintoObject | None, attachment: Any
) -> None:
    """:raises Locked, Held: the record's file cannot be replaced."""
    uri = request.context.uri
    if locks.is_by_client(subrequest):
        locks.refuse(rules_of(request), locks.collection_of(request, uri))
    holds.refuse_change(subrequest, uri, (record or {}).get(FIELD), attachment)


def validate(subrequest: Request, arguments: dict[str, Any], body: dict[str, Any]) -> None:
    """Validate a request whose body is known, without parsing the request again.

    :raises HTTPException: the schema of Kinto's view does not allow the request.
    """
    # Kinto's parser rounds some numbers.
    parsed = json.loads(json.dumps(body))
    known = {"body": parsed, "header": headers_of(subrequest), "querystring": {}}
    arguments = {**arguments, "deserializer": lambda request: known}
    for validator in arguments["validators"]:
        validator(subrequest, **arguments)
    if len(subrequest.errors):
        raise arguments["error_handler"](subrequest)
