"""Patterns of parent ids and object ids, with which Kinto's backends find objects below a URI.

Kinto's PostgreSQL backends turn them into patterns for LIKE, in which ``_`` matches any character.
Ids of buckets and collections may contain it, so objects below ``/buckets/a_b`` would be confused
with those below ``/buckets/axb``.
"""

from __future__ import annotations

from kinto.core.permission.postgresql import Permission as PostgreSQLPermission
from kinto.core.storage.postgresql import Storage as PostgreSQLStorage


def starting_with(backend: object, start: str) -> str:
    """The pattern for a backend of Kinto that matches all ids that start with a text."""
    if isinstance(backend, PostgreSQLStorage | PostgreSQLPermission):
        start = literally(start)
    return f"{start}*"


def literally(text: str) -> str:
    """The text as a pattern for LIKE that matches only this text."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
