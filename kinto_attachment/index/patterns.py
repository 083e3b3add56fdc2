"""Patterns of parent ids and object ids, with which Kinto's backends find all that is below a URI.

Kinto's PostgreSQL backends make a pattern of LIKE of them. There, ``_`` matches any character, and
ids of buckets and collections may have one: what is below ``/buckets/a_b`` would be taken for what
is below ``/buckets/axb``, and the other way round.
"""

from __future__ import annotations

from kinto.core.permission.postgresql import Permission as PostgreSQLPermission
from kinto.core.storage.postgresql import Storage as PostgreSQLStorage


def starting_with(backend: object, start: str) -> str:
    """The pattern for a backend of Kinto that matches all ids which start with a text."""
    if isinstance(backend, PostgreSQLStorage | PostgreSQLPermission):
        start = literally(start)
    return f"{start}*"


def literally(text: str) -> str:
    """The text as a pattern of LIKE that matches nothing else."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
