"""Commands and held files: release-hold ends holds, and gc keeps held files."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import transaction

from kinto_attachment.errors import Held
from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.maintenance.gc import gc
from kinto_attachment.maintenance.release_hold import release_hold
from tests.support.application import (
    ALICE,
    CONTENT,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    empty_outbox,
    put,
    read,
    stored_content,
    stored_files,
)
from tests.support.backends import ON_DATABASES, Build
from tests.support.invariants import AT_ONCE

pytestmark = ON_DATABASES

URL = f"{RECORD}/attachment"
HOLD = f"{URL}/hold"
FAR = 4_102_444_800_000  # The year 2100.
HOUR = 3_600_000


def hold(app: Any, until: int | None = FAR) -> None:
    body = {"data": {"until": until, "reason": "An audit"}}
    app.put_json(HOLD, body, headers=ALICE, status=200)


def release(app: Any, **options: Any) -> Any:
    options = {"by": "olga", "reason": "Ticket 4711", **options}
    return release_hold(app.app.registry, options.pop("record", RECORD), **options)


def collect(app: Any, **options: Any) -> Any:
    none = timedelta(0)
    report = gc(app.app.registry, grace=AT_ONCE, orphan_age=none, pause=none, **options)
    assert not report.errors
    return report


def make_older(app: Any) -> None:
    """Change the times as if everything had happened two hours earlier."""
    links = app.app.registry.attachment_links
    with transaction.manager:
        for link in [link for page in links.under() for link in page]:
            earlier = {
                name: max(getattr(link, name) - 2 * HOUR, 0)
                for name in ("created", "attached", "retired")
            }
            links._put(replace(link, **earlier))


def test_ends_what_nobody_else_can_end(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    attach(app)
    hold(app)
    app.delete(HOLD, headers=ALICE, status=423)
    with caplog.at_level(logging.WARNING):
        report = release(app)
    (line,) = report.released
    assert (line["record"], line["until"], line["reason"]) == (RECORD, FAR, "An audit")
    (logged,) = [each.getMessage() for each in caplog.records if "release-hold" in each.message]
    for told in ("olga", RECORD, "Ticket 4711", "An audit"):
        assert told in logged
    app.get(HOLD, headers=ALICE, status=404)
    app.delete(RECORD, headers=ALICE, status=200)
    assert not stored_files(app)


def test_may_run_again_and_do_nothing(app: Any) -> None:
    attach(app)
    hold(app)
    assert len(release(app, dry_run=True).released) == 1
    app.get(HOLD, headers=ALICE, status=200)
    assert len(release(app).released) == 1
    assert release(app).released == []


def test_tells_that_there_is_no_such_record_or_version(app: Any) -> None:
    attach(app)
    hold(app)
    with pytest.raises(CommandError, match=f"There is no record {RECORD}x$"):
        release(app, record=f"{RECORD}x")
    with pytest.raises(CommandError, match=f"There is no version 0 of the record {RECORD}$"):
        release(app, version="0")
    put(app, OTHER)
    assert release(app, record=OTHER).released == []
    release(app)


def test_of_one_version(build: Build) -> None:
    app = build(keep_old_files="true")
    for content in (b"one", b"two"):
        attach(app, content=content)
        hold(app)
    _, oldest = app.get(f"{URL}/versions", headers=ALICE).json["data"]
    (line,) = release(app, version=oldest["id"]).released
    assert (line["version"], line["state"]) == (oldest["id"], "kept")
    app.delete(f"{URL}/versions/{oldest['id']}", headers=ALICE, status=204)
    app.get(HOLD, headers=ALICE, status=200)
    assert len(release(app).released) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"record": "r"},
        {"record": "/buckets/b"},
        {"record": f"{RECORD[:-1]}*"},  # For Kinto's backends, this matches all records.
        {"reason": " "},
        {"by": ""},
    ],
    ids=str,
)
def test_needs_a_record_and_a_reason(app: Any, options: dict[str, str]) -> None:
    attach(app)
    hold(app)
    with pytest.raises(CommandError):
        release(app, **options)
    app.get(HOLD, headers=ALICE, status=200)


class TestGc:
    def test_does_not_detach_held_files(self, build: Build) -> None:
        app = build(max_age="1h")
        attach(app)
        hold(app)
        make_older(app)
        for dry_run in (True, False):
            assert not collect(app, dry_run=dry_run).detached
        assert read(app, URL) == CONTENT
        release(app)
        assert collect(app).detached == [RECORD]
        assert attachment_of(app) is None

    def test_does_not_delete_held_versions(self, build: Build) -> None:
        app = build(keep_old_files="true", kept_max_age="1h")
        attach(app)
        hold(app)
        attach(app, content=b"new")
        make_older(app)
        for dry_run in (True, False):
            assert not collect(app, dry_run=dry_run).expired
        assert len(stored_files(app)) == 2
        release(app)
        assert len(collect(app).expired) == 1
        assert len(stored_files(app)) == 1

    def test_keeps_held_files_whose_record_is_gone(self, app: Any) -> None:
        """As after ``kinto delete-collection``, which does not notify plugins."""
        attach(app)
        hold(app)
        (key,) = stored_files(app)
        parent, _, object_id = RECORD.rpartition("/records/")
        with transaction.manager:
            app.app.registry.storage.delete("record", parent, object_id)
        for _ in range(2):
            assert collect(app).dangling == [RECORD]
        assert stored_content(app, key) == CONTENT
        release(app)
        collect(app)
        assert not stored_files(app)


@pytest.mark.parametrize("is_shared", [False, True], ids=["alone", "shared"])
def test_versions_that_were_held_since_they_were_read_stay(build: Build, is_shared: bool) -> None:
    """The data that gc or the deletion of a version has read is outdated when it deletes."""
    app = build(keep_old_files="true")
    links = app.app.registry.attachment_links
    attach(app, content=b"old", filename="old.txt")
    if is_shared:
        app.post_json(f"{OTHER}/attachment", {"copy_from": RECORD}, headers=ALICE)
    attach(app, content=b"new")
    with transaction.manager:
        stale = [link for link in links.of_record(RECORD) if link.state == "kept"]
    (version,) = [link.version for link in stale]
    app.post(f"{URL}/versions/{version}/restore", headers=ALICE, status=200)
    hold(app)
    attach(app, content=b"newer")
    with transaction.manager:
        assert links.drop_kept(stale) == []
    with pytest.raises(Held), transaction.manager:
        links.drop_version(stale[0])
    assert read(app, f"{URL}/versions/{version}") == b"old"
    release(app)
    with transaction.manager:
        links.outbox.add_files(links.drop_kept(stale))
    empty_outbox(app)
    app.get(f"{URL}/versions/{version}", headers=ALICE, status=404)


def test_versions_whose_hold_has_passed_are_deleted(build: Build) -> None:
    app = build(keep_old_files="true")
    attach(app)
    hold(app)
    attach(app, content=b"new")
    links = app.app.registry.attachment_links
    with transaction.manager:
        for link in links.of_record(RECORD):
            if link.hold:
                links._put(replace(link, hold={**link.hold, "until": 1}))
    _, oldest = app.get(f"{URL}/versions", headers=ALICE).json["data"]
    app.delete(f"{URL}/versions/{oldest['id']}", headers=ALICE, status=204)
    assert len(stored_files(app)) == 1
