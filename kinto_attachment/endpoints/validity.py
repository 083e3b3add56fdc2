"""The validity of the links that a query requests."""

from __future__ import annotations

from kinto_attachment.errors import InvalidBody
from kinto_attachment.files.signed_links import Linker
from kinto_attachment.files.uploads import rules_of
from kinto_attachment.kinto_types import Request
from kinto_attachment.quantities import duration

EXPIRES_IN = "600"  # Seconds. For responses with links, which are credentials.
WITH_LINKS = {"Cache-Control": "no-store"}


def validity(request: Request, name: str = "expires_in") -> int:
    """The validity in seconds from a parameter of the query.

    :raises InvalidBody: it is not a time, or out of bounds.
    """
    longest = request.registry.attachment_settings["links.max_age"]
    try:
        seconds = int(duration(request.GET.get(name, EXPIRES_IN)))
    except ValueError as error:
        raise InvalidBody(f"{name} in querystring: {error}") from error
    if not 1 <= seconds <= longest:
        raise InvalidBody(f"{name} in querystring: should be 1 to {longest} seconds")
    return seconds


def linker_of(request: Request) -> Linker | None:
    """The maker of the links in a list; None if the query has no ``_urls``.

    :raises InvalidBody: it is not a time, or out of bounds.
    """
    if "_urls" not in request.GET:
        return None
    return Linker(request, rules_of(request), validity(request, "_urls"))
