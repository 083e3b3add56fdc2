"""Statements on Kinto's tables, as SQLAlchemy takes them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


@lru_cache(maxsize=256)
def sql(statement: str) -> Any:
    """Parsed once in a process: to parse a statement takes as long as to execute it."""
    # Only PostgreSQL needs SQLAlchemy.
    from sqlalchemy import text

    return text(statement)
