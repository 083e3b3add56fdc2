"""The address by which clients reach the server: a command has no request that tells it."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.locations import is_host
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.uris import CollectionURI

NO_ADDRESS = "`location` needs kinto.attachment.base_url, kinto.http_host, or --server URL"


def address(registry: Registry, server: str | None, collections: Iterable[CollectionURI]) -> str:
    """The server's URL, without the API version, for files of these collections.

    :raises CommandError: it is needed and not known, or is none.
    """
    settings = registry.attachment_settings
    if server is not None:
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not is_host(parts.netloc):
            raise CommandError("--server should be a URL such as https://kinto.example.com/v1")
        # Kinto does not work below another path.
        if parts.path.strip("/") not in ("", registry.route_prefix) or parts.query:
            raise CommandError(f"--server should end with /{registry.route_prefix}")
        return f"{parts.scheme}://{parts.netloc}"
    if settings.http_host is not None:
        return f"{settings.http_scheme or 'http'}://{settings.http_host}"
    resolver = registry.attachment_collection_settings
    for uri in collections:
        rules = resolver.without_user(Ledger(), uri.bucket_id, uri.collection_id)
        if registry.attachment_storages[rules.storage].base_url is None:
            raise CommandError(NO_ADDRESS)
    return "http://localhost"  # No location has it.
