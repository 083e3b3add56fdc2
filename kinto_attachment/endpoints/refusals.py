"""Errors as responses: Kinto's JSON errors, with CORS headers."""

from __future__ import annotations

import logging

from kinto.core.errors import http_error
from kinto.core.utils import reapply_cors
from kinto.core.views.errors import authorization_required
from pyramid.httpexceptions import HTTPClientError, HTTPForbidden, status_map
from pyramid.response import Response

from kinto_attachment.endpoints.downloads import IDENTITY
from kinto_attachment.errors import (
    AttachmentError,
    ChangeRefused,
    QuotaExceeded,
    StorageError,
    UnsupportedType,
)
from kinto_attachment.files.locations import FILES_ROUTE
from kinto_attachment.kinto_types import Request

logger = logging.getLogger(__name__)


class HTTPChecksumMismatch(HTTPClientError):  # type: ignore[misc]
    """A status of tus, which HTTP does not define."""

    code = 460
    title = "Checksum Mismatch"


STATUSES = {**status_map, HTTPChecksumMismatch.code: HTTPChecksumMismatch}


def forbidden_view(error: HTTPForbidden, request: Request) -> Response:
    """Kinto's 401 or 403, without the password prompt of browsers for images and the like."""
    response = authorization_required(error, request)
    of_a_file = request.matched_route.name == FILES_ROUTE
    part_of_a_page = request.headers.get("Sec-Fetch-Dest", "empty") not in ("empty", "document")
    if (of_a_file or part_of_a_page) and "WWW-Authenticate" in response.headers:
        del response.headers["WWW-Authenticate"]
    if response.status_code == 401:
        response.headers["Vary"] = IDENTITY
    return reapply_cors(request, response)


def error_view(error: AttachmentError, request: Request) -> Response:
    """The plugin's errors, as Kinto's JSON errors."""
    response = http_error(
        STATUSES[error.status](), errno=error.errno, message=str(error), details=error.details
    )
    if error.may_pass and error.status in (409, 503, 507):
        response.headers["Retry-After"] = str(request.registry.settings["retry_after_seconds"])
    if isinstance(error, UnsupportedType) and error.accepted:
        response.headers["Accept-Encoding"] = error.accepted
    if isinstance(error, ChangeRefused | QuotaExceeded):
        request.registry.metrics.count("attachments.refused", unique=[("by", error.by)])
    if error.status == 404:
        response.headers["Vary"] = IDENTITY
    if isinstance(error, StorageError):
        # The reason is also in the message: not every formatter prints tracebacks.
        logger.error("The attachments' storage failed: %s", error.reason, exc_info=error)
    return reapply_cors(request, response)
