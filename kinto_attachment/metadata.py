"""The attachment object that a record carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FIELD = "attachment"
# The fields of every attachment object, and of its ``original``.
DESCRIBED = ("filename", "hash", "mimetype", "size")


class Absent:
    """The attachment of a record without this member."""


ABSENT = Absent()


@dataclass(frozen=True)
class Original:
    """The file that the client sent, if the server stores it compressed."""

    filename: str
    hash: str
    mimetype: str
    size: int


@dataclass(frozen=True)
class Attachment:
    """A record's attachment: ``hash`` (SHA-256 in hex) and ``size`` are of the stored bytes.

    ``encoding`` is the ``Content-Encoding`` of the stored bytes, if any. Name and media type are
    then those of the decoded file.
    """

    filename: str
    hash: str
    location: str
    mimetype: str
    size: int
    original: Original | None = None
    encoding: str | None = None

    @classmethod
    def at(cls, location: str, described: Mapping[str, Any]) -> Attachment:
        """The attachment of a stored file, from its location and the other fields."""
        original = described.get("original")
        return cls(
            **{name: described.get(name, "") for name in DESCRIBED},
            location=location,
            original=None
            if not isinstance(original, Mapping)
            else Original(**{name: original.get(name, "") for name in DESCRIBED}),
            encoding=described.get("encoding") or None,
        )

    def to_json(self) -> dict[str, Any]:
        fields = dict(vars(self))
        if self.original is not None:
            fields["original"] = dict(vars(self.original))
        return {name: value for name, value in fields.items() if value is not None}


def same_json(one: object, other: object) -> bool:
    """Whether two values are the same JSON; unlike in Python, 4 is not 4.0, and true is not 1.

    The order of an object's members does not matter (RFC 8259 4).
    """
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return False
        # Copies of an object share most of its members.
        differing = ((v, other[k]) for k, v in one.items() if v is not other[k])
        return all(same_json(*pair) for pair in differing)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return type(one) is type(other) and bool(one == other)
