"""CORS headers on all responses, which let pages of other origins read them (Fetch Standard).

Cornice adds them only if a request has an ``Origin``. That is not enough for caches: a response to
a request without one, for an image, may later be used for a script.
"""

from __future__ import annotations

from kinto.core import Service
from pyramid.config import not_
from pyramid.httpexceptions import HTTPNoContent
from pyramid.security import NO_PERMISSION_REQUIRED
from pyramid.settings import aslist

from kinto_attachment.endpoints import (
    archive_link,
    attachment,
    collection_archive,
    collection_attachments,
    collection_rules,
    hold,
    link,
    stored_file,
    uploads,
    versions,
)
from kinto_attachment.endpoints.default_bucket import is_of_default_bucket
from kinto_attachment.endpoints.upload_answers import announced
from kinto_attachment.http.upload_steps import UploadProtocol
from kinto_attachment.kinto_types import Configurator, Request, Response, ResponseEvent

EXPOSED_HEADERS = (
    *("Accept-Ranges", "Cache-Control", "Content-Disposition", "Content-Location"),
    *("Content-Range", "ETag", "Last-Modified", "Location", "Repr-Digest", "Retry-After"),
    # Of lists.
    *("Next-Page", "Quota-Bytes", "Quota-Left", "Total-Bytes", "Total-Objects", "Total-Records"),
    # Of uploads in several requests.
    *("Upload-Complete", "Upload-Draft-Interop-Version", "Upload-Expires", "Upload-Length"),
    *("Upload-Limit", "Upload-Metadata", "Upload-Offset", "Tus-Checksum-Algorithm"),
    *("Tus-Extension", "Tus-Max-Size", "Tus-Resumable", "Tus-Version"),
    "Attachment-Version",
)
ROUTES = (
    attachment.ROUTE,
    collection_attachments.ROUTE,
    collection_archive.ROUTE,
    collection_rules.ROUTE,
    hold.ROUTE,
    *(link.ROUTE, link.VERSION_ROUTE, archive_link.ROUTE),
    stored_file.ROUTE,
    *(uploads.ROUTE, uploads.UPLOAD_ROUTE, uploads.COMPLETION_ROUTE, uploads.LIST_ROUTE),
    versions.LIST_ROUTE,
    versions.ROUTE,
    versions.RESTORE_ROUTE,
)


def on_response(event: ResponseEvent) -> None:
    """Add CORS headers to all responses of our endpoints, including errors and redirects."""
    request, response = event.request, event.response
    if is_ours(request):
        origins = aslist(request.registry.settings["cors_origins"])
        share(response, any_origin="*" in origins)


def is_ours(request: Request) -> bool:
    route = getattr(request, "matched_route", None)
    return route is not None and (route.name in ROUTES or is_of_default_bucket(request))


def share(response: Response, *, any_origin: bool) -> None:
    headers = response.headers
    if any_origin:
        headers["Access-Control-Allow-Origin"] = "*"
    else:
        response.vary = (*(response.vary or ()), "Origin")
    if "Access-Control-Allow-Origin" in headers:
        exposed = dict.fromkeys((*EXPOSED_HEADERS, *Service.default_cors_headers))
        headers["Access-Control-Expose-Headers"] = ", ".join(exposed)


def add_options(
    config: Configurator,
    route_name: str,
    methods: tuple[str, ...],
    *protocols: UploadProtocol,
) -> None:
    """Answer OPTIONS requests that are not preflights, which Cornice answers (RFC 9110 9.3.7).

    ``protocols`` add the headers with which they announce their limits.
    """

    def announce(request: Request) -> Response:
        headers = announced(request, *protocols) if protocols else {}
        response: Response = HTTPNoContent(headers={**headers, "Allow": ", ".join(methods)})
        return response

    config.add_view(
        announce,
        route_name=route_name,
        request_method="OPTIONS",
        header=not_("Access-Control-Request-Method"),
        permission=NO_PERMISSION_REQUIRED,
    )
