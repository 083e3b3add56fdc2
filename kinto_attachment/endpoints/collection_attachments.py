"""``…/collections/{id}/attachments``: files for new records of a collection."""

from __future__ import annotations

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from pyramid.response import Response

from kinto_attachment.endpoints import openapi
from kinto_attachment.endpoints.attachment import (
    answer,
    outside_default_bucket,
    refuse_parts,
)
from kinto_attachment.endpoints.context import NewRecordContext
from kinto_attachment.endpoints.counting import counted
from kinto_attachment.endpoints.preconditions import check_preconditions
from kinto_attachment.files.arrivals import NewRecordArrival, attach
from kinto_attachment.kinto_types import Request

ROUTE = "collection-attachments"
PATH = "/buckets/{bucket_id}/collections/{collection_id}/attachments"


def service(*, readonly: bool, default_bucket: bool) -> Service:
    attachments = Service(
        name=ROUTE,
        path=outside_default_bucket(PATH) if default_bucket else PATH,
        description="Files for new records",
        factory=NewRecordContext,
    )
    if not readonly:
        described = openapi.upload_for_new_record()
        attachments.add_view("POST", post_attachments, permission=DYNAMIC, **described)
    return attachments


@counted
def post_attachments(request: Request) -> Response:
    """Create a record, and attach the file of a form to it."""
    refuse_parts(request)
    check_preconditions(request)
    written, _ = attach(request, NewRecordArrival)
    record = {"data": written.record, "permissions": written.permissions}
    return answer(request, written, record)
