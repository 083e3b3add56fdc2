"""The ``location`` of a stored file: from key to URL, and back.

An upload is linked by the key that its file was stored under, without parsing a location.
Locations are parsed only in two cases: for metadata that was copied from one record to another
(the index also has to know the file), and for records that are older than the index.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from ipaddress import AddressValueError, IPv6Address
from typing import Any

from kinto.core.errors import raise_invalid

from kinto_attachment import names
from kinto_attachment.errors import FileNotFound, InvalidKey
from kinto_attachment.kinto_types import Registry, Request
from kinto_attachment.settings import Settings
from kinto_attachment.storage.storages import Storage
from kinto_attachment.storage_settings import StorageSettings

FILES_ROUTE = "attachment-file"
UPLOAD_ROUTE = "upload"

StorageName = str

# RFC 3986 3.2.2 and 3.2.3, without user information.
_REGISTERED_NAME = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+"
_HOST = re.compile(rf"(?:{_REGISTERED_NAME}|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])(?::[0-9]{{0,5}})?")


def outermost(request: Request) -> Request:
    """The request that the client sent; this may be a sub-request of it."""
    while (parent := getattr(request, "parent", None)) is not None:
        request = parent
    return request


def is_host(text: str) -> bool:
    """Whether the whole text is ``host[:port]`` (RFC 3986 3.2)."""
    match = _HOST.fullmatch(text)
    if match is None:
        return False
    if match["ipv6"]:
        with suppress(AddressValueError):
            return bool(IPv6Address(match["ipv6"]))
        return False
    return True


def check_host(request: Request) -> None:
    """Refuse a ``Host`` header that would change the structure of a URL.

    Parts of a batch have their own headers, which no web server has checked.

    :raises HTTPBadRequest: the header is not ``host[:port]``.
    """
    checked: Request | None = request
    while checked is not None:
        if not is_host(checked.host):
            raise_invalid(request, location="header", name="Host", description="Invalid host.")
        checked = getattr(checked, "parent", None)


def location_of(request: Request, storage: Storage, key: str) -> str:
    """The URL of a stored file: under its storage's ``base_url``, or at the plugin's own endpoint.

    The server's address is that of the outermost request: a part of a batch cannot change it.
    """
    if storage.base_url is None:
        return outermost(request).route_url(FILES_ROUTE, key=key)
    return names.public_url(storage.base_url, key)


def own_files(
    settings: Settings, route_prefix: str, attachment: object
) -> list[tuple[StorageName, str]]:
    """The candidates for the file of an attachment's location on this server: storages and keys.

    The whole location has to match: scheme, host and port, the exact prefix, and a valid key.
    Neither the server's address nor a shared base URL identifies the storage. The files need not
    exist.
    """
    location = _location(attachment)
    server, _, _ = location.partition(f"/{route_prefix}/attachments/")
    own = [f"{server}/{route_prefix}/attachments/"] if _is_own(settings, server) else []
    return [
        (name, key)
        for name, storage in settings.storages.items()
        for key in dict.fromkeys(_keys_under([*_base_urls(storage), *own], location))
    ]


def find_own_file(
    registry: Registry, attachment: Mapping[str, Any]
) -> tuple[StorageName, str] | None:
    """The first of these files that exists with the attachment's size; a single one unchecked.

    :raises StorageError: a storage does not answer.
    """
    files = own_files(registry.attachment_settings, registry.route_prefix, attachment)
    if len(files) == 1:
        return files[0]
    for name, key in files:
        with suppress(FileNotFound):
            stat = registry.attachment_storages[name].files.stat(key)
            if stat.size == attachment.get("size"):
                return name, key
    return None


def possible_keys(settings: Settings, route_prefix: str, attachment: object) -> set[str]:
    """The keys that an attachment's location may contain, on any server.

    Use them only for look-ups in the index, because a key in a location proves nothing.
    """
    location = _location(attachment)
    anywhere, prefixed, _ = location.partition(f"/{route_prefix}/attachments/")
    bases = [url for storage in settings.storages.values() for url in _base_urls(storage)]
    return set(_keys_under([*bases, *([anywhere + prefixed] if prefixed else [])], location))


def _location(attachment: object) -> str:
    location = attachment.get("location") if isinstance(attachment, Mapping) else None
    return location if isinstance(location, str) else ""


def _base_urls(storage: StorageSettings) -> Iterator[str]:
    if storage["base_url"] is not None:
        yield storage["base_url"]
    yield from storage["former_base_urls"]


def _keys_under(bases: Iterable[str], location: str) -> Iterator[str]:
    for base in bases:
        key = names.key_from_url(base, location)
        with suppress(InvalidKey):
            if key is not None:
                yield names.check_key(key)


def _is_own(settings: Settings, server: str) -> bool:
    """Whether this is the server's ``scheme://host``. Without ``http_host``, any host is."""
    scheme, _, host = server.partition("://")
    schemes = ("http", "https") if settings.http_scheme is None else (settings.http_scheme,)
    if scheme not in schemes:
        return False
    if settings.http_host is None:
        return is_host(host)
    # WebOb leaves default ports out of URLs.
    default_port = ":443" if scheme == "https" else ":80"
    return host == settings.http_host.removesuffix(default_port)
