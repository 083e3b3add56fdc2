"""Links below a deleted bucket or collection are removed, in one statement and in several.

Their files are in the outbox afterwards.
"""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from typing import Any

import pytest
import transaction
from kinto.core.utils import msec_time

from kinto_attachment.index.link import Link
from kinto_attachment.index.outbox import StoredFile
from kinto_attachment.index.postgresql_removals import PostgreSQLRemovals, removals
from kinto_attachment.index.removals import SeparateRemovals
from tests.support.application import COLLECTION
from tests.support.backends import ON_DATABASES, ON_EACH_DATABASE, ON_POSTGRESQL
from tests.support.statements import before_statement, counted

DESCRIBED = {"filename": "ü.txt", "hash": "0" * 64, "mimetype": "text/plain", "size": 3}
LINK = Link.to(f"{COLLECTION}/records/r", "a.txt", DESCRIBED, created=1, attached=2)
ELSEWHERE = replace(LINK, record=f"{COLLECTION}x/records/r")
HOLD = {"until": 1, "is_open": False, "reason": None, "by": None, "since": 0}
# Links that cannot simply be deleted.
SPECIAL = {
    "shared": {"shared": True},
    "held": {"hold": {**HOLD, "is_open": True}},
    "held until it ended": {"hold": HOLD},
    "readonly": {"readonly": True},
    "of a record that was deleted": {"state": "kept", "ended": "record"},
    "of a collection that was deleted": {"state": "kept", "ended": "collection"},
    "lingering": {"state": "lingering", "until": 5},
    "withdrawn": {"state": "withdrawn", "until": 5},
}


@pytest.fixture(params=["separate", "chosen"])
def ways(request: pytest.FixtureRequest, app: Any) -> Any:
    """The way for any backend, and the one for this backend."""
    links = app.app.registry.attachment_links
    if request.param == "chosen":
        return links.removals
    return SeparateRemovals(app.app.registry.storage, links.outbox, links.page_size)


@pytest.fixture
def index(app: Any) -> Any:
    links = app.app.registry.attachment_links
    yield links
    with transaction.manager:
        for link in all_links(links):
            links._rows.delete(link.parent, link.id)
        for entry in links.outbox.entries():
            links.outbox.take(entry)


def all_links(links: Any) -> list[Link]:
    return [link for page in links.under() for link in page]


def removed_below(uri: str, index: Any, ways: Any) -> list[StoredFile]:
    """Remove the links below a URI; returns the files, all of which are in the outbox."""
    entries = ways.remove_below(uri)
    by_id = attrgetter("id")
    assert sorted(entries, key=by_id) == sorted(index.outbox.entries(), key=by_id)
    return [StoredFile(entry.storage, key) for entry in entries for key in entry.keys]


@ON_EACH_DATABASE
class TestRemovals:
    def test_return_the_files_and_where_they_are(self, index: Any, ways: Any) -> None:
        kept = replace(LINK, key="kept.txt", state="kept", storage="other", life="x", retired=4)
        named = replace(LINK, record=f"{COLLECTION}/records/%_", key="ü%_\\'\".txt")
        with transaction.manager:
            for link in (LINK, kept, named, replace(ELSEWHERE, key="else.txt")):
                index._put(link)
            removed = removed_below(COLLECTION, index, ways)
            assert all_links(index) == [replace(ELSEWHERE, key="else.txt")]
        assert sorted(removed, key=str) == sorted(
            [
                StoredFile("", LINK.key),
                StoredFile("other", kept.key),
                StoredFile("", named.key),
            ],
            key=str,
        )

    @pytest.mark.parametrize("name", SPECIAL)
    def test_leave_what_needs_more(self, index: Any, ways: Any, name: str) -> None:
        special = replace(LINK, key="special.txt", **SPECIAL[name])
        with transaction.manager:
            index._put(LINK)
            index._put(special)
            assert removed_below(COLLECTION, index, ways) == [StoredFile("", LINK.key)]
            assert all_links(index) == [special]

    @pytest.mark.parametrize("uri", ["/buckets/a_b", "/buckets/a_b/collections/c_d"])
    def test_take_no_character_for_any(self, index: Any, ways: Any, uri: str) -> None:
        other = uri.replace("_", "x")
        mine, theirs = (f"{parent}/collections/c/records/r" for parent in (uri, other))
        links = [replace(LINK, record=mine, key="a"), replace(LINK, record=theirs, key="b")]
        with transaction.manager:
            for link in links:
                index._put(link)
            assert removed_below(uri, index, ways) == [StoredFile("", "a")]
            assert all_links(index) == [links[1]]

    @ON_DATABASES
    def test_of_more_than_a_page(self, index: Any, ways: Any) -> None:
        with transaction.manager:
            for number in range(1100):
                storage = "other" if number < 50 else ""
                index._put(replace(LINK, key=str(number), storage=storage))
            removed = removed_below("/buckets/b", index, ways)
            assert len(removed) == 1100
            assert {int(file.key) for file in removed if file.storage == "other"} == {*range(50)}
            assert {int(file.key) for file in removed if not file.storage} == {*range(50, 1100)}
            # A storage deletes a thousand files in a call.
            sizes = [len(entry.keys) for entry in index.outbox.entries()]
            assert sorted(sizes) == [50, 50, 1000]
            assert not all_links(index)

    def test_of_nothing_leave_the_outbox_as_it_is(self, index: Any, ways: Any) -> None:
        with transaction.manager:
            assert removed_below("/buckets/b", index, ways) == []

    def test_tell_since_when_the_files_wait(self, index: Any, ways: Any) -> None:
        before = msec_time()
        with transaction.manager:
            index._put(LINK)
            (entry,) = ways.remove_below(COLLECTION)
        assert before <= entry.since <= msec_time()
        assert not entry.due


@ON_POSTGRESQL
def test_leave_what_is_held_at_the_last_moment(app: Any, index: Any, ways: Any) -> None:
    held = replace(LINK, hold={**HOLD, "is_open": True})

    def hold() -> None:
        with transaction.manager:
            index._put(held)

    with transaction.manager:
        index._put(LINK)
    with transaction.manager:
        beginning = "WITH removed" if ways is index.removals else "WITH matching_objects"
        with before_statement(app, beginning, hold):
            assert removed_below(COLLECTION, index, ways) == []
        assert all_links(index) == [held]


@ON_POSTGRESQL
def test_take_one_statement(app: Any, index: Any) -> None:
    assert isinstance(index.removals, PostgreSQLRemovals)
    with transaction.manager:
        index._put(LINK)
        index._put(replace(LINK, key="b.txt"))
        with counted(app) as statements:
            (entry,) = index.removals.remove_below(COLLECTION)
        assert {*entry.keys} == {LINK.key, "b.txt"}
        assert sum(statements.values()) == 1


@ON_POSTGRESQL
def test_are_separate_with_an_untested_version(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinto_attachment.index.tested_versions.TESTED", ("1.0",))
    registry = app.app.registry
    chosen = removals(registry.storage, registry.attachment_links.outbox, 10)
    assert isinstance(chosen, SeparateRemovals)
