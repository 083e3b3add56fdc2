"""The ``attachment`` in records that clients write is checked before Kinto writes them.

Listeners check it again, but at the end of a batch, when a refusal fails all of its parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kinto.core.authorization import DYNAMIC
from kinto.core.errors import raise_invalid
from kinto.core.utils import json

from kinto_attachment.files import guard
from kinto_attachment.files.record_bodies import MALFORMED, RecordBody, body_of, stored
from kinto_attachment.kinto_types import KintoObject, Request, Response
from kinto_attachment.metadata import ABSENT
from kinto_attachment.settings import CollectionSettings
from kinto_attachment.uris import RecordURI

ROUTES = ("record-object", "record-plural")  # Kinto's.
WRITES = ("POST", "PUT", "PATCH")

View = Callable[[Any, Request], Response]


def guarding(view: View, info: Any) -> View:
    """A view deriver for Kinto's views of records; it runs once the user is authorized."""
    if info.options.get("route_name") not in ROUTES or info.options.get("permission") != DYNAMIC:
        return view  # Cornice's own views answer 415, to everybody.

    def guarded(context: Any, request: Request) -> Response:
        if request.method in WRITES and not guard.is_allowed(request):
            decide(request, context.current_object)
        return view(context, request)

    return guarded


def decide(request: Request, record: KintoObject | None) -> None:
    """Refuse a change of the attachment, or remove it from the body, as the settings say.

    ``record`` is the object that Kinto will write, as it is stored; None if it does not exist.

    :raises HTTPBadRequest: the attachment is not the stored one.
    """
    if (request.method == "PATCH" and record is None) or (request.method == "POST" and record):
        return  # Kinto answers 404, or with the record that exists.
    old = stored(record)
    try:
        body = body_of(request)
        if body is None:
            return
        new = body.outcome(record)
    except MALFORMED:
        return  # Kinto answers 400.
    if guard.is_forged(new, old):
        on_difference(request, body, record)
    elif new is None and old is not None:
        on_null(request, body)
    elif new is ABSENT and old not in (ABSENT, None) and body.leaves_out():
        on_omission(request, body, old)


def on_difference(request: Request, body: RecordBody, record: KintoObject | None) -> None:
    if rules_of_collection(request).client_metadata == "ignore":
        old = stored(record)
        write(request, body, ABSENT if old is None else old)
    elif not precondition_fails(request, record):  # Kinto's 412 tells clients of the conflict.
        raise guard.refusal(request, uri_of(request, body))


def on_null(request: Request, body: RecordBody) -> None:
    """Remove the member if a missing member is harmless to offline copies.

    With a null, the copy of an offline client would delete files that were uploaded later.
    """
    if not rules_of_collection(request).delete_on_omission:
        write(request, body, ABSENT)


def on_omission(request: Request, body: RecordBody, old: Any) -> None:
    if not rules_of_collection(request).delete_on_omission:
        write(request, body, old)


def write(request: Request, body: RecordBody, attachment: Any) -> None:
    """Make Kinto write another attachment.

    This changes the body instead of making a sub-request, which would authorize the user and read
    the record again.

    :raises HTTPBadRequest: JSON cannot have the request's charset.
    """
    body.store(attachment)
    try:
        request.body = json.dumps(body.json).encode(request.charset)
    except UnicodeError:  # Python's `idna` is one for host names.
        description = f"The charset {request.charset} cannot encode JSON."
        raise_invalid(request, location="header", name="Content-Type", description=description)


def rules_of_collection(request: Request) -> CollectionSettings:
    ids = request.matchdict
    resolver = request.registry.attachment_collection_settings
    return resolver.of(request, ids["bucket_id"], ids["collection_id"])


def precondition_fails(request: Request, record: KintoObject | None) -> bool:
    """Whether Kinto will answer 412, or 400 for a malformed header."""
    if record is not None and request.headers.get("If-None-Match") == "*":
        return True
    if_match = request.headers.get("If-Match", "").strip()
    if not if_match:
        return False
    return record is None or if_match.strip('"') not in ("*", str(record["last_modified"]))


def uri_of(request: Request, body: RecordBody) -> str:
    """The record's URI, or that of the collection's records if Kinto has yet to make the id."""
    ids = request.matchdict
    record_id = ids.get("id") or body.json["data"].get("id") or ""
    uri = RecordURI(ids["bucket_id"], ids["collection_id"], record_id)
    return str(uri).rstrip("/")
