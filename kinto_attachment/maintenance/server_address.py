"""The server's address in the ``location`` of files, which a command gets from settings."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from pyramid.request import Request as PyramidRequest

from kinto_attachment.files.locations import is_host
from kinto_attachment.kinto_types import Registry, Request
from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.storage.storages import Storage

NEEDED = (
    "The server's address is part of each location, and not known. Name it with --server URL, or "
    "set kinto.http_scheme and kinto.http_host, or kinto.attachment.base_url"
)
NO_SCHEME = (
    "kinto.http_host is set, but kinto.http_scheme is not. Set it, or name the server's address "
    "with --server URL"
)
NO_URL = "--server should be a URL such as https://kinto.example.com"
OTHER = "--server is not the address that kinto.http_host and kinto.http_scheme say: {}"


def request_at_server(
    registry: Registry, server: str | None, storages: Iterable[Storage]
) -> Request:
    """A request to the server, for ``location_of`` files in these storages.

    ``server`` is the server's URL, with or without the API version.

    :raises CommandError: it is none, or the address is needed and not known.
    """
    request = PyramidRequest.blank("/", base_url=server_address(registry, server, storages))
    request.registry = registry
    made: Request = request
    return made


def server_address(
    registry: Registry, server: str | None, storages: Iterable[Storage]
) -> str | None:
    """The server's URL without the API version; None if it is neither known nor needed.

    :raises CommandError: it is none, or the address is needed and not known.
    """
    url = _checked(server, registry) if server is not None else None
    if any(storage.base_url is None for storage in storages):
        url = url or _configured(registry)
    return url


def _configured(registry: Registry) -> str:
    settings = registry.attachment_settings
    if settings.http_host is None:
        raise CommandError(NEEDED)
    if settings.http_scheme is None:
        raise CommandError(NO_SCHEME)
    return f"{settings.http_scheme}://{settings.http_host}"


def _checked(server: str, registry: Registry) -> str:
    try:
        parts = urlsplit(server)
    except ValueError as error:
        raise CommandError(NO_URL) from error
    is_url = parts.scheme in ("http", "https") and is_host(parts.netloc)
    if not is_url or parts.query or parts.fragment or not server.isascii():
        raise CommandError(NO_URL)
    settings = registry.attachment_settings
    found = parts.scheme, parts.netloc
    said = settings.http_scheme or parts.scheme, settings.http_host or parts.netloc
    if found != said:
        raise CommandError(OTHER.format("://".join(said)))
    path = parts.path.rstrip("/").removesuffix(f"/{registry.route_prefix}").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"
