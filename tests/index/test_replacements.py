"""A file that replaces another one, in one statement and in several."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import transaction

from kinto_attachment.index.link import Link
from kinto_attachment.index.outbox import Garbage
from kinto_attachment.index.postgresql_replacements import PostgreSQLReplacements, replacements
from kinto_attachment.index.replacements import Replaced, SeparateReplacements
from tests.support.application import BUCKET, OTHER, RECORD
from tests.support.backends import ON_EACH_DATABASE, ON_POSTGRESQL
from tests.support.statements import counted

DESCRIBED = {"filename": "ü.txt", "hash": "0" * 64, "mimetype": "text/plain", "size": 3}
OLD = Link.to(RECORD, "old.txt", DESCRIBED, created=1, attached=2)
NEW = Link.to(RECORD, "new.txt", DESCRIBED, created=3, attached=4, storage="other", life="x")


@pytest.fixture(params=["separate", "chosen"])
def ways(request: pytest.FixtureRequest, app: Any) -> Any:
    """The way for any backend, and the one for this backend."""
    links = app.app.registry.attachment_links
    if request.param == "chosen":
        return links.replacements
    return SeparateReplacements(app.app.registry.storage, links.collections, links.outbox)


def rows(registry: Any) -> tuple[Any, ...]:
    links = registry.attachment_links
    with transaction.manager:
        found = tuple([link for page in links.under() for link in page])
        entries = tuple(links.outbox.entries())
        for link in found:
            links.drop([link])
        for entry in entries:
            links.outbox.take(entry)
    return found, entries


@ON_EACH_DATABASE
class TestReplacements:
    @pytest.mark.parametrize("entry", [Garbage.of(["old.txt"]), Garbage.of(["a"], 0, "b")])
    def test_have_the_new_link_and_the_old_file_in_the_outbox(
        self, app: Any, ways: Any, entry: Garbage
    ) -> None:
        registry = app.app.registry
        with transaction.manager:
            registry.attachment_links.add(OLD)
            registry.attachment_links.add(replace(OLD, record=OTHER, key="x"))
            assert ways.replace_link(NEW, OLD, entry) == Replaced(added=True, removed=True)
        found, entries = rows(registry)
        assert set(found) == {NEW, replace(OLD, record=OTHER, key="x")}
        assert entries == (entry,)

    def test_leave_a_link_that_is_shared_by_now(self, app: Any, ways: Any) -> None:
        registry, shared = app.app.registry, replace(OLD, shared=True)
        with transaction.manager:
            registry.attachment_links._put(shared)
            replaced = ways.replace_link(NEW, OLD, Garbage.of(["old.txt"]))
        assert replaced == Replaced(added=True, removed=False)
        found, entries = rows(registry)
        assert set(found) == {NEW, shared}
        assert entries == ()

    def test_do_nothing_if_the_collection_is_gone(self, app: Any, ways: Any) -> None:
        registry = app.app.registry
        with transaction.manager:
            registry.attachment_links.add(OLD)
            registry.storage.delete("collection", BUCKET, "c")
            replaced = ways.replace_link(NEW, OLD, Garbage.of(["old.txt"]))
        assert replaced == Replaced(added=False, removed=False)
        assert rows(registry) == ((OLD,), ())


@ON_POSTGRESQL
def test_take_one_statement(app: Any) -> None:
    ways = app.app.registry.attachment_links.replacements
    assert isinstance(ways, PostgreSQLReplacements)
    with counted(app) as statements, transaction.manager:
        ways.replace_link(NEW, OLD, Garbage.of(["old.txt"]))
    assert sum(statements.values()) == 1
    rows(app.app.registry)


@ON_POSTGRESQL
def test_are_separate_with_an_untested_version(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    links, storage = app.app.registry.attachment_links, app.app.registry.storage
    monkeypatch.setattr("kinto_attachment.index.tested_versions.TESTED", ("1.0",))
    assert isinstance(replacements(storage, links.collections, links.outbox), SeparateReplacements)
