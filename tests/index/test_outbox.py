"""Entries of the outbox are taken once; their removal need not be synced at once."""

from __future__ import annotations

from typing import Any

import pytest
import transaction
from sqlalchemy import text

from kinto_attachment.index.outbox import Outbox, StoredFile
from kinto_attachment.index.postgresql_outbox import PostgreSQLOutbox, outbox
from tests.support import lingering, waiting
from tests.support.application import attach
from tests.support.backends import ON_EACH_DATABASE, ON_MEMORY, ON_POSTGRESQL, Build
from tests.support.statements import counted, statements

FREE = "SELECT id FROM objects WHERE id = :id FOR UPDATE SKIP LOCKED"


@pytest.fixture(params=["any backend", "chosen"])
def entries(request: pytest.FixtureRequest, app: Any) -> Outbox:
    registry = app.app.registry
    chosen: Outbox = registry.attachment_links.outbox
    return chosen if request.param == "chosen" else Outbox(registry.storage)


@ON_EACH_DATABASE
@pytest.mark.parametrize("is_alone", [True, False])
class TestEntries:
    def test_are_taken_once(self, entries: Outbox, is_alone: bool) -> None:
        with transaction.manager:
            (entry,) = entries.add(["a", "b"])
            (other,) = entries.add(["c"], storage="other")
        with transaction.manager:
            assert entries.take(entry, is_alone=is_alone)
            assert entries.entries() == [other]
        with transaction.manager:
            assert not entries.take(entry, is_alone=is_alone)
            assert entries.take(other)


@ON_MEMORY
def test_files_that_do_not_linger_are_due_at_once(entries: Outbox) -> None:
    with transaction.manager:
        (entry,) = entries.add_files([StoredFile("other", "a")])
        assert entry.dump() == {"keys": ["a"], "since": entry.since, "storage": "other"}
        assert entries.take(entry)


@ON_POSTGRESQL
class TestOnPostgreSQL:
    def test_are_there_again_if_they_are_not_deleted(self, app: Any) -> None:
        entries = app.app.registry.attachment_links.outbox
        with transaction.manager:
            (entry,) = entries.add(["a"])
        with transaction.manager as manager:
            assert entries.take(entry, is_alone=True)
            manager.abort()
        with transaction.manager:
            assert entries.entries() == [entry]
            assert entries.take(entry)

    def test_are_locked_until_then(self, app: Any) -> None:
        registry = app.app.registry
        entries = registry.attachment_links.outbox

        def free_rows() -> int:
            with transaction.manager, registry.storage.client.connect() as session:
                return len(session.execute(text(FREE), {"id": entry.id}).fetchall())

        with transaction.manager:
            (entry,) = entries.add(["a"])
        assert free_rows() == 1
        with transaction.manager:
            assert entries.take(entry, is_alone=True)
            assert waiting.elsewhere(free_rows) == 0

    @pytest.mark.parametrize(("is_alone", "expected"), [(True, "off"), (False, "on")])
    def test_only_a_transaction_of_its_own_is_not_synced(
        self, app: Any, is_alone: bool, expected: str
    ) -> None:
        registry = app.app.registry

        def setting() -> str:
            with registry.storage.client.connect(readonly=True) as session:
                return str(session.execute(text("SHOW synchronous_commit")).scalar())

        with transaction.manager:
            registry.storage.client.session_factory().execute(
                text("SET LOCAL synchronous_commit = on")
            )
            (entry,) = registry.attachment_links.outbox.add(["a"])
            usual = setting()
            assert registry.attachment_links.outbox.take(entry, is_alone=is_alone)
            assert setting() == expected
        with transaction.manager:
            assert usual == "on"

    def test_are_taken_in_one_statement(self, app: Any) -> None:
        entries = app.app.registry.attachment_links.outbox
        assert isinstance(entries, PostgreSQLOutbox)
        with transaction.manager:
            (entry,) = entries.add(["a"])
        with counted(app) as executed, transaction.manager:
            entries.take(entry, is_alone=True)
        assert sum(executed.values()) == 1

    def test_are_taken_as_on_any_backend_with_an_untested_version(
        self, app: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage = app.app.registry.storage
        assert type(outbox(storage, fast=False)) is Outbox
        monkeypatch.setattr("kinto_attachment.index.tested_versions.TESTED", ("1.0",))
        assert type(outbox(storage)) is Outbox

    def test_the_record_s_commit_is_synced(self, build: Build) -> None:
        app = build()
        attach(app)
        executed = statements(app, lambda: attach(app, content=b"new", status=200))
        (at,) = [at for at, each in enumerate(executed) if "synchronous_commit" in each]
        assert at == len(executed) - 1

    def test_files_that_lingered_go_with_a_commit_that_is_synced(self, build: Build) -> None:
        """Their links are deleted with them."""
        app = build(linger="1h")
        attach(app)
        attach(app, content=b"new", status=200)
        lingering.pass_the_time(app)
        executed = statements(app, lambda: attach(app, content=b"newer", status=200))
        assert any(each.startswith("DELETE FROM objects") for each in executed)
        assert not [each for each in executed if "synchronous_commit" in each]
        lingering.end(app)
