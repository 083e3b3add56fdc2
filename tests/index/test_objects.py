"""Our own objects in Kinto's storage, written by several transactions at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import transaction
from kinto.core.storage import Filter
from kinto.core.storage.memory import Storage as MemoryStorage
from kinto.core.utils import COMPARISON

from kinto_attachment.index.objects import Objects
from kinto_attachment.index.outbox import Outbox
from tests.support import waiting
from tests.support.application import forget_database, make_app, postgresql_settings
from tests.support.backends import ON_EACH_DATABASE
from tests.support.services import PostgreSQL

STOPPED = """
    CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz
    LANGUAGE sql AS $$ SELECT '2026-01-01'::timestamptz $$
"""


@pytest.fixture
def backend(postgresql: PostgreSQL, tmp_path: Path) -> Iterator[Any]:
    """A storage where everything happens in the same millisecond."""
    url = postgresql.create_database()
    name = url.split("?")[0].rsplit("/", 1)[1]
    # The system's functions have precedence, unless the path says otherwise.
    path = f"ALTER DATABASE {name} SET search_path = public, pg_catalog"
    postgresql.execute(STOPPED, path, database=name)
    try:
        app = make_app({"base_path": str(tmp_path)}, postgresql_settings(url))
        yield app.app.registry.storage
    finally:
        forget_database(url)
        postgresql.drop_database(url)


@pytest.mark.parametrize("write", [Objects.put, Objects.create], ids=["put", "create"])
def test_transactions_of_one_millisecond_are_not_in_each_others_way(
    backend: Any, write: Any
) -> None:
    rows = Objects(backend, "attachment-lock")

    def other() -> None:
        with transaction.manager:
            write(rows, "attachments-lock:x", "b", {})

    with ThreadPoolExecutor(1) as thread, transaction.manager:
        write(rows, "attachments-lock:x", "a", {})
        future = thread.submit(other)
        # This fails if the other transaction waits for this one.
        future.result(waiting.SECONDS)
    with transaction.manager:
        assert {row["id"] for row in rows.list("attachments-lock:x")} == {"a", "b"}


@ON_EACH_DATABASE
class TestFilters:
    """In Kinto's memory backend, HAS overrides the filters before it."""

    def test_all_have_to_match_in_any_order(self, app: Any) -> None:
        rows = Objects(app.app.registry.storage, "attachment-test")
        is_red = Filter("colour", "red", COMPARISON.EQ)
        is_light = Filter("weight", False, COMPARISON.HAS)
        is_round = Filter("shape.radius", True, COMPARISON.HAS)
        with transaction.manager:
            rows.put("attachments-test:x", "a", {"colour": "red", "shape": {"radius": 1}})
            rows.put("attachments-test:x", "b", {"colour": "red", "weight": 1})
            rows.put("attachments-test:x", "c", {"colour": "blue", "shape": {"radius": None}})
            rows.put("attachments-test:y", "d", {"colour": "red"})
            found = [
                {row["id"] for row in rows.list("attachments-test:*", *filters)}
                for filters in ((is_red, is_light), (is_light, is_red), (is_light, is_round))
            ]
            assert found == [{"a", "d"}, {"a", "d"}, {"a", "c"}]
            gone = rows.delete_all("attachments-test:*", is_red, is_round, is_light)
            assert {row["id"] for row in gone} == {"a"}
            assert rows.count("attachments-test:*") == 3
            rows.delete_all("attachments-test:*")

    def test_find_garbage_by_key_and_storage(self, app: Any) -> None:
        outbox = Outbox(app.app.registry.storage)
        with transaction.manager:
            outbox.add(["a", "b"])
            outbox.add(["b"], storage="other")
            outbox.add(["c"])
            found = {
                (key, storage): [
                    (each.keys, each.storage) for each in outbox.entries(key, storage=storage)
                ]
                for key in "ab"
                for storage in ("", "other")
            }
            for entry in outbox.entries():
                outbox.take(entry)
        assert found == {
            ("a", ""): [(["a", "b"], "")],
            ("a", "other"): [],
            ("b", ""): [(["a", "b"], "")],
            ("b", "other"): [(["b"], "other")],
        }


def test_of_one_parent_are_found_in_memory_without_a_look_at_all_others() -> None:
    backend = MemoryStorage()
    rows, parent = Objects(backend, "attachment"), "attachments:/buckets/b/collections/c/records/r"
    rows.put(parent, "a", {"key": "x"})
    rows.put(parent, "b", {"key": "y"})
    Objects(backend, "attachment-lock").put(parent, "a", {})

    def calls() -> int:
        made = 0

        def count(*_: object) -> None:
            nonlocal made
            made += 1

        sys.setprofile(count)
        try:
            rows.list(parent)
        finally:
            sys.setprofile(None)
        return made

    calls()
    few = calls()
    for number in range(100):
        rows.put(f"attachments:/buckets/b/collections/c/records/r{number}", "a", {})
    assert calls() == few
    assert rows.list(parent) == backend.list_all("attachment", parent)
    assert rows.list(f"{parent}-none") == []
    rows.list(parent)[0]["key"] = "changed"
    assert rows.list(parent) == backend.list_all("attachment", parent)
    assert f"{parent}-none" not in backend._store
