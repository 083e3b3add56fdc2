"""Which statements a request executes, and how many."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy


@contextlib.contextmanager
def counted(app: Any) -> Iterator[Counter[str]]:
    """Counts the statements on the database, by their first words."""
    engine = app.app.registry.storage.client.session_factory.session_factory.kw["bind"]
    found: Counter[str] = Counter()

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found[statement.split()[0]] += 1

    sqlalchemy.event.listen(engine, "before_cursor_execute", count)
    try:
        yield found
    finally:
        sqlalchemy.event.remove(engine, "before_cursor_execute", count)


def statements(app: Any, action: Callable[[], object]) -> list[str]:
    """The statements on the database during a call."""
    executed: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        executed.append(" ".join(statement.split()))

    engine = app.app.registry.storage.client.session_factory.session_factory.kw["bind"]
    sqlalchemy.event.listen(engine, "before_cursor_execute", note)
    try:
        action()
    finally:
        sqlalchemy.event.remove(engine, "before_cursor_execute", note)
    return executed
