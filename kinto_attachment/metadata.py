"""The attachment object that a record carries, and how its location tells the object key."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from kinto_attachment import names
from kinto_attachment.errors import InvalidKey
from kinto_attachment.settings import Settings
from kinto_attachment.storage import check_key

FIELD = "attachment"
FILES_ROUTE = "attachment-file"


@dataclass(frozen=True)
class Original:
    """What the client sent, when the stored bytes are its compressed form."""

    filename: str
    hash: str
    mimetype: str
    size: int


@dataclass(frozen=True)
class Attachment:
    """``hash`` is the SHA-256 of the stored bytes in hex, ``size`` their number."""

    filename: str
    hash: str
    location: str
    mimetype: str
    size: int
    original: Original | None = None

    def to_json(self) -> dict[str, Any]:
        fields = dict(vars(self))
        if self.original is None:
            del fields["original"]
        else:
            fields["original"] = dict(vars(self.original))
        return fields


def location_of(request: Any, settings: Settings, key: str) -> str:
    """Where a client finds the stored file: under ``base_url``, or at the plugin's own URL."""
    if settings["base_url"] is None:
        url: str = request.route_url(FILES_ROUTE, key=key)
        return url
    return names.public_url(settings["base_url"], key)


def key_of(settings: Settings, route_prefix: str, attachment: Any) -> str | None:
    """The object key that an attachment's ``location`` stands for, None if it is not ours.

    Both forms of location are tried, so that records keep their files when an operator sets
    or unsets ``base_url``; the server's own name does not matter, since it may change too.
    """
    location = attachment.get("location") if isinstance(attachment, Mapping) else None
    if not isinstance(location, str):
        return None
    for key in (_under_base_url(settings["base_url"], location), _own_url(route_prefix, location)):
        with suppress(InvalidKey):
            if key:
                return check_key(key)
    return None


def _under_base_url(base_url: str | None, location: str) -> str | None:
    if base_url is None or (not base_url and "://" in location):
        return None
    return names.key_from_url(base_url, location)


def _own_url(route_prefix: str, location: str) -> str | None:
    try:
        path = urlsplit(location).path
    except ValueError:
        return None
    _, found, key = path.partition(f"/{route_prefix}/attachments/")
    return unquote(key) if found else None
