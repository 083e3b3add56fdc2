"""The database statements of uploads in several requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy
import transaction

from tests.support import waiting
from tests.support.application import CONTENT, RECORD, put, put_raw
from tests.support.backends import ON_POSTGRESQL
from tests.support.statements import statements
from tests.support.tus import append, begin, head

SIZE = len(CONTENT)
WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|WITH)", re.I)


@contextmanager
def listening(app: Any, event: str, listener: Callable[..., object]) -> Iterator[None]:
    engine = app.app.registry.storage.client.session_factory.session_factory.kw["bind"]
    sqlalchemy.event.listen(engine, event, listener)
    try:
        yield
    finally:
        sqlalchemy.event.remove(engine, event, listener)


@ON_POSTGRESQL
def test_of_a_patch(app: Any) -> None:
    put_raw(app)
    url = begin(app, SIZE)
    append(app, url, 0, b"W")
    done = statements(app, lambda: append(app, url, 1, CONTENT[1:5]))
    # The session (locked, with the token; then with the bytes), and the user's rights.
    sessions = [each for each in done if "attachment" in each or "FOR UPDATE" in each]
    assert len(sessions) <= 3, sessions
    assert len(done) <= 6, done


@ON_POSTGRESQL
def test_a_patch_takes_two_transactions(app: Any) -> None:
    """One before the bytes and one after them: there is no separate one for reading."""
    put_raw(app)
    url = begin(app, SIZE)
    append(app, url, 0, b"W")
    begun: list[Any] = []
    with listening(app, "begin", begun.append):
        append(app, url, 1, CONTENT[1:5])
    assert len(begun) == 2


@ON_POSTGRESQL
def test_of_a_question_for_the_offset(app: Any) -> None:
    url = begin(app, SIZE)
    append(app, url, 0, b"W")
    done = statements(app, lambda: head(app, url))
    assert not [each for each in done if WRITES.match(each)]
    assert len(done) <= 3, "\n".join(done)


@ON_POSTGRESQL
def test_other_uploads_cost_what_they_did(app: Any) -> None:
    """None of their statements is about uploads in several requests."""
    put(app, RECORD)
    for url in (None, begin(app, SIZE)):
        done = statements(app, lambda: put_raw(app, content=b"x"))
        assert not [each for each in done if "attachment-upload" in each], url


@pytest.mark.one_way  # Rows are in the order of their random ids.
@ON_POSTGRESQL
def test_no_session_changes_the_row_of_another(app: Any) -> None:
    """Rows of two uploads of one record can be written at the same time."""
    sessions = app.app.registry.attachment_sessions
    urls = [begin(app, SIZE) for _ in range(2)]
    with transaction.manager:
        (one, other) = next(sessions.pages())
        assert sessions.lock(one.record, one.upload) == one
        url = next(url for url in urls if url.endswith(other.upload))
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(append, app, url, 0, b"W").result(waiting.SECONDS)
        assert answer.status_code == 204
