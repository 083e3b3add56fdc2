"""The counters of quotas: commands count, correct and release usage."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
import transaction

from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.maintenance.gc import gc
from kinto_attachment.maintenance.reindex import reindex
from kinto_attachment.maintenance.selection import Selection
from kinto_attachment.maintenance.usage import usage
from tests.support import direct, waiting
from tests.support.application import (
    ALICE,
    BUCKET,
    COLLECTION,
    OTHER,
    RECORD,
    attach,
    put_collection,
    write_behind,
)
from tests.support.backends import ON_DIRECT, ON_EACH_DATABASE, ON_POSTGRESQL, Build
from tests.support.services import PostgreSQL
from tests.support.tus import append, begin
from tests.support.usage import miscounted

pytestmark = ON_EACH_DATABASE

QUOTA = {"resources.b.quota_bytes": "100"}


def used(app: Any, scope: str = BUCKET) -> tuple[int, int] | None:
    with transaction.manager:
        found = app.app.registry.attachment_usage.known([scope])
    return (found[scope].files, found[scope].bytes) if found else None


def lose_counters(app: Any) -> None:
    with transaction.manager:
        app.app.registry.storage.delete_all(
            "attachment-usage", "attachments-usage:*", with_deleted=False
        )


def collect(app: Any) -> None:
    report = gc(
        app.app.registry, grace=timedelta(seconds=-5), orphan_age=timedelta(0), pause=timedelta(0)
    )
    assert not report.errors, report.errors


class TestReindex:
    def test_corrects_counters(self, build: Build) -> None:
        app = build(**QUOTA)
        attach(app, content=b"x" * 10)
        append(app, begin(app, 20, OTHER), 0, b"y" * 5)
        with transaction.manager:  # Like another server without a quota.
            app.app.registry.storage.delete_all(
                "attachment", f"attachments:{RECORD}", with_deleted=False
            )
        assert miscounted(app.app.registry)
        report = reindex(app.app.registry)
        assert (report.linked, report.recounted) == (1, 1)
        assert used(app) == (1, 15)
        attach(app, content=b"x" * 11)
        assert used(app) == (1, 16)
        assert not reindex(app.app.registry).recounted

    @ON_DIRECT
    def test_counts_uploads_to_the_storage(self, build: Build) -> None:
        app = build(**QUOTA)
        direct.begin(app, 60)
        with transaction.manager:
            app.app.registry.attachment_usage.resized(RECORD, 7)
        assert reindex(app.app.registry).recounted == 1
        assert used(app) == (0, 60)
        lose_counters(app)
        reindex(app.app.registry)
        assert used(app) == (0, 60)

    def test_tells_how_many_were_wrong(self, build: Build) -> None:
        app = build(**QUOTA)
        attach(app, content=b"x" * 10)
        with transaction.manager:
            app.app.registry.attachment_usage.resized(RECORD, 7)
        assert used(app) == (1, 17)
        report = reindex(app.app.registry)
        assert (report.recounted, report.found) == (1, False)
        assert used(app) == (1, 10)

    @ON_POSTGRESQL
    def test_counts_before_the_first_write(self, build: Build) -> None:
        before, after = build(), build(**QUOTA)
        attach(before, content=b"x" * 10)
        assert used(after) is None
        assert not reindex(after.app.registry).recounted, "none was wrong"
        assert used(after) == (1, 10)
        attach(after, OTHER, b"x" * 91, status=507)


class TestUsage:
    def test_tells_what_the_counters_say(self, build: Build) -> None:
        app = build(**QUOTA, **{"resources.b.c.quota_files": "3"})
        attach(app, content=b"x" * 10)
        of_collection = {"of": COLLECTION, "files": 1, "bytes": 10}
        found = usage(app.app.registry).quotas
        assert found == [
            {"of": BUCKET, "files": 1, "bytes": 10, "quota_bytes": 100, "quota_files": 0},
            {**of_collection, "quota_bytes": 0, "quota_files": 3},
        ]
        assert len(usage(app.app.registry, Selection(collection="c")).quotas) == 1
        assert usage(app.app.registry, Selection(bucket="other")).quotas == []

    def test_has_none_without_quotas(self, build: Build) -> None:
        app = build()
        attach(app)
        assert usage(app.app.registry).quotas == []


class TestGc:
    def test_gives_back_what_has_expired(self, build: Build) -> None:
        app = build(**QUOTA)
        append(app, begin(app, 90), 0, b"x" * 80)
        attach(app, OTHER, b"y" * 21, status=507)
        sessions = app.app.registry.attachment_sessions
        with transaction.manager:
            for session in [each for page in sessions.pages() for each in page]:
                sessions.put(replace(session, expires=1))
        collect(app)
        assert used(app) == (0, 0)
        attach(app, OTHER, b"y" * 100)

    @ON_DIRECT
    def test_gives_back_uploads_to_the_storage_that_were_never_completed(
        self, build: Build
    ) -> None:
        app = build(**QUOTA)
        direct.begin(app, 80)
        collect(app)
        assert used(app) == (0, 80), "it goes on"
        sessions = app.app.registry.attachment_sessions
        with transaction.manager:
            for session in [each for page in sessions.pages() for each in page]:
                sessions.put(replace(session, created=1, expires=1))
        collect(app)
        assert used(app) == (0, 0)
        direct.begin(app, 100)

    def test_gives_back_once_what_could_not_be_removed_at_first(self, build: Build) -> None:
        app = build(**QUOTA)
        url = begin(app, 90)
        append(app, url, 0, b"x" * 80)
        files = app.app.registry.attachment_storages.default.files
        with mock.patch.object(files, "discard", side_effect=StorageUnavailable()):
            app.delete(url, headers=ALICE)
        assert used(app) == (0, 80), "it is still stored"
        for _ in range(2):
            collect(app)
            assert used(app) == (0, 0)

    def test_gives_back_files_of_lost_records(self, build: Build) -> None:
        app = build(**QUOTA)
        attach(app, content=b"x" * 80)
        write_behind(app, RECORD, {"title": "without its file"})
        collect(app)
        assert used(app) == (0, 0)


@ON_POSTGRESQL
class TestQuotasThatComeAndGo:
    def test_what_was_not_counted_meanwhile_is_counted_again(self, build: Build) -> None:
        """The first writer without a quota deletes the counter, which would become wrong."""
        counting, plain = build(**QUOTA), build(**{"resources.b.d.quota_bytes": "1"})
        attach(counting, content=b"x" * 10)
        plain.app.registry.attachment_usage._is_tidy = False  # As after a restart.
        attach(plain, OTHER, b"x" * 20)
        assert used(counting) is None
        app = counting
        attach(app, f"{COLLECTION}/records/third", b"x" * 71, status=507)
        attach(app, f"{COLLECTION}/records/third", b"x" * 70)
        assert used(app) == (3, 100)

    def test_two_first_writes_count_each_other(self, build: Build, postgresql: PostgreSQL) -> None:
        """The second one waits until the first has committed."""
        app = build(keep_old_files="true", **QUOTA)
        for size in (10, 20):
            attach(app, content=b"x" * size)
        lose_counters(app)
        registry = app.app.registry
        transaction.begin()
        index = registry.attachment_links
        (kept,) = [link for link in index.of_record(RECORD) if link.state == "kept"]
        index.drop_kept([kept])
        registry.attachment_usage.book()
        with ThreadPoolExecutor(1) as thread:
            upload = thread.submit(attach, app, OTHER, b"x" * 5)
            waiting.until(postgresql.somebody_waits)
            transaction.commit()
            upload.result(waiting.SECONDS)
        registry.attachment_storages.default.files.delete(kept.key)
        assert used(app) == (2, 25)

    def test_the_first_write_counts_what_is_there(self, build: Build) -> None:
        app = build(**QUOTA, **{"resources.b.c.quota_bytes": "50"}, keep_old_files="true")
        put_collection(app, f"{BUCKET}/collections/d")
        attach(app, content=b"x" * 10)
        attach(app, content=b"x" * 11)
        attach(app, f"{BUCKET}/collections/d/records/r", b"x" * 12)
        append(app, begin(app, 20, OTHER), 0, b"y" * 5)
        for change, expected in (
            (lambda: attach(app, content=b"x" * 13), ((4, 51), (3, 39))),
            (lambda: app.delete(RECORD, headers=ALICE), (None, None)),  # All files are kept.
            (
                lambda: append(app, begin(app, 9, f"{COLLECTION}/records/n"), 0, b"z"),
                ((4, 52), (3, 40)),
            ),
            (lambda: app.head(f"{COLLECTION}/attachments", headers=ALICE), (None, None)),
        ):
            lose_counters(app)
            change()
            assert (used(app), used(app, COLLECTION)) == expected


@pytest.mark.parametrize("name", ["b_", "b"])
def test_underscores_of_names_are_no_patterns(build: Build, name: str) -> None:
    """In PostgreSQL's patterns, they match any character."""
    app = build(quota_bytes="100")
    for bucket, size in (("b_", 10), ("bx", 20), ("b", 5)):
        put_collection(app, f"/buckets/{bucket}/collections/c")
        attach(app, f"/buckets/{bucket}/collections/c/records/r", b"x" * size)
    lose_counters(app)
    attach(app, f"/buckets/{name}/collections/c/records/s", b"y")
    assert used(app, f"/buckets/{name}") == (2, {"b_": 11, "b": 6}[name])
