"""The statements that a request executes, their number, and their plans."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy

from kinto_attachment.files import link_steps
from kinto_attachment.index import usage
from tests.support import waiting


@contextlib.contextmanager
def counted(app: Any) -> Iterator[Counter[str]]:
    """Count the statements on the database, by their first words."""
    found: Counter[str] = Counter()

    def count(statement: str, _: Any) -> None:
        found[statement.split()[0]] += 1

    with _listening(app, count):
        yield found


def plans_of(app: Any, action: Callable[[], object]) -> list[str]:
    """The plans of an action's statements on the table of objects."""
    executed: list[tuple[str, Any]] = []
    with _listening(app, lambda *statement: executed.append(statement)):
        action()
    plans = []
    with _engine(app).connect() as connection:
        for statement, parameters in executed:
            if " objects" in statement:
                rows = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
                plans.append("\n".join([statement, *(row[0] for row in rows)]))
    return plans


def rows_read(app: Any) -> int:
    """The rows of the table of objects that the database has read for the application."""
    engine = _engine(app)
    with contextlib.ExitStack() as stack:
        for _ in range(engine.pool.checkedin()):
            connection = stack.enter_context(engine.begin())
            # Otherwise, a process of the database reports its reads once a second.
            connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")
    read = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'objects'"
    with engine.connect() as connection:
        return int(connection.exec_driver_sql(read).scalar())


def _engine(app: Any) -> Any:
    return app.app.registry.storage.client.session_factory.session_factory.kw["bind"]


@contextlib.contextmanager
def _listening(app: Any, to: Callable[[str, Any], object]) -> Iterator[None]:
    """Listen to the statements, which must not depend on how long the action takes."""

    def listen(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        to(statement, parameters)

    engine = _engine(app)
    sqlalchemy.event.listen(engine, "before_cursor_execute", listen)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(usage, "RECENT", waiting.SECONDS)
            patch.setattr(link_steps, "UNCHECKED_SECONDS", waiting.SECONDS)
            yield
    finally:
        sqlalchemy.event.remove(engine, "before_cursor_execute", listen)


def statements(app: Any, action: Callable[[], object]) -> list[str]:
    """The statements on the database during a call."""
    executed: list[str] = []
    with _listening(app, lambda statement, _: executed.append(" ".join(statement.split()))):
        action()
    return executed


@contextlib.contextmanager
def before_statement(app: Any, beginning: str, action: Callable[[], object]) -> Iterator[None]:
    """Call a function once, before the first statement with this beginning."""
    done = []

    def act(statement: str, _: Any) -> None:
        if not done and " ".join(statement.split()).startswith(beginning):
            done.append(statement)
            waiting.elsewhere(action)

    with _listening(app, act):
        yield
    assert done
