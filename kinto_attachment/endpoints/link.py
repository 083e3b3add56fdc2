"""``…/records/{id}/attachment/url``: a link to the record's file that needs no credentials."""

from __future__ import annotations

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from pyramid.response import Response

from kinto_attachment.endpoints import openapi
from kinto_attachment.endpoints.attachment import (
    PATH as ATTACHMENT_PATH,
    outside_default_bucket,
)
from kinto_attachment.endpoints.context import RecordContext
from kinto_attachment.endpoints.downloads import requested_disposition
from kinto_attachment.errors import FileNotFound, InvalidBody
from kinto_attachment.files.signed_links import signed_link
from kinto_attachment.files.sources import current_link
from kinto_attachment.files.uploads import rules_of
from kinto_attachment.kinto_types import Request
from kinto_attachment.metadata import FIELD
from kinto_attachment.parsers import duration

ROUTE = "attachment-url"
PATH = f"{ATTACHMENT_PATH}/url"
EXPIRES_IN = "600"  # Seconds.


def service(*, default_bucket: bool) -> Service:
    link = Service(
        name=ROUTE,
        path=outside_default_bucket(PATH) if default_bucket else PATH,
        description="A link to the file attached to a record",
        factory=RecordContext,
    )
    link.add_view("GET", get_link, permission=DYNAMIC, **openapi.link_to_file())
    return link


def get_link(request: Request) -> Response:
    """A link to the record's current file, under its own name or the query's."""
    expires_in = validity(request)
    disposition, filename = requested_disposition(request)
    metadata = request.context.existing_record().get(FIELD)
    current = current_link(request.registry, str(request.context.uri))
    if current is None or not isinstance(metadata, dict):
        raise FileNotFound("The record has no attachment.")
    made = signed_link(request, current, rules_of(request), expires_in, disposition, filename)
    response = Response(json={"data": {"url": made.url, "expires_at": made.expires_at}})
    response.headers["Cache-Control"] = "no-store"
    return response


def validity(request: Request) -> int:
    """How long the link should be valid, in seconds, from ``?expires_in=``.

    :raises InvalidBody: it is not a time, or out of bounds.
    """
    longest = request.registry.attachment_settings["links.max_age"]
    try:
        seconds = int(duration(request.GET.get("expires_in", EXPIRES_IN)))
    except ValueError as error:
        raise InvalidBody(f"expires_in in querystring: {error}") from error
    if not 1 <= seconds <= longest:
        raise InvalidBody(f"expires_in in querystring: should be 1 to {longest} seconds")
    return seconds
