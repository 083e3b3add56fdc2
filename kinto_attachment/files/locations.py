"""Where clients find a stored file, and which file a ``location`` in a record stands for.

A request links the file that it stored by the key that it stored it under; no location is read
for that. Locations are read where there is nothing else to go by: when metadata was copied from
one record to another (the index has to know the file, too), and for records from before the index.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from ipaddress import AddressValueError, IPv6Address
from typing import Any

from kinto.core.errors import raise_invalid

from kinto_attachment import names
from kinto_attachment.errors import InvalidKey
from kinto_attachment.settings import Settings

FILES_ROUTE = "attachment-file"

# RFC 3986 3.2.2 and 3.2.3, without user information.
_REGISTERED_NAME = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+"
_HOST = re.compile(rf"(?:{_REGISTERED_NAME}|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])(?::[0-9]{{0,5}})?")


def outermost(request: Any) -> Any:
    """The request that the client sent, of which this may be a part."""
    while (parent := getattr(request, "parent", None)) is not None:
        request = parent
    return request


def is_host(text: str) -> bool:
    """Whether this is ``host[:port]`` (RFC 3986 3.2), and nothing else."""
    match = _HOST.fullmatch(text)
    if match is None:
        return False
    if match["ipv6"]:
        with suppress(AddressValueError):
            return bool(IPv6Address(match["ipv6"]))
        return False
    return True


def check_host(request: Any) -> None:
    """Refuse a ``Host`` that would become something else than a host in a URL.

    A part of a batch has headers of its own, which no web server in front has seen.

    :raises HTTPBadRequest: the header is not ``host[:port]``.
    """
    asked = request
    while asked is not None:
        if not is_host(asked.host):
            raise_invalid(request, location="header", name="Host", description="Invalid host.")
        asked = getattr(asked, "parent", None)


def location_of(request: Any, settings: Settings, key: str) -> str:
    """Where a client finds the stored file: under ``base_url``, or at the plugin's own URL.

    The server's address is the one that the client used: a part of a batch does not choose it.
    """
    if settings["base_url"] is None:
        url: str = outermost(request).route_url(FILES_ROUTE, key=key)
        return url
    return names.public_url(settings["base_url"], key)


def own_key(settings: Settings, route_prefix: str, attachment: Any) -> str | None:
    """The object key of an attachment whose location is one that this server gives, or gave.

    All of the location has to match: scheme and authority, the exact prefix, a valid key, and
    nothing else.
    """
    location = _location(attachment)
    server, _, _ = location.partition(f"/{route_prefix}/attachments/")
    bases = [*_base_urls(settings)]
    if _is_own(settings, server):
        bases.append(f"{server}/{route_prefix}/attachments/")
    return next(_keys_under(bases, location), None)


def possible_keys(settings: Settings, route_prefix: str, attachment: Any) -> set[str]:
    """The keys that an attachment's location may stand for, on whatever server it is.

    Only to ask the index about: that a location names a key is no reason to use the file.
    """
    location = _location(attachment)
    anywhere, prefixed, _ = location.partition(f"/{route_prefix}/attachments/")
    bases = [*_base_urls(settings), *([anywhere + prefixed] if prefixed else [])]
    return set(_keys_under(bases, location))


def _location(attachment: Any) -> str:
    location = attachment.get("location") if isinstance(attachment, Mapping) else None
    return location if isinstance(location, str) else ""


def _base_urls(settings: Settings) -> Iterator[str]:
    if settings["base_url"] is not None:
        yield settings["base_url"]
    yield from settings["former_base_urls"]


def _keys_under(bases: Iterable[str], location: str) -> Iterator[str]:
    for base in bases:
        key = names.key_from_url(base, location)
        with suppress(InvalidKey):
            if key is not None:
                yield names.check_key(key)


def _is_own(settings: Settings, server: str) -> bool:
    """Whether the server answers at ``scheme://host``; without ``http_host``, it does at any."""
    scheme, _, host = server.partition("://")
    schemes = ("http", "https") if settings.http_scheme is None else (settings.http_scheme,)
    if scheme not in schemes:
        return False
    if settings.http_host is None:
        return is_host(host)
    # As WebOb has it in the URLs that it makes.
    default_port = ":443" if scheme == "https" else ":80"
    return host == settings.http_host.removesuffix(default_port)
