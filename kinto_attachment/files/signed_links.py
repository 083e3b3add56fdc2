"""Links to files that need no credentials: presigned by the storage, or signed by the server."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlencode

from kinto_attachment.errors import LinksNotConfigured
from kinto_attachment.files.locations import FILES_ROUTE, outermost
from kinto_attachment.files.signatures import Signatures
from kinto_attachment.files.uploads import disposition_of
from kinto_attachment.index.link import Link, State
from kinto_attachment.kinto_types import Registry, Request
from kinto_attachment.names import disposition_type, sendable_type
from kinto_attachment.settings import CollectionSettings
from kinto_attachment.storage import SignsUrls
from kinto_attachment.storage.storages import Storage

PURPOSE = "read"
# The longest validity of a URL that S3 or Google signs, in seconds.
PRESIGNED_AGE = 7 * 24 * 3600
# A file that lingers or is withdrawn was replaced or deleted: links to it have ended.
LINKED: tuple[State, ...] = ("current", "kept")


@dataclass(frozen=True)
class SignedLink:
    """A URL, and until when it is valid, in ms since the epoch."""

    url: str
    expires_at: int


@dataclass(frozen=True)
class LinkClaims:
    """What a token in a URL says; ``expires`` is in seconds since the epoch."""

    storage: str
    key: str
    record: str
    version: str
    disposition: str
    filename: str
    expires: int

    @classmethod
    def parse(cls, claims: Mapping[str, Any]) -> LinkClaims | None:
        try:
            parsed = cls(**claims)
        except TypeError:  # Of another release.
            return None
        return parsed if isinstance(parsed.expires, int) else None

    def is_of(self, link: Link) -> bool:
        own = (self.storage, self.key, self.record, self.version)
        return own == (link.storage, link.key, link.record, link.version)


def signed_link(
    request: Request,
    link: Link,
    rules: CollectionSettings,
    expires_in: int,
    disposition: str | None = None,
    filename: str | None = None,
) -> SignedLink:
    """A link to the file of a record, valid for at least ``expires_in`` seconds if it can be.

    ``disposition`` and ``filename`` replace those of the file; types that may not be shown in
    place are still saved.

    :raises LinksNotConfigured: the storage signs no URLs, and the server has no key.
    :raises StorageError: the storage is not configured, or cannot sign.
    """
    storage = request.registry.attachment_storages[link.storage]
    name = filename or link.filename
    kind = _disposition(link, rules, name, disposition)
    if storage.downloads.mode == "redirect":
        return _presigned(storage, link, name, kind, expires_in)
    signing = signing_of(request.registry)
    longest = int(request.registry.attachment_settings["links.max_age"])
    expires = rounded_expiry(time.time(), expires_in, longest)
    claims = LinkClaims(link.storage, link.key, link.record, link.version, kind, name, expires)
    token = signing.sign(PURPOSE, asdict(claims))
    url = outermost(request).route_url(FILES_ROUTE, key=link.key)
    return SignedLink(f"{url}?{urlencode({'token': token})}", expires * 1000)


def linked_file(request: Request, key: str, token: str) -> tuple[Link, LinkClaims] | None:
    """The link that a token is for; None if the token is invalid, expired or for another file.

    It ends with the record's link to the file, whatever its own time.
    """
    signing = request.registry.attachment_signatures
    found = signing.read(PURPOSE, token) if signing is not None else None
    claims = LinkClaims.parse(found) if found is not None else None
    if claims is None or claims.key != key or claims.expires <= time.time():
        return None
    links = request.registry.attachment_links
    for link in links.of_key(key):
        lives = link.state in LINKED and not link.ended and not links.is_of_earlier_life(link)
        if claims.is_of(link) and lives:
            return link, claims
    return None


def signing_of(registry: Registry) -> Signatures:
    """:raises LinksNotConfigured: the server has no key."""
    signing: Signatures | None = registry.attachment_signatures
    if signing is None:
        raise LinksNotConfigured()
    return signing


def rounded_expiry(now: float, expires_in: int, longest: int) -> int:
    """When a link of the server's own expires, in seconds since the epoch.

    It is rounded up to a multiple of half the validity, so that links that are made soon after
    each other are the same, and caches know the file.
    """
    step = max(1, expires_in // 2)
    return min(math.ceil((now + expires_in) / step) * step, int(now) + longest)


def _presigned(
    storage: Storage, link: Link, filename: str, disposition: str, expires_in: int
) -> SignedLink:
    backend = storage.files
    assert isinstance(backend, SignsUrls)  # noqa: S101 - checked at the start-up.
    now = time.time()
    seconds = min(expires_in, PRESIGNED_AGE)
    if (until := backend.signs_until()) is not None:
        seconds = max(1, min(seconds, int(until.timestamp() - now)))
    url = backend.signed_url(
        link.key, seconds, filename, disposition, sendable_type(link.mimetype)
    )
    return SignedLink(url, (int(now) + seconds) * 1000)


def _disposition(
    link: Link, rules: CollectionSettings, filename: str, requested: str | None
) -> str:
    if requested == "attachment":
        return requested
    return disposition_type(disposition_of(rules, filename, link.mimetype))
