"""The tokens in URLs that the server signs, which replace credentials."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from typing import Any

from itsdangerous import BadData, URLSafeSerializer

from kinto_attachment.errors import LinksNotConfigured
from kinto_attachment.kinto_types import Registry

DERIVED_FOR = b"kinto-attachment: signing key"


class Signatures:
    """Signs tokens with the first key, and verifies them with all keys.

    A token is valid for one purpose only.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        # itsdangerous signs with the last one.
        self._keys = list(reversed(keys))
        self._serializers: dict[str, URLSafeSerializer] = {}

    def sign(self, purpose: str, claims: Mapping[str, Any]) -> str:
        """A token for URLs; the same claims give the same token."""
        token = self._serializer(purpose).dumps(dict(sorted(claims.items())))
        return token if isinstance(token, str) else token.decode()

    def read(self, purpose: str, token: str) -> dict[str, Any] | None:
        """The claims of a token; None if this server did not sign it for this purpose."""
        try:
            claims = self._serializer(purpose).loads(token)
        except BadData:
            return None
        return claims if isinstance(claims, dict) else None

    def _serializer(self, purpose: str) -> URLSafeSerializer:
        if purpose not in self._serializers:
            # The purpose is part of the key of each signature.
            self._serializers[purpose] = URLSafeSerializer(
                self._keys,
                salt=f"kinto-attachment {purpose}",
                signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
            )
        return self._serializers[purpose]


def signatures(keys: Sequence[bytes], server_secret: str) -> Signatures | None:
    """The signatures of a server, with its keys or a key that is derived from Kinto's secret.

    None if it has neither.
    """
    if keys:
        return Signatures(keys)
    return Signatures([derived_key(server_secret.encode())]) if server_secret else None


def signing_of(registry: Registry) -> Signatures:
    """:raises LinksNotConfigured: the server has no key."""
    signing: Signatures | None = registry.attachment_signatures
    if signing is None:
        raise LinksNotConfigured()
    return signing


def valid_claims(registry: Registry, purpose: str, token: str) -> dict[str, Any] | None:
    """The claims of an unexpired token that this server signed for this purpose.

    All have ``expires``, in seconds since the epoch.
    """
    signing = registry.attachment_signatures
    claims = signing.read(purpose, token) if signing is not None else None
    expires = claims.get("expires") if claims is not None else None
    return claims if isinstance(expires, int) and expires > time.time() else None


def derived_key(secret: bytes, purpose: bytes = DERIVED_FOR) -> bytes:
    """A key of 32 bytes, by HKDF with SHA-256 and without a salt (RFC 5869 2.2 and 2.3)."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, purpose + b"\x01", "sha256")
