"""``…/records/{id}/attachment/hold``: the hold of a record's file."""

from __future__ import annotations

from typing import Any

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from pyramid.response import Response

from kinto_attachment.endpoints import openapi
from kinto_attachment.endpoints.attachment import (
    PATH as ATTACHMENT_PATH,
    NoContent,
    outside_default_bucket,
)
from kinto_attachment.endpoints.context import HoldContext
from kinto_attachment.endpoints.downloads import CURRENT
from kinto_attachment.endpoints.preconditions import check_preconditions
from kinto_attachment.files import holding
from kinto_attachment.index.holds import Hold
from kinto_attachment.kinto_types import Request

ROUTE = "attachment-hold"
PATH = f"{ATTACHMENT_PATH}/hold"


def service(*, readonly: bool, default_bucket: bool) -> Service:
    hold = Service(
        name=ROUTE,
        path=outside_default_bucket(PATH) if default_bucket else PATH,
        description="The hold of the file attached to a record",
        factory=HoldContext,
    )
    hold.add_view("GET", get_hold, permission=DYNAMIC, **openapi.hold_of_file())
    if not readonly:
        hold.add_view("PUT", put_hold, permission=DYNAMIC, **openapi.holding())
        hold.add_view("DELETE", delete_hold, permission=DYNAMIC, **openapi.end_of_hold())
    return hold


def get_hold(request: Request) -> Response:
    """The hold of the record's file."""
    request.context.existing_record()
    response = Response(json={"data": as_json(holding.present(request))})
    response.headers.update(CURRENT)
    return response


def put_hold(request: Request) -> Response:
    """Hold the record's file, or hold it for longer."""
    request.context.existing_record()
    check_preconditions(request)
    return Response(json={"data": as_json(holding.put(request))})


def delete_hold(request: Request) -> Response:
    """End an open-ended hold."""
    request.context.existing_record()
    check_preconditions(request)
    holding.end(request)
    return NoContent()


# The steps.


def as_json(hold: Hold) -> dict[str, Any]:
    """``until`` is null if the hold is open-ended; ``date`` is the latest date that was set."""
    return {
        "until": None if hold.is_open else hold.until,
        "date": hold.until or None,
        "reason": hold.reason,
        "by": hold.by,
        "since": hold.since,
    }
