"""Writing records: with sub-requests to Kinto, or in a faster way with the same result."""

from __future__ import annotations

from typing import Any, cast

from kinto.plugins.default_bucket import resource_create_object
from kinto.views.buckets import Bucket
from kinto.views.collections import Collection
from pyramid.httpexceptions import HTTPException, HTTPNotFound, HTTPPreconditionFailed

from kinto_attachment.files import fast_records, locks
from kinto_attachment.files.guard import allow_metadata_changes, is_allowed
from kinto_attachment.files.kinto_errors import modified_meanwhile
from kinto_attachment.files.overviews import PRINCIPALS
from kinto_attachment.files.permissions import may_read_now
from kinto_attachment.files.record_requests import (
    PRECONDITIONS as PRECONDITIONS,
    Written as Written,
    has_precondition,
    record_request,
)
from kinto_attachment.files.target import Target
from kinto_attachment.files.transactions import shares_transaction
from kinto_attachment.files.uploads import rules_of
from kinto_attachment.kinto_types import Request
from kinto_attachment.metadata import FIELD

# The record may be created or deleted by others while it is written.
ATTEMPTS = 10


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
            if attempt == 1 and (written := fast_records.write(request, body, exists=exists)):
                return written
            return _ask_kinto(request, str(target.uri), body, exists=exists)
        except HTTPNotFound:
            # The record was deleted in the meantime. A DELETE does not create it again.
            if not exists or attachment is None or attempt == ATTEMPTS:
                raise
            exists = False
        except HTTPPreconditionFailed as refusal:
            # The record was created in the meantime, unless a precondition of the client failed.
            if exists or has_precondition(request) or attempt == ATTEMPTS:
                raise _as_readers_see_it(request, str(target.uri), refusal) from None
            exists = True
    raise AssertionError("unreachable")


def _mark_default_bucket(request: Request, bucket_id: str) -> None:
    """Save that a bucket is a default bucket. A batch, which may hold locks, does not."""
    resolver = request.registry.attachment_collection_settings
    if resolver.is_default(request, bucket_id) and not shares_transaction(request):
        resolver.remember(bucket_id)


def _forget_principals(request: Request) -> None:
    """Make Kinto read the user's groups again, since receiving the body may have taken hours.

    This does not apply to batches: Kinto reads the groups once for all parts, and the body has
    already been received.
    """
    if request.method != "DELETE" and not shares_transaction(request):
        for name in [name for name in request.bound_data if str(name).endswith(PRINCIPALS)]:
            del request.bound_data[name]


def _as_readers_see_it(request: Request, uri: str, refusal: HTTPException) -> HTTPException:
    """A 412 without the record, which Kinto's has, for users who may not read it."""
    return refusal if may_read_now(request, uri) else modified_meanwhile(None)


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
    subrequest = record_request(request, uri, body, exists=exists)
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
