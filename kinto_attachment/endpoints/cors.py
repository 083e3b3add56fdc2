"""Answers that pages of other origins may read (Fetch Standard, "CORS protocol").

Cornice adds its headers to requests that have an ``Origin``. That is not enough for what caches
keep: what a picture has fetched, without one, a script reads afterwards.
"""

from __future__ import annotations

from typing import Any

from kinto.core import Service
from pyramid.config import not_
from pyramid.httpexceptions import HTTPNoContent
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED
from pyramid.settings import aslist

from kinto_attachment.endpoints import attachment, stored_file
from kinto_attachment.endpoints.default_bucket import is_of_default_bucket

EXPOSED_HEADERS = (
    "Accept-Ranges",
    "Cache-Control",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Last-Modified",
    "Location",
    "Repr-Digest",
)
ROUTES = (attachment.ROUTE, stored_file.ROUTE)


def on_response(event: Any) -> None:
    """Have every answer of our endpoints, refusals and redirects included, say who may read it."""
    request, response = event.request, event.response
    if is_ours(request):
        origins = aslist(request.registry.settings["cors_origins"])
        share(response, any_origin="*" in origins)


def is_ours(request: Any) -> bool:
    route = getattr(request, "matched_route", None)
    return route is not None and (route.name in ROUTES or is_of_default_bucket(request))


def share(response: Any, *, any_origin: bool) -> None:
    headers = response.headers
    if any_origin:
        headers["Access-Control-Allow-Origin"] = "*"
    else:
        response.vary = (*(response.vary or ()), "Origin")
    if "Access-Control-Allow-Origin" in headers:
        exposed = dict.fromkeys((*EXPOSED_HEADERS, *Service.default_cors_headers))
        headers["Access-Control-Expose-Headers"] = ", ".join(exposed)


def add_options(config: Any, route_name: str, methods: tuple[str, ...]) -> None:
    """Answer OPTIONS that are no preflight (RFC 9110 9.3.7); those are Cornice's."""

    def announce(request: Any) -> Response:
        return HTTPNoContent(headers={"Allow": ", ".join(methods)})

    config.add_view(
        announce,
        route_name=route_name,
        request_method="OPTIONS",
        header=not_("Access-Control-Request-Method"),
        permission=NO_PERMISSION_REQUIRED,
    )
