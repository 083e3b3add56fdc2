"""Links that need no credentials."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from itsdangerous import URLSafeSerializer

from kinto_attachment.files.signatures import Signatures
from kinto_attachment.files.signed_links import PURPOSE, LinkClaims
from tests.support.application import ALICE, RECORD

URL = f"{RECORD}/attachment/url"
KEYS = ("first-key-" + "1" * 32, "second-key-" + "2" * 32)


def link(app: Any, uri: str = URL, headers: Any = ALICE, **query: Any) -> dict[str, Any]:
    """The server's response to a request for a link."""
    suffix = f"?{urlencode(query)}" if query else ""
    data: dict[str, Any] = app.get(uri + suffix, headers=headers).json["data"]
    return data


def own_path(url: str) -> str:
    """The path of a URL of the server, with its query."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def claims_of(url: str) -> LinkClaims:
    """The claims of the token in a link, if it is signed with the first of the keys."""
    (token,) = parse_qs(urlsplit(url).query)["token"]
    claims = LinkClaims.parse(Signatures([KEYS[0].encode()]).read(PURPOSE, token) or {})
    assert claims is not None
    return claims


def signed(
    url: str, claims: LinkClaims | dict[str, Any], key: str = KEYS[0], purpose: str = PURPOSE
) -> str:
    """The path of a link with a token for other claims."""
    said = claims if isinstance(claims, dict) else asdict(claims)
    token = Signatures([key.encode()]).sign(purpose, said)
    return f"{urlsplit(url).path}?{urlencode({'token': token})}"


def forged(token: str, field: str) -> str:
    """The token with another value of one field, and its original signature."""
    payload, _, signature = token.rpartition(".")
    serializer = URLSafeSerializer("unused")
    said = serializer.load_payload(payload.encode())
    said[field] = said[field] + 1 if isinstance(said[field], int) else f"{said[field]}x"
    return f"{serializer.dump_payload(said).decode()}.{signature}"
