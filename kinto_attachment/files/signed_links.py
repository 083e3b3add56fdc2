"""Links to files that need no credentials: presigned by the storage, or signed by the server."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.files.locations import FILES_ROUTE, StorageName, outermost
from kinto_attachment.files.signatures import signing_of, valid_claims
from kinto_attachment.files.uploads import disposition_type_of
from kinto_attachment.index.link import Link, State
from kinto_attachment.kinto_types import Request
from kinto_attachment.names import sendable_type
from kinto_attachment.settings import CollectionSettings
from kinto_attachment.storage import SignsUrls
from kinto_attachment.storage.storages import Storage

PURPOSE = "read"
# The longest validity of a URL that S3 or Google signs, in seconds.
PRESIGNED_AGE = 7 * 24 * 3600
# A lingering or withdrawn file was replaced or deleted, so links to it have ended.
LINKED: tuple[State, ...] = ("current", "kept")


@dataclass(frozen=True)
class SignedLink:
    """A URL and when it expires, in ms since the epoch."""

    url: str
    expires_at: int


@dataclass(frozen=True)
class LinkClaims:
    """The content of a token in a URL; ``expires`` is in seconds since the epoch."""

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
            return cls(**claims)
        except TypeError:  # The token is from another release.
            return None

    def is_of(self, link: Link) -> bool:
        # The storage may have changed. A key is unique over all storages.
        own = (self.key, self.record, self.version)
        return own == (link.key, link.record, link.version)


class Linker:
    """Makes links to files of one collection with the same validity, for a request.

    They are valid for at least ``expires_in`` seconds if possible.
    """

    def __init__(self, request: Request, rules: CollectionSettings, expires_in: int) -> None:
        self._request = request
        self._registry = request.registry
        self._rules = rules
        self._expires_in = expires_in
        self._now = time.time()
        self._longest_presigned: dict[StorageName, int] = {}

    def link(
        self, link: Link, disposition: str | None = None, filename: str | None = None
    ) -> SignedLink:
        """A link to the file of a record.

        ``disposition`` and ``filename`` replace those of the file; browsers still save types that
        are not allowed inline.

        :raises LinksNotConfigured: the storage signs no URLs, and the server has no key.
        :raises StorageError: the storage is not configured, or cannot sign.
        """
        storage = self._registry.attachment_storages[link.storage]
        name = filename or link.filename
        kind = _disposition(link, self._rules, disposition)
        sign = self._presigned if storage.downloads.mode == "redirect" else self._own
        return sign(storage, link, name, kind)

    def members(self, link: Link | None) -> dict[str, Any]:
        """The members that a list has for each file: null for files that cannot have links."""
        storages = self._registry.attachment_storages
        if link is None or not is_linked(link) or storages.get(link.storage) is None:
            return {"url": None, "url_expires_at": None}
        made = self.link(link)
        return {"url": made.url, "url_expires_at": made.expires_at}

    def _own(self, storage: Storage, link: Link, filename: str, disposition: str) -> SignedLink:
        longest = int(self._registry.attachment_settings["links.max_age"])
        expires = rounded_expiry(self._now, self._expires_in, longest)
        claims = LinkClaims(
            link.storage, link.key, link.record, link.version, disposition, filename, expires
        )
        token = signing_of(self._registry).sign(PURPOSE, vars(claims))
        url = outermost(self._request).route_url(FILES_ROUTE, key=link.key)
        return SignedLink(f"{url}?token={token}", expires * 1000)

    def _presigned(
        self, storage: Storage, link: Link, filename: str, disposition: str
    ) -> SignedLink:
        backend = storage.files
        assert isinstance(backend, SignsUrls)  # noqa: S101 - checked at the start-up.
        longest = self._longest_presigned
        if storage.name not in longest:
            longest[storage.name] = _longest_presigned(storage, self._now)
        seconds = min(self._expires_in, longest[storage.name])
        kind = sendable_type(link.mimetype)
        url = backend.signed_url(link.key, seconds, filename, disposition, kind)
        return SignedLink(url, (int(self._now) + seconds) * 1000)


def linked_file(request: Request, key: str, token: str) -> tuple[Link, LinkClaims] | None:
    """The link of a token; None if the token is invalid, expired or for another file.

    A token stops working when the record loses the file, even before it expires.
    """
    found = valid_claims(request.registry, PURPOSE, token)
    claims = LinkClaims.parse(found) if found is not None else None
    if claims is None or claims.key != key:
        return None
    links = request.registry.attachment_links
    for link in links.of_key(key):
        if claims.is_of(link) and is_linked(link) and not links.is_of_earlier_life(link):
            return link, claims
    return None


def rounded_expiry(now: float, expires_in: int, longest: int) -> int:
    """When a link that the server signs expires, in seconds since the epoch.

    It is rounded up to a multiple of half the validity, so that links that are made in quick
    succession are the same, and caches can be used.
    """
    step = max(1, expires_in // 2)
    return min(math.ceil((now + expires_in) / step) * step, int(now) + longest)


def is_linked(link: Link) -> bool:
    """Whether links to a file work, according to its row."""
    return link.state in LINKED and not link.ended


def _longest_presigned(storage: Storage, now: float) -> int:
    """The longest validity of a URL that the storage signs now, in whole seconds.

    :raises StorageUnavailable: its credentials are about to expire, and there are no others.
    """
    until = storage.files.signs_until()
    if until is None:
        return PRESIGNED_AGE
    seconds = int(until.timestamp()) - int(now)
    if seconds < 1:
        raise StorageUnavailable("The credentials that sign URLs are about to expire.")
    return min(seconds, PRESIGNED_AGE)


def _disposition(link: Link, rules: CollectionSettings, requested: str | None) -> str:
    if requested == "attachment":
        return requested
    return disposition_type_of(rules, link.mimetype)
