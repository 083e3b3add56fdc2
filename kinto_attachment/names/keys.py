"""Object keys, and the URLs of files made from them."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from kinto_attachment.errors import InvalidKey

MAX_KEY_BYTES = 1024  # S3 and Google Cloud Storage: object keys of up to 1,024 bytes of UTF-8.
MAX_SEGMENT_BYTES = 255  # Linux: NAME_MAX.
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")


def check_key(key: str) -> str:
    """Return ``key`` if every backend can store a file under it.

    A key consists of segments joined by ``/``. No segment is empty or starts with a dot (so that
    no key means ``..`` or a hidden file) or has a control character or a backslash. The lengths
    are those that all backends support.

    :raises InvalidKey: otherwise.
    """
    try:
        encoded = key.encode("utf-8")
    except UnicodeEncodeError as error:  # Lone surrogates.
        raise InvalidKey() from error
    if not 0 < len(encoded) <= MAX_KEY_BYTES:
        raise InvalidKey()
    for segment in key.split("/"):
        if (
            not segment
            or segment.startswith(".")
            or len(segment.encode("utf-8")) > MAX_SEGMENT_BYTES
        ):
            raise InvalidKey()
    if _FORBIDDEN.search(key):
        raise InvalidKey()
    return key


def public_url(base_url: str, key: str) -> str:
    """The URL of a key under ``base_url``; relative if that is empty."""
    return _with_slash(base_url) + quote(key, safe="/")


def key_from_url(base_url: str, url: str) -> str | None:
    """The reverse of :func:`public_url`; None if the URL is not under ``base_url``."""
    base = _with_slash(base_url)
    quoted = url[len(base) :]
    absolute = not base and ":" in quoted.split("/")[0]
    if not url.startswith(base) or absolute or quoted.startswith("/") or re.search("[?#]", quoted):
        return None
    try:
        key = unquote(quoted, errors="strict")
    except UnicodeDecodeError:
        return None
    # public_url does not quote slashes.
    return key if key and key.count("/") == quoted.count("/") else None


def _with_slash(base_url: str) -> str:
    return base_url if not base_url or base_url.endswith("/") else base_url + "/"
