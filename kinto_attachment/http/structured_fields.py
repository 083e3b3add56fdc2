"""Structured fields (RFC 9651) of request headers: only items.

The algorithms are strict and accept only well-formed items.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# RFC 9651 4.2.3.1: keys and bare items, of which parameters can have any type.
_KEY = r"[a-z*][a-z0-9_.*-]*"
_BARE_ITEM = "|".join(
    [
        r"-?[0-9]{1,12}\.[0-9]{1,3}",
        r"-?[0-9]{1,15}",
        r'"(?:[ !#-\[\]-~]|\\["\\])*"',
        r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*",
        r":[A-Za-z0-9+/=]*:",
        r"\?[01]",
        r"@-?[0-9]{1,15}",
        r'%"(?:[ !#$&-~]|%[0-9a-f]{2})*"',
    ]
)
_ITEM = re.compile(rf" *({_BARE_ITEM})(?:; *{_KEY}(?:=(?:{_BARE_ITEM}))?)* *")
_INTEGER = re.compile(r"-?[0-9]{1,15}")

LARGEST_INTEGER = 999_999_999_999_999  # RFC 9651 3.3.1.


def boolean(field: str | None) -> bool | None:
    """The Boolean in a field; None if it is not one. Parameters are ignored."""
    return {"?0": False, "?1": True}.get(_bare_item(field))


def integer(field: str | None) -> int | None:
    """The Integer in a field; None if it is not one. Parameters are ignored."""
    bare = _bare_item(field)
    return int(bare) if _INTEGER.fullmatch(bare) else None


def dictionary(members: Mapping[str, int]) -> str:
    """A Dictionary of Integers. Numbers that are too large for a field become the largest one."""
    pairs = ((key, min(value, LARGEST_INTEGER)) for key, value in members.items())
    return ", ".join(f"{key}={value}" for key, value in pairs)


def _bare_item(field: str | None) -> str:
    match = _ITEM.fullmatch(field or "")
    return match[1] if match else ""
