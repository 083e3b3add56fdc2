"""The attachments below ``/buckets/default``, which stands for the user's own bucket."""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPForbidden
from pyramid.request import Request
from pyramid.response import Response


def is_of_default_bucket(request: Any) -> bool:
    """Whether Kinto's route of the default bucket has taken a request for one of our endpoints."""
    if request.matched_route.name != "default_bucket_collection":
        return False
    parts = request.matchdict.get("subpath", "").split("/")
    return len(parts) == 5 and parts[0::2] == ["collections", "records", "attachment"]


class AttachmentOfDefaultBucket:
    """A view predicate: its view is preferred to Kinto's own for the default bucket."""

    def __init__(self, value: bool, config: Any) -> None:
        self.value = value

    def text(self) -> str:
        return f"attachment_of_default_bucket = {self.value}"

    phash = text

    def __call__(self, context: Any, request: Any) -> bool:
        return is_of_default_bucket(request) and request.method != "OPTIONS"


def default_bucket_attachment(request: Any) -> Response:
    """The same endpoints below ``/buckets/default``.

    Kinto's own view of the default bucket would read the body into memory to pass it on.
    """
    if request.authenticated_userid is None:
        raise HTTPForbidden()  # Kinto makes a 401 of it.
    real = f"/buckets/{request.default_bucket_id}/"
    environ = {k: v for k, v in request.environ.items() if not k.startswith(("webob.", "bfg."))}
    environ["PATH_INFO"] = environ["PATH_INFO"].replace("/buckets/default/", real, 1)
    subrequest = Request(environ)
    subrequest.registry = request.registry
    subrequest.parent = request
    subrequest.implicit_parents = True
    return request.invoke_subrequest(subrequest)
