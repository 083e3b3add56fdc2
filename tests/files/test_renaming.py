"""Renaming a file, while other requests change the record."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyramid.events import ContextFound

from tests.support import lingering, waiting
from tests.support.application import (
    ALICE,
    CONTENT,
    RECORD,
    attach,
    attachment_of,
    read,
    send,
)
from tests.support.backends import ON_DATABASES, ON_POSTGRESQL, Build
from tests.support.interruptions import Meanwhile

pytestmark = ON_DATABASES

URL = f"{RECORD}/attachment"
# In each of them, the file that was replaced or removed is still stored.
KEPT = pytest.mark.parametrize(
    "settings", [{}, {"keep_old_files": "true"}, {"linger": "1h"}], ids=["none", "kept", "lingers"]
)


def rename_while(app: Any, action: Callable[[], object], **options: Any) -> Any:
    """Call a function while the body with the new name arrives."""
    body = json.dumps({"data": {"filename": "renamed.txt"}}).encode()
    watched = Meanwhile(body, action)
    return send(app, "PATCH", URL, watched, length=len(body), **options)


@KEPT
def test_a_file_that_was_uploaded_meanwhile_stays(build: Build, settings: dict[str, str]) -> None:
    app = build(**settings)
    attach(app)
    rename_while(app, lambda: attach(app, content=b"newer"), status=409)

    assert read(app) == b"newer"
    assert attachment_of(app)["filename"] == "notes.txt"
    lingering.end(app)


@KEPT
def test_a_file_that_was_removed_meanwhile_is_gone(build: Build, settings: dict[str, str]) -> None:
    app = build(**settings)
    attach(app)
    rename_while(app, lambda: app.delete(URL, headers=ALICE), status=409)

    assert attachment_of(app) is None
    lingering.end(app)


@KEPT
def test_a_record_that_was_deleted_meanwhile_is_gone(
    build: Build, settings: dict[str, str]
) -> None:
    app = build(**settings)
    attach(app)
    rename_while(app, lambda: app.delete(RECORD, headers=ALICE), status=409)

    app.get(RECORD, headers=ALICE, status=404)
    lingering.end(app)


def test_what_is_no_file_may_change_meanwhile(build: Build) -> None:
    app = build()
    attach(app)
    changes = {"data": {"title": "New"}}
    rename_while(app, lambda: app.patch_json(RECORD, changes, headers=ALICE), status=200)

    record = app.get(RECORD, headers=ALICE).json["data"]
    assert (record["title"], record["attachment"]["filename"]) == ("New", "renamed.txt")
    assert read(app) == CONTENT


@contextlib.contextmanager
def once_kinto_has_read_the_record(app: Any, action: Callable[[], object]) -> Iterator[None]:
    """Call a function after the record is last read, before it is written and locked."""
    left = [action]

    def act(event: Any) -> None:
        if left and event.request.method == "PATCH" and event.request.path == f"/v1{RECORD}":
            waiting.elsewhere(left.pop())

    registry = app.app.registry
    registry.registerHandler(act, (ContextFound,))
    try:
        yield
    finally:
        registry.unregisterHandler(act, (ContextFound,))
    assert not left


@ON_POSTGRESQL
@KEPT
@pytest.mark.parametrize(
    ("action", "content"),
    [
        (lambda app: attach(app, content=b"newer"), b"newer"),
        (lambda app: app.delete(URL, headers=ALICE), None),
    ],
    ids=["replaced", "removed"],
)
def test_what_happens_at_the_last_moment_stays(
    build: Build, settings: dict[str, str], action: Callable[[Any], object], content: bytes | None
) -> None:
    app = build(**settings)
    attach(app)
    with once_kinto_has_read_the_record(app, lambda: action(app)):
        app.patch_json(URL, {"data": {"filename": "renamed.txt"}}, headers=ALICE, status=409)

    if content is None:
        assert attachment_of(app) is None
    else:
        assert read(app) == content
        assert attachment_of(app)["filename"] == "notes.txt"
    lingering.end(app)
