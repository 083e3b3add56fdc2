"""The attachment object that a record carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FIELD = "attachment"


@dataclass(frozen=True)
class Original:
    """What the client sent, when the stored bytes are its compressed form."""

    filename: str
    hash: str
    mimetype: str
    size: int


@dataclass(frozen=True)
class Attachment:
    """``hash`` is the SHA-256 of the stored bytes in hex, ``size`` their number."""

    filename: str
    hash: str
    location: str
    mimetype: str
    size: int
    original: Original | None = None

    def to_json(self) -> dict[str, Any]:
        fields = dict(vars(self))
        if self.original is None:
            del fields["original"]
        else:
            fields["original"] = dict(vars(self.original))
        return fields


def same_json(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: 4 is not 4.0, nor true 1, as Python's ``==`` has it.

    The order of an object's members does not matter (RFC 8259 4).
    """
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return type(one) is type(other) and bool(one == other)
