"""The proxy that a request goes through, which requests takes from the environment."""

from __future__ import annotations

from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy


def proxy_of(url: str) -> str | None:
    """The proxy for a URL, without credentials; None if there is none.

    ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` decide, as for curl.
    """
    found = select_proxy(url, get_environ_proxies(url))
    if not found:
        return None
    parts = urlsplit(found if "://" in found else f"http://{found}")
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
