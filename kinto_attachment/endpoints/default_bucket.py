"""Attachments below ``/buckets/default``, the bucket of the current user."""

from __future__ import annotations

import re

from pyramid.httpexceptions import HTTPForbidden
from pyramid.request import Request as PyramidRequest
from pyramid.response import Response

from kinto_attachment.kinto_types import Request

OURS = re.compile(
    r"collections/[^/]*/"
    r"(?:attachments(?:\.zip|/rules|/uploads)?"
    r"|records/[^/]*/attachment(?:/url|/uploads(?:/[^/]*(?:/complete)?)?|/versions(?:/[^/]*(?:/restore)?)?)?)"
)


def is_of_default_bucket(request: Request) -> bool:
    """Whether a request for our endpoint was matched by Kinto's route for the default bucket."""
    if request.matched_route.name != "default_bucket_collection":
        return False
    subpath = request.matchdict.get("subpath", "")
    return bool(OURS.fullmatch(subpath))


class AttachmentOfDefaultBucket:
    """A view predicate, by which our view takes precedence over Kinto's for the default bucket."""

    def __init__(self, value: bool, config: object) -> None:
        self.value = value

    def text(self) -> str:
        return f"attachment_of_default_bucket = {self.value}"

    phash = text

    def __call__(self, context: object, request: Request) -> bool:
        return is_of_default_bucket(request) and request.method != "OPTIONS"


def default_bucket_attachment(request: Request) -> Response:
    """Pass a request on to the user's bucket.

    Kinto's own view for the default bucket would read the whole body into memory.
    """
    if request.authenticated_userid is None:
        raise HTTPForbidden()  # Kinto turns it into a 401.
    real = f"/buckets/{request.default_bucket_id}/"
    environ = {k: v for k, v in request.environ.items() if not k.startswith(("webob.", "bfg."))}
    environ["PATH_INFO"] = environ["PATH_INFO"].replace("/buckets/default/", real, 1)
    subrequest: Request = PyramidRequest(environ)
    subrequest.registry = request.registry
    subrequest.parent = request
    subrequest.implicit_parents = True
    return request.invoke_subrequest(subrequest)
