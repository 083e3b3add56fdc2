"""``kept_max_age`` and ``max_age``: gc and files that have become too old."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import transaction
from kinto.core.events import AfterResourceChanged, ResourceChanged

from kinto_attachment import AttachmentRemoved
from kinto_attachment.maintenance.gc import GcReport, gc
from tests.support.application import (
    ALICE,
    COLLECTION,
    CONTENT,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    on_event,
    put,
    read,
    seen,
    stored_files,
)
from tests.support.backends import ON_DATABASES, ON_POSTGRESQL, Build

pytestmark = ON_DATABASES

URL = f"{RECORD}/attachment"
HOUR = 3_600_000


def collect(app: Any, **options: Any) -> GcReport:
    report = gc(app.app.registry, pause=timedelta(0), **options)
    assert not report.errors
    return report


def make_older(app: Any, *fields: str, hours: float = 2) -> None:
    """Change these fields as if everything had happened some hours earlier."""
    links = app.app.registry.attachment_links
    with transaction.manager:
        for page in [*links.under()]:
            for link in page:
                earlier = {name: getattr(link, name) - int(hours * HOUR) for name in fields}
                changed = {name: max(value, 0) for name, value in earlier.items()}
                links._put(replace(link, **changed))


def versions(app: Any) -> list[str]:
    found = app.get(f"{URL}/versions", headers=ALICE).json["data"]
    return [each["filename"] for each in found]


class TestKept:
    @pytest.fixture
    def app(self, build: Build) -> Any:
        return build(keep_old_files="true", kept_max_age="1h")

    def fill(self, app: Any) -> None:
        for name in ("one.txt", "two.txt", "three.txt"):
            attach(app, content=name.encode(), filename=name)

    def test_files_are_deleted_when_they_are_too_old(self, app: Any) -> None:
        self.fill(app)
        assert not collect(app).expired
        make_older(app, "created", "attached", hours=100)
        assert not collect(app).expired
        make_older(app, "retired")
        assert len(collect(app, dry_run=True).expired) == 2
        assert versions(app) == ["three.txt", "two.txt", "one.txt"]
        report = collect(app)
        assert (len(report.expired), report.freed) == (2, len(b"one.txt" + b"two.txt"))
        assert versions(app) == ["three.txt"]
        assert len(stored_files(app)) == 1
        assert not collect(app).expired

    @pytest.mark.parametrize("end", [URL, RECORD, COLLECTION])
    def test_also_those_of_what_was_deleted(self, app: Any, end: str) -> None:
        self.fill(app)
        app.delete(end, headers=ALICE)
        assert not collect(app).expired
        make_older(app, "retired")
        assert len(collect(app).expired) == 3
        assert not stored_files(app)

    def test_a_version_that_was_restored_stays(self, app: Any) -> None:
        self.fill(app)
        make_older(app, "retired")
        oldest = app.get(f"{URL}/versions", headers=ALICE).json["data"][-1]["id"]
        app.post(f"{URL}/versions/{oldest}/restore", headers=ALICE)
        assert len(collect(app).expired) == 1
        assert versions(app) == ["one.txt", "three.txt"]
        attach(app, content=b"four")
        assert not collect(app).expired

    def test_those_of_earlier_releases_count_from_the_first_gc(self, app: Any) -> None:
        self.fill(app)
        make_older(app, "retired", hours=10**7)  # Unknown.
        assert not collect(app).expired
        assert not collect(app).expired
        make_older(app, "retired")
        assert len(collect(app).expired) == 2

    def test_for_one_collection(self, build: Build) -> None:
        app = build(**{"keep_old_files": "true", "resources.b.c.kept_max_age": "1h"})
        self.fill(app)
        make_older(app, "retired")
        assert len(collect(app).expired) == 2

    def test_not_without_the_setting(self, build: Build) -> None:
        app = build(keep_old_files="true")
        self.fill(app)
        make_older(app, "retired", hours=10**5)
        assert not collect(app).expired
        assert len(versions(app)) == 3


class TestCurrent:
    @pytest.fixture
    def app(self, build: Build) -> Any:
        return build(max_age="1h")

    def test_files_are_detached_when_they_are_too_old(self, app: Any) -> None:
        attach(app, data={"title": "A"})
        assert not collect(app).detached
        make_older(app, "attached")
        attach(app, OTHER)
        before = app.get(RECORD, headers=ALICE).json["data"]
        assert collect(app, dry_run=True).detached == [RECORD]
        assert app.get(RECORD, headers=ALICE).json["data"] == before
        app.app.registry.seen.clear()
        assert collect(app).detached == [RECORD]
        after = app.get(RECORD, headers=ALICE).json["data"]
        assert (after["title"], after["attachment"]) == ("A", None)
        assert after["last_modified"] > before["last_modified"]
        assert len(stored_files(app)) == 1
        for kind in (ResourceChanged, AfterResourceChanged):
            (event,) = seen(app, kind)
            (impacted,) = event.impacted_objects
            assert impacted["old"]["attachment"] == before["attachment"]
            assert event.payload["collection_id"] == "c"
        (removed,) = seen(app, AttachmentRemoved)
        assert removed.record_uri == RECORD
        assert not collect(app).detached

    def test_the_history_has_it(self, app: Any) -> None:
        attach(app)
        make_older(app, "attached")
        collect(app)
        entries = app.get("/buckets/b/history", {"resource_name": "record"}, headers=ALICE)
        newest = entries.json["data"][0]
        assert (newest["action"], newest["uri"]) == ("update", RECORD)

    def test_no_null_is_written_where_that_does_harm(self, build: Build) -> None:
        app = build(max_age="1h", delete_on_omission="false")
        attach(app)
        make_older(app, "attached")
        collect(app)
        assert "attachment" not in app.get(RECORD, headers=ALICE).json["data"]

    def test_they_are_kept_where_old_files_are(self, build: Build) -> None:
        app = build(max_age="1h", keep_old_files="true")
        attach(app, filename="one.txt")
        make_older(app, "attached")
        assert collect(app).detached == [RECORD]
        assert versions(app) == ["one.txt"]

    @ON_POSTGRESQL
    def test_a_listener_that_fails_keeps_it(self, app: Any) -> None:
        attach(app)
        make_older(app, "attached")

        def fail(event: Any) -> None:
            raise RuntimeError("a listener fails")

        on_event(app, ResourceChanged, fail)
        with pytest.raises(RuntimeError):
            collect(app)
        on_event(app, ResourceChanged, lambda event: None)
        assert read(app) == CONTENT

    def test_a_new_file_stays(self, app: Any) -> None:
        attach(app)
        make_older(app, "attached")
        attach(app, content=b"new")
        assert not collect(app).detached
        assert read(app) == b"new"

    def test_records_that_are_written_otherwise_keep_their_age(self, app: Any) -> None:
        attach(app)
        make_older(app, "attached")
        put(app, RECORD, data={"attachment": attachment_of(app), "title": "B"})
        assert collect(app).detached == [RECORD]
