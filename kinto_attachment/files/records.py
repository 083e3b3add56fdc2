"""The only code that writes records: it asks Kinto to, by a sub-request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kinto.core.utils import build_request
from kinto.plugins.default_bucket import resource_create_object
from kinto.views.buckets import Bucket
from kinto.views.collections import Collection
from pyramid.httpexceptions import HTTPException, HTTPNotFound, HTTPPreconditionFailed

from kinto_attachment.errors import modified_meanwhile
from kinto_attachment.files.collection_settings import CollectionSettingsResolver
from kinto_attachment.files.guard import allow_metadata_changes
from kinto_attachment.files.permissions import may_read_now
from kinto_attachment.files.target import Target
from kinto_attachment.files.transactions import in_batch
from kinto_attachment.metadata import FIELD

# A record may come and go while it is written.
ATTEMPTS = 10

# How the names end under which Kinto keeps who a user is, with all groups.
PRINCIPALS = "_principals"

# Headers of the upload that mean something else, or nothing, to the record's endpoint.
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


@dataclass(frozen=True)
class Written:
    """Kinto's answer to the write of a record: 201 or 200, and the record's new timestamp."""

    status: int
    etag: str
    last_modified: str
    record: dict[str, Any]


def write(
    request: Any, data: dict[str, Any] | None, permissions: Any, attachment: dict[str, Any] | None
) -> Written:
    """Set the record's attachment and what came along with it; create the record if need be.

    :raises HTTPException: Kinto's own refusals: schema, preconditions, permissions.
    :raises IntegrityError: another writer came between; the request is repeated.
    """
    target: Target = request.context
    body: dict[str, Any] = {"data": {**(data or {}), FIELD: attachment}}
    if permissions:
        body["permissions"] = permissions
    exists = target.record is not None
    _mark_default_bucket(request, target.uri.bucket_id)
    for attempt in range(1, ATTEMPTS + 1):
        _forget_principals(request)
        try:
            _create_parents(request, target)
            return _ask_kinto(request, str(target.uri), body, exists=exists)
        except HTTPNotFound:
            # Deleted while the body came in; not to be created again without an attachment.
            if not exists or attachment is None or attempt == ATTEMPTS:
                raise
            exists = False
        except HTTPPreconditionFailed as refusal:
            # Created while the body came in, unless it is the client's precondition that fails.
            if exists or _has_precondition(request) or attempt == ATTEMPTS:
                raise _as_readers_see_it(request, str(target.uri), refusal) from None
            exists = True
    raise AssertionError("unreachable")


def _mark_default_bucket(request: Any, bucket_id: str) -> None:
    """Not in a batch, which may hold locks that another request waits for."""
    resolver: CollectionSettingsResolver = request.registry.attachment_collection_settings
    if resolver.is_default(request, bucket_id) and not in_batch(request):
        resolver.mark(bucket_id)


def _forget_principals(request: Any) -> None:
    """Have Kinto read the user's groups again: it did so before the body, which took its time.

    In a batch it reads them once for all parts, and there is no body to wait for.
    """
    if request.method != "DELETE" and not in_batch(request):
        for name in [name for name in request.bound_data if str(name).endswith(PRINCIPALS)]:
            del request.bound_data[name]


def _as_readers_see_it(request: Any, uri: str, refusal: HTTPException) -> HTTPException:
    """Kinto shows the record in its 412, also to those who may create but not read."""
    return refusal if may_read_now(request, uri) else modified_meanwhile(None)


def _has_precondition(request: Any) -> bool:
    return "If-Match" in request.headers or "If-None-Match" in request.headers


def _create_parents(request: Any, target: Target) -> None:
    """In the default bucket, the bucket and the collection come into being with the record."""
    if not target.implicit_parents:
        return
    parents = (
        ("buckets", target.uri.bucket, Bucket),
        ("collections", target.uri.collection, Collection),
    )
    for name, uri, resource_class in parents:
        created = request.bound_data.setdefault(name, {})
        # As Kinto's own default bucket remembers them: buckets by id, collections by URI.
        known_as = target.uri.bucket_id if name == "buckets" else uri
        if known_as not in created:
            new = resource_create_object(request, resource_class, uri)
            if new or name == "buckets":
                created[known_as] = new


def _ask_kinto(request: Any, uri: str, body: dict[str, Any], *, exists: bool) -> Written:
    method = "PATCH" if exists else "PUT"
    subrequest = build_request(request, {"method": method, "path": uri, "body": body})
    for header in NOT_FORWARDED:
        subrequest.headers.pop(header, None)
    if not exists and not _has_precondition(request):
        subrequest.headers["If-None-Match"] = "*"  # PUT replaces, which is not meant here.
    subrequest.bound_data = request.bound_data
    with allow_metadata_changes(request):
        response = request.invoke_subrequest(subrequest, use_tweens=False)
    if response.status_code >= 400:
        raise response  # Cornice returns its refusals, Kinto's own code raises them.
    return Written(
        status=response.status_code,
        etag=response.headers["ETag"],
        last_modified=response.headers["Last-Modified"],
        record=response.json["data"],
    )
