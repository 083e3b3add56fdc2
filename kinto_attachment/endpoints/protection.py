"""Refusing changes: of locked and held files, and of buckets with look-alikes.

Changes are refused before Kinto writes anything, because memory backends cannot roll back, and a
refusal at the end of a batch fails all of its parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from kinto.core.authorization import DYNAMIC
from kinto.core.utils import build_request
from kinto.plugins.default_bucket import default_bucket
from pyramid.httpexceptions import HTTPException

from kinto_attachment.errors import Locked
from kinto_attachment.files import deletions, holds, locks, look_alikes
from kinto_attachment.files.record_bodies import MALFORMED, body_of, stored
from kinto_attachment.files.transactions import in_batch
from kinto_attachment.files.uploads import rules_of
from kinto_attachment.kinto_types import KintoObject, Request, Response
from kinto_attachment.metadata import ABSENT, FIELD, same_json
from kinto_attachment.uris import CollectionURI, RecordURI

RECORD, RECORDS = "record-object", "record-plural"  # Kinto's routes.
PARENTS = ("collection-object", "collection-plural", "bucket-object", "bucket-plural")
CHANGES = ("PUT", "PATCH")
# Ids that Kinto's storage accepts.
RECORDS_BELOW = re.compile(r"collections/([A-Za-z0-9_-]+)/records(?:/[^/]*)?/?")
# The preconditions of the deletion apply to the objects that it deletes.
NOT_INHERITED = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")

View = Callable[[Any, Request], Response]
Check = Callable[[Any, Request], None]


def protecting(view: View, info: Any) -> View:
    """A view deriver for Kinto's views; it runs once the user is authorized."""
    if info.original_view is default_bucket:
        return reading_ahead(view)
    check = CHECKS.get(info.options.get("route_name"))
    if check is None or info.options.get("permission") != DYNAMIC:
        return view  # Cornice's own views answer 415, to everybody.

    def protected(context: Any, request: Request) -> Response:
        check(context, request)
        with deletions.repeated(request):
            response = view(context, request)
        if check is check_parents:
            # Otherwise, Kinto would not read the changed object again for the rest of a batch.
            locks.forget(request)
        return response

    return protected


def reading_ahead(view: View) -> View:
    """Kinto's view for its default bucket, which asks for the collection and drops it."""

    def ahead(context: Any, request: Request) -> Response:
        match = RECORDS_BELOW.fullmatch(request.matchdict.get("subpath", ""))
        # What is read before a body arrives would be old.
        deletes = request.method == "DELETE" and not request.content_length
        if match is not None and deletes and request.authenticated_userid is not None:
            locks.read_ahead(request, f"/buckets/{request.default_bucket_id}", match[1])
        return view(context, request)

    return ahead


def check_record(context: Any, request: Request) -> None:
    record, uri = context.current_object or {}, uri_of(request, request.matchdict["id"])
    old = record.get(FIELD)
    if request.method == "DELETE" and record:
        if old is not None:
            refuse_if_locked(request, uri)
        holds.refuse_deletion(request, uri, old)
    elif request.method in CHANGES and (old is not None or locks.is_of_upload(request)):
        new = outcome(request, record)
        if not same_json(new, old):
            refuse_if_locked(request, uri)
            holds.refuse_change(request, uri, old, new)


def check_records(context: Any, request: Request) -> None:
    """Check all records that a DELETE deletes, with or without filters."""
    if request.method != "DELETE":
        return
    collection = uri_of(request, "-")
    locked = is_subject_to_lock(request, collection)
    if not locked and not asks_for_holds(request):
        return
    for record in deleted_objects(context, request):
        old, uri = record.get(FIELD), uri_of(request, record["id"])
        if old is not None and locked:
            refuse_if_locked(request, uri)
        holds.refuse_deletion(request, uri, old)


def check_parents(context: Any, request: Request) -> None:
    """Check collections and buckets. Locks do not prevent the deletion of a whole collection."""
    if request.method != "DELETE":
        return
    if asks_for_holds(request):
        holds.refuse_deletion_below(request.registry, *deleted_uris(context, request))
    # For many buckets, this is checked when they are deleted, as they may include the others.
    if context.current_object is not None:
        look_alikes.refuse_deletion(request.registry, deleted_uris(context, request))


CHECKS: dict[str | None, Check] = {
    RECORD: check_record,
    RECORDS: check_records,
    **dict.fromkeys(PARENTS, check_parents),
}


def asks_for_holds(request: Request) -> bool:
    """Whether to look for holds among many files, before a change of the index does so."""
    rolls_back = request.registry.attachment_holds.rolls_back
    return are_holds_known(request) and (in_batch(request) or not rolls_back)


def are_holds_known(request: Request) -> bool:
    return request.registry.attachment_holds.is_known


def is_subject_to_lock(request: Request, uri: RecordURI) -> bool:
    try:
        refuse_if_locked(request, uri)
    except Locked:
        return True
    return False


def refuse_if_locked(request: Request, uri: RecordURI) -> None:
    """:raises Locked: clients cannot change files in the record's collection."""
    if not locks.is_by_client(request):
        return
    collection = locks.collection_of(request, uri)
    # The settings of a default bucket may have to be looked up.
    if request.registry.attachment_settings.are_set("locked") or locks.is_locked_by_data(
        collection
    ):
        resolver = request.registry.attachment_collection_settings
        locks.refuse(resolver.of(request, uri.bucket_id, uri.collection_id), collection)


def refuse_upload(request: Request) -> None:
    """Refuse another file for the request's record before the body is read.

    :raises Locked, Held: the same is checked again afterwards.
    """
    refuse_locked_record(request)
    context: Any = request.context
    old = (context.record or {}).get(FIELD)
    holds.refuse_change(request, context.uri, old, {})


def refuse_locked_record(request: Request) -> None:
    """:raises Locked: clients cannot change the file of the request's record."""
    context: Any = request.context
    locks.refuse(rules_of(request), context.collection)


def outcome(request: Request, record: KintoObject) -> Any:
    """The attachment that a body gives a record; None for none, and the old one if it fails."""
    try:
        body = body_of(request)
        new = stored(record) if body is None else body.outcome(record)
    except MALFORMED:
        return record.get(FIELD)  # Kinto answers 400.
    return None if new is ABSENT else new


def uri_of(request: Request, record_id: str) -> RecordURI:
    ids = request.matchdict
    return RecordURI(ids["bucket_id"], ids["collection_id"], record_id)


def deleted_uris(context: Any, request: Request) -> list[str]:
    """The URIs of the collections or buckets that a request deletes."""
    ids = request.matchdict
    plural = "id" not in ids
    deleted = [each["id"] for each in deleted_objects(context, request)] if plural else [ids["id"]]
    if "bucket_id" in ids:
        return [str(CollectionURI(ids["bucket_id"], each)) for each in deleted]
    return [f"/buckets/{each}" for each in deleted]


def deleted_objects(context: Any, request: Request) -> list[KintoObject]:
    """The objects that a DELETE of many deletes: those that a GET with the same query returns."""
    query = request.environ.get("QUERY_STRING", "")
    asked = build_request(request, {"method": "GET", "path": f"{request.path}?{query}"})
    for name in NOT_INHERITED:
        asked.headers.pop(name, None)
    try:
        found = request.invoke_subrequest(asked, use_tweens=False).json.get("data", [])
    except HTTPException:
        return []  # Kinto refuses the DELETE, too.
    mine = context.shared_ids  # None: all.
    return [
        each for each in found if "deleted" not in each and (mine is None or each["id"] in mine)
    ]
