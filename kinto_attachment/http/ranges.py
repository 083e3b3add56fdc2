"""Conditional and range requests (RFC 9110 13 and 14) over strings and numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import format_datetime, parsedate

_RANGE = re.compile(r"([0-9]*)-([0-9]*)")
_ENTITY_TAG = re.compile(r'[ \t,]*(W/)?"([!#-~\x80-\xff]*)"[ \t]*(?:,|$)')
# RFC 9110 5.6.7: the current format and two obsolete ones, which recipients must accept.
_HTTP_DATE = re.compile(
    r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
    r"|[A-Z][a-z]{5,8}, [0-9]{2}-[A-Z][a-z]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
    r"|[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2} [0-9]{4}"
)


@dataclass(frozen=True)
class Range:
    """The bytes from ``start`` to ``end`` (exclusive) of a file.

    It is empty if the file has no byte of the requested range.
    """

    start: int
    end: int

    @property
    def satisfiable(self) -> bool:
        return self.start < self.end


@dataclass(frozen=True)
class Outcome:
    """The status of the response, and for 200 and 206 the bytes from ``start`` to ``end``."""

    status: int
    start: int = 0
    end: int = 0


def parse_range(header: str | None, size: int) -> Range | None:
    """The range of a ``Range`` header, for a file of ``size`` bytes; None for the whole file.

    Requests for several ranges, other units and malformed headers are ignored, as RFC 9110 14.2
    allows or requires.
    """
    unit, equals, ranges = (header or "").partition("=")
    specs = [spec.strip(" \t") for spec in ranges.split(",")]
    match = _RANGE.fullmatch("".join(specs)) if sum(map(bool, specs)) == 1 else None
    if unit.lower() != "bytes" or not equals or not match:
        return None
    try:
        first, last = (int(digits) if digits else None for digits in match.groups())
    except ValueError:  # Python refuses to convert thousands of digits.
        return None
    if first is None:
        return _suffix(last, size)
    if last is not None and last < first:
        return None
    end = size if last is None else min(last + 1, size)
    return Range(first, end) if first < end else Range(0, 0)


def content_range(start: int, end: int, size: int) -> str:
    """The value of ``Content-Range``: of a 206, or of a 416 if the range is empty."""
    return f"bytes {start}-{end - 1}/{size}" if start < end else f"bytes */{size}"


def http_date(moment: datetime) -> str:
    """An HTTP date, as for ``Last-Modified``; ``moment`` has a time zone."""
    return format_datetime(moment.astimezone(timezone.utc), usegmt=True)


def evaluate(
    method: str, headers: Mapping[str, str], etag: str, last_modified: datetime, size: int
) -> Outcome:
    """Evaluate a request's preconditions and range, in the order of RFC 9110 13.2.2.

    ``headers`` are looked up by names such as ``If-Match``; ``etag`` is strong and has no quotes;
    ``last_modified`` has a time zone. A HEAD gets the status of a GET without a range.
    """
    modified = last_modified.astimezone(timezone.utc).replace(microsecond=0)
    if not _if_match(headers, etag, modified):
        return Outcome(412)
    reads = method in ("GET", "HEAD")
    if not _if_none_match(headers, etag, modified, reads):
        return Outcome(304 if reads else 412)
    if method == "GET" and _if_range(headers.get("If-Range"), etag, modified):
        requested = parse_range(headers.get("Range"), size)
        if requested:
            status = 206 if requested.satisfiable else 416
            return Outcome(status, requested.start, requested.end)
    return Outcome(200, 0, size)


def _suffix(length: int | None, size: int) -> Range | None:
    if length is None:
        return None
    if length and not size:
        return None  # Satisfiable (RFC 9110 14.1.2), but Content-Range cannot express it.
    return Range(max(size - length, 0), size) if length else Range(0, 0)


def _if_match(headers: Mapping[str, str], etag: str, modified: datetime) -> bool:
    """Evaluate If-Match, or If-Unmodified-Since if there is no If-Match."""
    header = headers.get("If-Match")
    if header is not None:
        # A strong comparison: a weak tag never matches (RFC 9110 8.8.3.2).
        return header.strip() == "*" or ("", etag) in _entity_tags(header)
    date = _parse_date(headers.get("If-Unmodified-Since"))
    return date is None or modified <= date


def _if_none_match(headers: Mapping[str, str], etag: str, modified: datetime, reads: bool) -> bool:
    """Evaluate If-None-Match, or If-Modified-Since for reads without If-None-Match."""
    header = headers.get("If-None-Match")
    if header is not None:
        return header.strip() != "*" and all(tag != etag for _, tag in _entity_tags(header))
    date = _parse_date(headers.get("If-Modified-Since")) if reads else None
    return date is None or modified > date


def _if_range(header: str | None, etag: str, modified: datetime) -> bool:
    if header is None:
        return True
    return header.strip() == f'"{etag}"' or _parse_date(header) == modified


def _entity_tags(header: str) -> Iterator[tuple[str, str]]:
    """Pairs of ``W/`` or an empty text, and the tag; stops at the first malformed one."""
    position = 0
    while match := _ENTITY_TAG.match(header, position):
        yield match[1] or "", match[2]
        position = match.end()


def _parse_date(header: str | None) -> datetime | None:
    if header is None or not _HTTP_DATE.fullmatch(header.strip(" \t")):
        return None
    parsed = parsedate(header)
    try:
        return datetime(*parsed[:6], tzinfo=timezone.utc) if parsed else None
    except ValueError:
        return None
