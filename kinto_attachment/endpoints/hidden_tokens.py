"""Tokens of links are credentials: Kinto's log of requests does not get them."""

from __future__ import annotations

from kinto_attachment.kinto_types import RequestEvent

HIDDEN = "***"


def hide_token(event: RequestEvent) -> None:
    """Replace the token in what Kinto logs of a request for a file."""
    request = event.request
    # Most requests have no query. For these, nothing is parsed, since that takes long.
    if not request.environ.get("QUERY_STRING"):
        return
    if "/attachment" in request.path and "token" in request.GET:
        request.log_context(querystring={**request.GET, "token": HIDDEN})
