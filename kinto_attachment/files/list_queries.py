"""The query of a listing, checked before it reaches Kinto's storage.

Filters have Kinto's syntax. Kinto itself accepts values on which its storage fails, and treats
texts as patterns or numbers as texts. Here, each field has one type.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from kinto.core.errors import raise_invalid, request_GET
from kinto.core.storage import Filter
from kinto.core.storage.memory import MemoryBasedStorage
from kinto.core.storage.postgresql import Storage as PostgreSQLStorage
from kinto.core.utils import COMPARISON

from kinto_attachment.kinto_types import Request, StorageBackend
from kinto_attachment.metadata import FIELD

PAGE = 500
MAX_PAGE = 1000
# This filter excludes records without an attachment, or with a null. It comes first, because
# Kinto's memory backend fails to compare missing values.
HAS_FILE = Filter(f"{FIELD}.size", True, COMPARISON.HAS)
TEXTS = {"id": "id"} | {name: f"{FIELD}.{name}" for name in ("filename", "hash", "location")}
TEXTS["mimetype"] = f"{FIELD}.mimetype"
NUMBERS = {"size": f"{FIELD}.size", "last_modified": "last_modified"}
FIELDS = TEXTS | NUMBERS
LISTS = ("in", "exclude")
COMPARED = {
    name: COMPARISON[name.upper()]
    for name in ("eq", "not", "lt", "min", "gt", "max", "in", "exclude", "like")
}
TIMES = {"_since": COMPARISON.GT, "_before": COMPARISON.LT, "_to": COMPARISON.LT}
STATES = ("current", "kept")
# Milliseconds up to the year 5138, and bytes. Kinto's storage fails on much larger numbers.
NUMBER = re.compile(r'"?(\d{1,14})"?')
# Each one multiplies the time that Kinto's memory backend takes for a name that does not match.
MAX_WILDCARDS = 5
LIKE_SPECIAL = re.compile(r"[\\%_]")


@dataclass(frozen=True)
class ListQuery:
    """``filters`` are those of Kinto's storage, ``token`` is the start of the page."""

    filters: tuple[Filter, ...] = (HAS_FILE,)
    kept: bool = False
    limit: int = PAGE
    token: str = ""

    @classmethod
    def of(cls, request: Request) -> ListQuery:
        """The query of a page.

        :raises HTTPBadRequest: a parameter is unknown or has an invalid value.
        """
        limit, token, filters = min(PAGE, _most(request)), "", [HAS_FILE]
        kept = wants_kept(request)
        for name, value in parameters(request):
            if name == "_limit":
                limit = min(_limit(request, value), _most(request))
            elif name == "_token":
                token = value
            elif name == "state":
                _check_state(request, value, kept=kept)
            elif name == "_urls":
                continue  # This parameter selects nothing.
            elif kept:
                refuse(request, name, "Kept files have no filters, only _limit and _token")
            else:
                filters.append(_filter(request, name, value))
        return cls(tuple(filters), kept, limit, token)

    @classmethod
    def of_all(cls, request: Request, *others: str) -> ListQuery:
        """The query for everything that filters select, without pages.

        ``others`` are names of parameters that select nothing.

        :raises HTTPBadRequest: as above.
        """
        filters = [HAS_FILE]
        for name, value in parameters(request):
            if name in others:
                continue
            if name in ("_limit", "_token", "_urls", "state"):
                refuse(request, name, "The archive has the current files of all pages")
            filters.append(_filter(request, name, value))
        return cls(tuple(filters))


def parameters(request: Request) -> Iterator[tuple[str, str]]:
    """The parameters of the query, including repeated ones.

    :raises HTTPBadRequest: the query is not UTF-8.
    """
    for name, value in request_GET(request).items():
        yield str(name), str(value)


def wants_kept(request: Request) -> bool:
    return any(pair == ("state", "kept") for pair in parameters(request))


def refuse(request: Request, name: str, description: str) -> NoReturn:
    """:raises HTTPBadRequest: like Kinto's, for a parameter of the query."""
    raise_invalid(request, location="querystring", name=name, description=description)
    raise AssertionError("unreachable")


def _most(request: Request) -> int:
    settings = request.registry.settings
    known = (MAX_PAGE, settings["paginate_by"], settings["storage_max_fetch_size"])
    return min(int(most) for most in known if most)


def _limit(request: Request, value: str) -> int:
    if not re.fullmatch(r"0*[1-9]\d{0,18}", value, re.ASCII):
        refuse(request, "_limit", "Should be a whole number from 1 on")
    return int(value)


def _check_state(request: Request, value: str, *, kept: bool) -> None:
    if value not in STATES or (value == "kept") != kept:
        refuse(request, "state", "Should be current or kept")


def _filter(request: Request, name: str, value: str) -> Filter:
    if name in TIMES:
        return Filter("last_modified", _number(request, name, value), TIMES[name])
    comparison, field = ("eq", name) if name in FIELDS else _split(name)
    if comparison not in COMPARED or field not in FIELDS:
        refuse(request, name, f"Unknown filter field '{name}'")
    if comparison == "like":
        if field in NUMBERS:
            refuse(request, name, "Numbers have no patterns")
        text = _text(request, name, value)
        pattern = _pattern(request, name, text)
        return Filter(FIELDS[field], pattern, COMPARISON.LIKE)
    parse: Callable[[Request, str, str], Any] = _text if field in TEXTS else _number
    if comparison in LISTS:
        parsed: Any = [parse(request, name, each) for each in value.split(",")]
    else:
        parsed = parse(request, name, value)
    return Filter(FIELDS[field], parsed, COMPARED[comparison])


def _split(name: str) -> tuple[str, str]:
    comparison, _, field = name.partition("_")
    return comparison, field


def _number(request: Request, name: str, value: str) -> int:
    match = NUMBER.fullmatch(value)
    if match is None or not value.isascii():
        refuse(request, name, f"Invalid value for {name}")
    return int(match[1])


def _text(request: Request, name: str, value: str) -> str:
    """A text as it is, or in quotes as JSON."""
    if value.startswith('"'):
        with contextlib.suppress(ValueError, RecursionError):  # A name may begin with a quote.
            value = str(json.loads(value))
    # PostgreSQL stores neither NUL nor lone surrogates.
    if "\0" in value or not _is_unicode(value):
        refuse(request, name, f"Invalid value for {name}")
    return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _pattern(request: Request, name: str, text: str) -> str:
    """A pattern in which only ``*`` has a meaning, in all of Kinto's storage backends."""
    parts = re.split(r"\*+", text)
    if len(parts) > MAX_WILDCARDS + 1:
        refuse(request, name, f"Should have {MAX_WILDCARDS} asterisks at most")
    escape = _escape_for(request.registry.storage)
    return "*".join(escape(part) for part in parts)


def _escape_for(storage: StorageBackend) -> Callable[[str], str]:
    if isinstance(storage, MemoryBasedStorage):
        return re.escape  # Kinto makes a regular expression of it.
    if isinstance(storage, PostgreSQLStorage):
        return lambda part: LIKE_SPECIAL.sub(r"\\\g<0>", part)
    return str
