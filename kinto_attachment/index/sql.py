"""Statements on Kinto's tables, for SQLAlchemy."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


@lru_cache(maxsize=256)
def sql(statement: str) -> Any:
    """Parsed once per process, because parsing a statement takes as long as executing it."""
    # Only PostgreSQL needs SQLAlchemy.
    from sqlalchemy import text

    return text(statement)
