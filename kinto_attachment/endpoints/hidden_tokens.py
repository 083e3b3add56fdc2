"""Keeping the tokens of links, which are credentials, out of Kinto's log of requests."""

from __future__ import annotations

from kinto_attachment.kinto_types import RequestEvent

HIDDEN = "***"


def hide_token(event: RequestEvent) -> None:
    """Replace the token in the data that Kinto logs about a request for a file."""
    request = event.request
    # Most requests have no query. Parsing it would take long.
    if not request.environ.get("QUERY_STRING"):
        return
    if "/attachment" in request.path and "token" in request.GET:
        request.log_context(querystring={**request.GET, "token": HIDDEN})
