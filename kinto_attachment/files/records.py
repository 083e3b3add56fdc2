"""Writing records: by sub-requests to Kinto, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from kinto.core.utils import build_request
from kinto.plugins.default_bucket import resource_create_object
from kinto.views.buckets import Bucket
from kinto.views.collections import Collection
from pyramid.httpexceptions import HTTPException, HTTPNotFound, HTTPPreconditionFailed

from kinto_attachment.errors import modified_meanwhile
from kinto_attachment.files import locks
from kinto_attachment.files.guard import allow_metadata_changes, is_allowed
from kinto_attachment.files.permissions import may_read_now
from kinto_attachment.files.record_bodies import MERGE_PATCH
from kinto_attachment.files.target import Target
from kinto_attachment.files.transactions import shares_transaction
from kinto_attachment.files.uploads import rules_of
from kinto_attachment.kinto_types import Request
from kinto_attachment.metadata import FIELD

# The record may be created or deleted by others while it is written.
ATTEMPTS = 10

# Kinto caches the user's groups in bound_data, under names that end so.
PRINCIPALS = "_principals"

# Headers of the upload that have no meaning, or another one, for the record's endpoint. Kinto does
# not read all of them today (Content-Encoding, for one), but none is about the JSON that it gets.
NOT_FORWARDED = (
    "Accept",
    "Content-Disposition",
    "Content-Encoding",
    "Content-MD5",
    "Expect",
    "Range",
    "Response-Behavior",
    "Transfer-Encoding",
)
PRECONDITIONS = ("If-Match", "If-None-Match")


@dataclass(frozen=True)
class Written:
    """Kinto's response to the write of a record: status 201 or 200, and the new timestamp."""

    status: int
    etag: str
    last_modified: str
    record: dict[str, Any]
    permissions: dict[str, Any]


def write(
    request: Request,
    data: dict[str, Any] | None,
    permissions: dict[str, Any] | None,
    attachment: dict[str, Any] | None,
) -> Written:
    """Set the record's attachment, attributes and permissions; create the record if needed.

    :raises HTTPException: Kinto refuses: schema, preconditions, permissions.
    :raises IntegrityError: there was a concurrent write; the request is repeated.
    """
    target = request.context
    body: dict[str, Any] = {"data": {**(data or {}), FIELD: attachment}}
    if permissions:
        body["permissions"] = permissions
    exists = target.record is not None
    if not is_allowed(request):
        locks.refuse(rules_of(request), None)  # Before parents are created.
    _mark_default_bucket(request, target.uri.bucket_id)
    for attempt in range(1, ATTEMPTS + 1):
        _forget_principals(request)
        try:
            _create_parents(request, target)
            return _ask_kinto(request, str(target.uri), body, exists=exists)
        except HTTPNotFound:
            # The record was deleted in the meantime. A DELETE does not create it again.
            if not exists or attachment is None or attempt == ATTEMPTS:
                raise
            exists = False
        except HTTPPreconditionFailed as refusal:
            # The record was created in the meantime, unless a precondition of the client failed.
            if exists or _has_precondition(request) or attempt == ATTEMPTS:
                raise _as_readers_see_it(request, str(target.uri), refusal) from None
            exists = True
    raise AssertionError("unreachable")


def _mark_default_bucket(request: Request, bucket_id: str) -> None:
    """Remember a default bucket; not in a batch, which may hold locks of Kinto's objects."""
    resolver = request.registry.attachment_collection_settings
    if resolver.is_default(request, bucket_id) and not shares_transaction(request):
        resolver.remember(bucket_id)


def _forget_principals(request: Request) -> None:
    """Have Kinto read the user's groups again: receiving the body may have taken hours.

    Not in a batch: Kinto reads them once for all parts, and the body is there already.
    """
    if request.method != "DELETE" and not shares_transaction(request):
        for name in [name for name in request.bound_data if str(name).endswith(PRINCIPALS)]:
            del request.bound_data[name]


def _as_readers_see_it(request: Request, uri: str, refusal: HTTPException) -> HTTPException:
    """A 412 without the record, which Kinto's has, for users who may not read it."""
    return refusal if may_read_now(request, uri) else modified_meanwhile(None)


def _has_precondition(request: Request) -> bool:
    return bool(request.context.preconditions)


def _create_parents(request: Request, target: Target) -> None:
    """In the default bucket, create the bucket and the collection if they do not exist."""
    if not target.implicit_parents:
        return
    parents = (
        ("buckets", target.uri.bucket, Bucket),
        ("collections", target.uri.collection, Collection),
    )
    for name, uri, resource_class in parents:
        created = request.bound_data.setdefault(name, {})
        # The keys that Kinto's default bucket plugin uses: bucket ids, collection URIs.
        known_as = target.uri.bucket_id if name == "buckets" else uri
        if known_as not in created:
            new = resource_create_object(request, resource_class, uri)
            if new or name == "buckets":
                created[known_as] = new


def _ask_kinto(request: Request, uri: str, body: dict[str, Any], *, exists: bool) -> Written:
    method = "PATCH" if exists else "PUT"
    subrequest = build_request(request, {"method": method, "path": uri, "body": body})
    for header in (*NOT_FORWARDED, *PRECONDITIONS):
        subrequest.headers.pop(header, None)
    subrequest.headers.update(request.context.preconditions)
    if not exists and not _has_precondition(request):
        subrequest.headers["If-None-Match"] = "*"  # PUT would replace a record.
    if body["data"][FIELD] is None and not rules_of(request).delete_on_omission:
        # No copy of the record at a client may have a null, which would delete a later file.
        subrequest.headers["Content-Type"] = MERGE_PATCH
    subrequest.bound_data = request.bound_data
    setattr(subrequest, locks.BY_CLIENT, not is_allowed(request))
    with allow_metadata_changes(request):
        response = request.invoke_subrequest(subrequest, use_tweens=False)
    if response.status_code >= 400:
        # Cornice returns error responses, Kinto's own code raises them.
        raise cast(HTTPException, response)
    return Written(
        status=response.status_code,
        etag=response.headers["ETag"],
        last_modified=response.headers["Last-Modified"],
        record=response.json["data"],
        permissions=response.json["permissions"],
    )
