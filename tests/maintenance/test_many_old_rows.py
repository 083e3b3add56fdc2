"""Many rows of earlier releases: requests cost no more; reindex and adopt need little memory.

``make tests`` has some thousand rows, ``make tests-all`` 300,000.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from kinto_attachment.maintenance.adopt import adopt
from kinto_attachment.maintenance.reindex import reindex
from kinto_attachment.storage import FileStat
from kinto_attachment.storage.memory import MemoryStorage
from kinto_attachment.storage.storages import Storages
from tests.support import sampling
from tests.support.application import (
    ALICE,
    COLLECTION,
    attach,
    forget_database,
    make_app,
    postgresql_settings,
    put_collection,
)
from tests.support.many_rows import fill
from tests.support.services import PostgreSQL
from tests.support.statements import counted, rows_read

MANY = 300_000
SOME_IN = 100  # ``make tests`` uses one row in so many.
MEBIBYTE = 1024**2
STORED = datetime(2020, 1, 1, tzinfo=timezone.utc)
# The rows of the kinto-attachment that adopt takes over, in addition to the records.
ITS_ROWS = f"""
    ALTER TABLE objects DISABLE TRIGGER ALL;
    INSERT INTO objects (id, parent_id, resource_name, last_modified, data, deleted)
    SELECT md5(n::text), '__attachments__', '', from_epoch(n), jsonb_build_object(
               'location', n || '.txt', 'record_uri', '{COLLECTION}/records/r' || n), FALSE
      FROM generate_series(1, {{count}}) AS n;
    DELETE FROM objects WHERE resource_name = 'attachment';
    ALTER TABLE objects ENABLE TRIGGER ALL;
    ANALYZE objects;
"""


class FullStorage(MemoryStorage):
    """A storage that has every file."""

    def stat(self, key: str) -> FileStat:
        return FileStat(key, 3, STORED)

    def list(self, prefix: str = "") -> Iterator[FileStat]:
        """One file, to show that the storage is not empty."""
        yield self.stat("one.txt")


@pytest.fixture
def database(postgresql: PostgreSQL) -> Iterator[str]:
    url = postgresql.create_database()
    yield url
    forget_database(url)
    postgresql.drop_database(url)


def measure(app: Any, name: str) -> dict[str, tuple[int, int]]:
    """The statements of an upload, a replacement and two deletions, and the rows they read."""
    record = f"{COLLECTION}/records/{name}"
    calls = {
        "upload": lambda number: attach(app, f"{record}{number}", b"1"),
        "replace": lambda number: attach(app, f"{record}{number}", b"2"),
        "delete the attachment": lambda number: app.delete(
            f"{record}{number}/attachment", headers=ALICE
        ),
        "delete": lambda number: app.delete(f"{record}{number}", headers=ALICE),
    }
    found = {}
    for what, call in calls.items():
        before = rows_read(app)
        with counted(app) as statements:
            for number in range(10):
                call(number)
        found[what] = statements.total() // 10, (rows_read(app) - before) // 10
    return found


def with_every_file(app: Any) -> Any:
    """The registry of a server whose storage has every file."""
    registry = app.app.registry
    storages = Storages({"": replace(registry.attachment_storages.default, files=FullStorage())})
    registry.attachment_storages = registry.attachment_links.storages = storages
    registry.attachment_site.storages = storages
    return registry


def test_requests_cost_the_same_among_many_rows(
    postgresql: PostgreSQL, database: str, tmp_path: Path
) -> None:
    app = make_app({"base_path": str(tmp_path)}, postgresql_settings(database))
    put_collection(app)
    measure(app, "warm")
    before = measure(app, "few")
    fill(postgresql, database, MANY // sampling.one_in(SOME_IN))
    after = measure(app, "many")
    counts = {what: count for what, (count, _) in after.items()}
    assert counts == {what: count for what, (count, _) in before.items()}
    assert counts == {"upload": 9, "replace": 10, "delete the attachment": 23, "delete": 17}
    for what, (_, rows) in after.items():
        assert rows <= before[what][1] + 10, (before, after)


def test_reindex_completes_many_rows_in_little_memory(
    postgresql: PostgreSQL, database: str, tmp_path: Path
) -> None:
    app = make_app(
        {"base_path": str(tmp_path)}, postgresql_settings(database), storage_max_fetch_size="200"
    )
    put_collection(app)
    count = MANY // 10 // sampling.one_in(SOME_IN)
    fill(postgresql, database, count)
    registry = with_every_file(app)
    tracemalloc.start()
    report = reindex(registry)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (report.records, report.linked, report.completed) == (count, 0, count)
    assert peak < 8 * MEBIBYTE
    with counted(app) as statements:
        assert reindex(registry).completed == 0
    assert {*statements} == {"SELECT"}


def test_adopt_takes_over_many_rows_in_little_memory_and_few_queries(
    postgresql: PostgreSQL, database: str, tmp_path: Path
) -> None:
    app = make_app({"base_path": str(tmp_path)}, postgresql_settings(database))
    put_collection(app)
    count = MANY // 10 // sampling.one_in(2 * SOME_IN // 5)
    fill(postgresql, database, count, ITS_ROWS)
    registry = with_every_file(app)
    tracemalloc.start()
    with counted(app) as statements:
        report = adopt(registry)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (report.records, report.linked, report.unplaced) == (count, count, [])
    # Most of it is a page of rows and records, and the objects of SQLAlchemy and Kinto for them.
    assert peak < 24 * MEBIBYTE
    # So 50,000 records take less than a minute.
    assert statements.total() < 100 + count / 20
