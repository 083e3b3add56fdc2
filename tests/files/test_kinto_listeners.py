"""Listeners of ``kinto.event_listeners`` get uploads, replacements and removals of files."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import redis_queue
from tests.support.application import (
    ALICE,
    COLLECTION,
    RECORD,
    attach,
    check_invariant,
    clear,
    make_app,
    put,
    put_collection,
    records,
    stored_files,
    userid,
)
from tests.support.documents import code_blocks

PAGE = "docs/events.rst"
URL = f"{RECORD}/attachment"


def settings_of(text: str) -> dict[str, str]:
    """The settings in the page's block that contains a text, without ``kinto.``."""
    (block,) = [block for block in code_blocks(PAGE, "ini") if text in block]
    return dict(re.findall(r"^kinto\.(\S+) *= *(.*?) *$", block, re.M))


@pytest.fixture
def listening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql_database: dict[str, str]
) -> Iterator[Any]:
    """A server with the listener and the settings of the page."""
    (code,) = [block for block in code_blocks(PAGE, "python") if "FileListener" in block]
    (tmp_path / "file_listener.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    storage = {"base_path": str(tmp_path / "files")}
    app = make_app(storage, postgresql_database, **settings_of("file_listener"))
    put_collection(app)
    yield app
    check_invariant(app)
    clear(app)
    sys.modules.pop("file_listener", None)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [r.getMessage() for r in caplog.records if r.name == "file_listener"]
    caplog.clear()
    return found


@pytest.mark.postgresql
class TestTheListenerOfThePage:
    def test_gets_the_file_before_and_after(
        self, listening: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING)
        app = listening
        attach(app, filename="first.txt")
        assert logged(caplog) == [f"{RECORD}: None -> first.txt"]
        attach(app, content=b"new", filename="second.txt")
        assert logged(caplog) == [f"{RECORD}: first.txt -> second.txt"]
        app.patch_json(URL, {"data": {"filename": "third.txt"}}, headers=ALICE)
        assert logged(caplog) == [f"{RECORD}: second.txt -> third.txt"]
        app.patch_json(RECORD, {"data": {"title": "x"}}, headers=ALICE)
        assert logged(caplog) == []
        app.delete(URL, headers=ALICE)
        assert logged(caplog) == [f"{RECORD}: third.txt -> None"]
        attach(app)
        app.delete(RECORD, headers=ALICE)
        assert logged(caplog) == [
            f"{RECORD}: None -> notes.txt",
            f"{RECORD}: notes.txt -> None",
        ]

    def test_several_at_once(self, listening: Any, caplog: pytest.LogCaptureFixture) -> None:
        for name in ("a", "b"):
            attach(listening, f"{COLLECTION}/records/{name}")
        logged(caplog)
        listening.delete(f"{COLLECTION}/records", headers=ALICE)
        assert len(logged(caplog)) == 2

    def test_can_refuse(self, listening: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        import file_listener

        attach(listening, content=b"old")
        before = records(listening)
        files = stored_files(listening)

        def refuse(attachment: Any) -> None:
            raise RuntimeError("the listener does not like it")

        monkeypatch.setattr(file_listener, "name", refuse)
        attach(listening, content=b"new", status=500)
        assert records(listening) == before
        assert stored_files(listening) == files


@pytest.fixture(scope="module")
def redis_server() -> Iterator[redis_queue.Redis]:
    with redis_queue.server() as server:
        yield server


@pytest.mark.postgresql
def test_the_queue_in_redis(
    tmp_path: Path, postgresql_database: dict[str, str], redis_server: redis_queue.Redis
) -> None:
    settings = settings_of("kinto_redis")
    assert settings["event_listeners.redis.listname"] == redis_queue.LIST
    settings["event_listeners.redis.url"] = redis_server.url
    app = make_app({"base_path": str(tmp_path)}, postgresql_database, **settings)
    put_collection(app)
    try:
        uploaded = attach(app)
        (created,) = redis_server.taken()
        ids = {"bucket_id": "b", "collection_id": "c", "record_id": "r"}
        assert ids.items() <= created.items()
        assert (created["action"], created["uri"]) == ("create", RECORD)
        assert created["user_id"] == userid(app)
        assert f'"{created["timestamp"]}"' == uploaded.headers["ETag"]
        assert "attachment" not in str(created)
        attach(app, content=b"new")
        app.delete(URL, headers=ALICE)
        app.delete(RECORD, headers=ALICE)
        actions = [event["action"] for event in redis_server.taken()]
        assert actions == ["update", "update", "delete"]
        put(app, RECORD)
        assert [event["action"] for event in redis_server.taken()] == ["create"]
    finally:
        clear(app)
