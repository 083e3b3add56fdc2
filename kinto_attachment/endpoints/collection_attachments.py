"""``…/collections/{id}/attachments``: the files of a collection, and files for new records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from kinto.core.storage.exceptions import ReadonlyError
from pyramid.httpexceptions import HTTPNotModified
from pyramid.response import Response

from kinto_attachment.endpoints import openapi
from kinto_attachment.endpoints.attachment import (
    answer,
    is_copy,
    name_version,
    outside_default_bucket,
    refuse_parts,
)
from kinto_attachment.endpoints.collection_context import FilesContext
from kinto_attachment.endpoints.context import NewRecordContext
from kinto_attachment.endpoints.counting import counted
from kinto_attachment.endpoints.downloads import CURRENT
from kinto_attachment.endpoints.preconditions import check_preconditions
from kinto_attachment.endpoints.protection import refuse_locked_record
from kinto_attachment.endpoints.validity import WITH_LINKS, linker_of
from kinto_attachment.files import quotas
from kinto_attachment.files.arrivals import NewRecordArrival, attach
from kinto_attachment.files.copying import NewRecordCopy
from kinto_attachment.files.list_queries import ListQuery, parameters
from kinto_attachment.files.listing import page_of, totals
from kinto_attachment.files.locations import outermost
from kinto_attachment.kinto_types import Request

ROUTE = "collection-attachments"
PATH = "/buckets/{bucket_id}/collections/{collection_id}/attachments"


def service(*, readonly: bool, default_bucket: bool) -> Service:
    attachments = Service(
        name=ROUTE,
        path=outside_default_bucket(PATH) if default_bucket else PATH,
        description="The files of a collection",
        factory=context_of,
    )
    # Cornice answers HEAD wherever it answers GET.
    attachments.add_view("GET", get_attachments, permission=DYNAMIC, **openapi.listing())
    if not readonly:
        described = openapi.upload_for_new_record()
        attachments.add_view("POST", post_attachments, permission=DYNAMIC, **described)
    return attachments


def context_of(request: Request) -> FilesContext | NewRecordContext:
    return (NewRecordContext if request.method == "POST" else FilesContext)(request)


def get_attachments(request: Request) -> Response:
    """A page of the collection's files. The response to HEAD has the total of all pages."""
    context: Any = request.context
    context.check_exists()
    query, linker = ListQuery.of(request), linker_of(request)
    headers = timestamp_headers(request)
    etag = headers.get("ETag")
    # Links expire even if no record has changed.
    conditional = not query.kept and linker is None
    if etag and etag in request.headers.get("If-None-Match", "") and conditional:
        return HTTPNotModified(headers=headers)
    if linker:
        headers.update(WITH_LINKS)
    if request.method == "HEAD":
        found = totals(request.registry, context.uri, query)
        headers["Total-Objects"] = headers["Total-Records"] = str(found.files)
        headers["Total-Bytes"] = str(found.bytes)
        headers |= quota_headers(request)
        return with_headers(Response(json={"data": []}), headers)
    page = page_of(request, context.uri, query, linker)
    if page.next:
        headers["Next-Page"] = next_page_url(request, page.next)
    body = f'{{"data": [{",".join(page.items)}]}}'.encode()
    return with_headers(Response(body, content_type="application/json"), headers)


@counted
def post_attachments(request: Request) -> Response:
    """Create a record, and attach the file of a form to it, or (JSON) that of another record."""
    refuse_parts(request)
    check_preconditions(request)
    refuse_locked_record(request)
    arrival = NewRecordCopy if is_copy(request) else NewRecordArrival
    written, attachment = attach(request, arrival)
    record = {"data": written.record, "permissions": written.permissions}
    response = answer(request, written, record)
    name_version(request, response, attachment)
    return response


# The steps.


def timestamp_headers(request: Request) -> dict[str, str]:
    """The timestamp of the collection's records, as for Kinto's own list of them.

    It is read before the records, so a client that later asks for changes since then misses none.
    """
    context: Any = request.context
    try:
        timestamp = request.registry.storage.resource_timestamp("record", str(context.uri))
    except ReadonlyError:
        return dict(CURRENT)  # The collection never had a record.
    return {"ETag": f'"{timestamp}"', **CURRENT}


def quota_headers(request: Request) -> dict[str, str]:
    """The quota in bytes with the least space left, and that space."""
    uri: Any = request.context.uri
    found = quotas.tightest(request, uri.bucket_id, uri.collection_id)
    if found is None or not found[0].bytes:
        return {}
    quota, used = found
    left = max(quota.bytes - used.bytes, 0)
    return {"Quota-Bytes": str(quota.bytes), "Quota-Left": str(left)}


def with_headers(response: Response, headers: Mapping[str, str]) -> Response:
    response.headers.update(headers)
    return response


def next_page_url(request: Request, token: str) -> str:
    """The same query, starting at a token."""
    query = [(name, value) for name, value in parameters(request) if name != "_token"]
    query.append(("_token", token))
    uri: Any = request.context.uri
    ids = {"bucket_id": uri.bucket_id, "collection_id": uri.collection_id}
    return outermost(request).route_url(ROUTE, _query=query, **ids)
