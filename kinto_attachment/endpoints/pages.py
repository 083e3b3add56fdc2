"""Lists that are sent page by page, with Kinto's ``_limit``, ``_token`` and ``Next-Page``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kinto.core.errors import raise_invalid
from kinto.core.utils import decode64, encode64

from kinto_attachment.kinto_types import Request

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """A part of a sorted list; ``next_url`` is the URL of the next one."""

    request: Request
    all_items: list[T]
    items: list[T]
    next_url: str = ""

    @classmethod
    def of(
        cls,
        request: Request,
        items: list[T],
        position: Callable[[T], tuple[Any, ...]],
        kinds: tuple[type, ...],
    ) -> Page[T]:
        """The requested page of ``items``, which are sorted by descending ``position``.

        ``kinds`` are the types of the parts of a position.
        """
        limit, after = _limit_of(request), _token_of(request, kinds)
        rest = items if after is None else [item for item in items if position(item) < after]
        if len(rest) <= limit:
            return cls(request, items, rest)
        shown = rest[:limit]
        token = encode64(json.dumps(position(shown[-1])))
        query = {**request.GET, "_limit": str(limit), "_token": token}
        assert request.current_service is not None  # noqa: S101
        name = request.current_service.name
        url = request.route_url(name, _query=query, **request.matchdict)
        return cls(request, items, shown, url)

    def headers(self) -> dict[str, str]:
        """Totals on HEAD, since they may cost more than the page."""
        headers = {"Next-Page": self.next_url} if self.next_url else {}
        if self.request.method == "HEAD":
            headers |= dict.fromkeys(("Total-Objects", "Total-Records"), str(len(self.all_items)))
        return headers


def _limit_of(request: Request) -> int:
    settings = request.registry.settings
    most = int(settings["paginate_by"] or settings["storage_max_fetch_size"])
    text = request.GET.get("_limit", "").strip()
    if text and not re.fullmatch(r"[0-9]{1,18}", text):
        _refuse(request, "_limit", "_limit should be a whole number")
    return min(int(text or 0) or most, most)


def _token_of(request: Request, kinds: tuple[type, ...]) -> tuple[Any, ...] | None:
    text = request.GET.get("_token", "")
    if not text:
        return None
    try:
        found = json.loads(decode64(text))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or tuple(map(type, found)) != kinds:
        _refuse(request, "_token", "_token has invalid content")
    return tuple(found)


def _refuse(request: Request, name: str, description: str) -> None:
    """:raises HTTPBadRequest: always."""
    raise_invalid(request, location="querystring", name=name, description=description)
