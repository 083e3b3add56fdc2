"""Errors that the plugin did not define, as Kinto's JSON errors."""

from __future__ import annotations

from typing import Any

from kinto.core.errors import ERRORS, http_error
from pyramid.httpexceptions import HTTPException, HTTPPreconditionFailed

# Kinto's numbers for the errors of other code, which only have a status.
ERRNOS = {
    400: ERRORS.INVALID_PARAMETERS,
    401: ERRORS.MISSING_AUTH_TOKEN,
    403: ERRORS.FORBIDDEN,
    404: ERRORS.MISSING_RESOURCE,
    409: ERRORS.CONSTRAINT_VIOLATED,
    412: ERRORS.MODIFIED_MEANWHILE,
    413: ERRORS.REQUEST_TOO_LARGE,
    415: ERRORS.INVALID_PARAMETERS,
    429: ERRORS.CLIENT_REACHED_CAPACITY,
    503: ERRORS.BACKEND,
}


def as_json(refusal: HTTPException) -> HTTPException:
    """An HTTP error from other code as a JSON error of Kinto."""
    if refusal.status_code < 400 or refusal.content_type == "application/json":
        return refusal
    errno = ERRNOS.get(refusal.status_code, ERRORS.UNDEFINED)
    message = refusal.detail or refusal.explanation or refusal.title
    response: HTTPException = http_error(refusal, errno=errno, message=message)
    return response


def modified_meanwhile(existing: dict[str, Any] | None) -> HTTPException:
    """Kinto's 412 for a record; ``existing`` is the record, for those who may read it."""
    response: HTTPException = http_error(
        HTTPPreconditionFailed(),
        errno=ERRORS.MODIFIED_MEANWHILE,
        message="Resource was modified meanwhile",
        details={"existing": existing} if existing else {},
    )
    if existing:
        response.headers["ETag"] = f'"{existing["last_modified"]}"'
    return response
