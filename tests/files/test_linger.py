"""Files that stay for a while after their record has released them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest import mock

import pytest

from kinto_attachment.files import settling
from kinto_attachment.maintenance.gc import gc
from tests.support import lingering
from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    BUCKET,
    COLLECTION,
    CONTENT,
    OTHER,
    RECORD,
    attach,
    key_of,
    outbox,
    put,
    read,
    stored_files,
    stored_links,
    write_behind,
)
from tests.support.backends import ON_DATABASES, Build

NEVER = timedelta(days=1)
SOURCE = f"{BUCKET}/collections/source/records/r"


def collect(app: Any) -> Any:
    report = gc(
        app.app.registry, grace=timedelta(seconds=-1), orphan_age=timedelta(0), pause=timedelta(0)
    )
    assert not report.errors
    return report


def publish(app: Any, attachment: Any, target: str = OTHER, status: int = 200) -> None:
    """Copy a record like a plugin that read it a moment ago."""
    put(app, f"{BUCKET}/collections/source")
    write_behind(app, SOURCE, {"attachment": attachment})
    app.post_json("/publish", {"copies": {SOURCE: target}}, status=status)
    write_behind(app, SOURCE, {})
    if status == 409:  # Nothing is rolled back on a memory backend.
        write_behind(app, target, {})


@pytest.fixture
def app(build: Build) -> Any:
    app = build({"includes": "tests.support.publishing"}, linger="1h")
    app.app.registry.attachment_lingering.clear()
    yield app
    lingering.end(app)


@ON_DATABASES
class TestReplaced:
    def test_can_be_read_by_those_who_may_read_the_record(self, app: Any) -> None:
        location = attach(app).json["location"]
        attach(app, content=b"new")
        assert read(app, location) == CONTENT
        assert read(app) == b"new"
        app.get(location, headers=BOB, status=404)
        app.get(location, headers=ANONYMOUS, status=401)
        everyone = {"permissions": {"read": ["system.Everyone"]}}
        app.patch_json(RECORD, everyone, headers=ALICE)
        assert read(app, location, ANONYMOUS) == CONTENT

    def test_stays_while_gc_runs(self, app: Any) -> None:
        attach(app)
        attach(app, content=b"new")
        collect(app)
        assert len(stored_files(app)) == 2

    def test_is_deleted_by_gc_when_its_time_is_over(self, app: Any) -> None:
        location = attach(app).json["location"]
        key = key_of(attach(app, content=b"new").json)
        lingering.pass_the_time(app)
        app.app.registry.attachment_lingering.clear()  # As in another process.
        app.get(location, headers=ALICE, status=404)
        report = collect(app)
        assert len(report.finished) == 1
        assert stored_files(app) == {key}
        assert {(state, found) for _, found, state in stored_links(app)} == {("current", key)}
        assert not outbox(app)

    def test_is_deleted_by_a_later_request(self, app: Any) -> None:
        attach(app)
        key = key_of(attach(app, content=b"new").json)
        app.get(RECORD, headers=ALICE)
        assert len(stored_files(app)) == 2
        lingering.pass_the_time(app)
        app.get(RECORD, headers=ALICE)
        assert stored_files(app) == {key}
        assert not outbox(app)

    def test_can_be_copied_by_a_plugin(self, app: Any) -> None:
        attachment = attach(app).json
        attach(app, content=b"new")
        publish(app, attachment)
        lingering.pass_the_time(app)
        collect(app)
        assert read(app, f"{OTHER}/attachment") == CONTENT
        assert len(stored_files(app)) == 2
        app.delete(OTHER, headers=ALICE)
        lingering.pass_the_time(app)
        collect(app)
        assert len(stored_files(app)) == 1

    def test_can_come_back(self, app: Any) -> None:
        attachment = attach(app).json
        attach(app, content=b"new")
        publish(app, attachment, target=RECORD)
        lingering.pass_the_time(app)
        collect(app)
        assert read(app) == CONTENT
        assert stored_files(app) == {key_of(attachment)}

    def test_cannot_be_linked_by_a_client(self, app: Any) -> None:
        attachment = attach(app).json
        attach(app, content=b"new")
        body = {"data": {"attachment": attachment}}
        app.put_json(OTHER, body, headers=ALICE, status=400)
        app.patch_json(RECORD, body, headers=ALICE, status=400)

    def test_a_storage_that_fails_then_gets_another_try(self, app: Any) -> None:
        attach(app)
        key = key_of(attach(app, content=b"new").json)
        lingering.pass_the_time(app)
        storage = app.app.registry.attachment_storages.default.files
        with mock.patch.object(storage, "delete", side_effect=settling.StorageError()):
            app.get(RECORD, headers=ALICE)
        assert len(stored_files(app)) == 2
        collect(app)
        assert stored_files(app) == {key}


@ON_DATABASES
@pytest.mark.parametrize(
    "delete",
    [f"{RECORD}/attachment", RECORD, f"{COLLECTION}/records", COLLECTION, BUCKET],
    ids=["attachment", "record", "records", "collection", "bucket"],
)
class TestDeleted:
    def test_nobody_can_read_it(self, app: Any, delete: str) -> None:
        first = attach(app).json["location"]
        second = attach(app, content=b"new").json["location"]
        app.delete(delete, headers=ALICE)
        put(app, BUCKET)
        put(app, COLLECTION, permissions={"read": ["system.Everyone"]})
        put(app, RECORD)
        for location in (first, second):
            for headers in (ALICE, ANONYMOUS):
                app.get(location, headers=headers, status=404 if headers else 401)
        app.get(f"{RECORD}/attachment", headers=ALICE, status=404)
        assert len(stored_files(app)) == 2

    def test_a_plugin_that_has_read_it_can_copy_it(self, app: Any, delete: str) -> None:
        attachment = attach(app).json
        app.delete(delete, headers=ALICE)
        put(app, BUCKET)
        put(app, COLLECTION)
        publish(app, attachment)
        lingering.pass_the_time(app)
        collect(app)
        assert read(app, f"{OTHER}/attachment") == CONTENT

    def test_it_goes_when_its_time_is_over(self, app: Any, delete: str) -> None:
        attachment = attach(app).json
        app.delete(delete, headers=ALICE)
        lingering.pass_the_time(app)
        collect(app)
        assert not stored_files(app)
        assert not stored_links(app)
        put(app, BUCKET)
        put(app, COLLECTION)
        publish(app, attachment, status=409)


@ON_DATABASES
@pytest.mark.parametrize("delete", [RECORD, f"{RECORD}/attachment"], ids=["record", "attachment"])
def test_nobody_can_read_what_a_batch_deleted(app: Any, delete: str) -> None:
    """Even if the batch creates the record again, with another file, and public."""
    first = attach(app).json["location"]
    second = attach(app, content=b"secret").json["location"]
    readable = {"permissions": {"read": ["system.Everyone"]}}
    parts: list[dict[str, Any]] = [
        {"method": "DELETE", "path": f"/v1{delete}"},
        {"method": "PUT", "path": f"/v1{RECORD}/attachment?filename=a.json", "body": {"n": 1}},
        {"method": "PATCH", "path": f"/v1{RECORD}", "body": readable},
    ]
    app.post_json("/batch", {"requests": parts}, headers=ALICE)
    assert read(app, f"{RECORD}/attachment", ANONYMOUS) == b'{"n":1}'
    for location in (first, second):
        app.get(location, headers=ALICE, status=404)
        app.get(location, headers=ANONYMOUS, status=401)


@ON_DATABASES
def test_without_it_a_publisher_comes_too_late(build: Build) -> None:
    app = build({"includes": "tests.support.publishing"})
    attachment = attach(app).json
    attach(app, content=b"new")
    publish(app, attachment, status=409)


@ON_DATABASES
def test_can_be_set_for_a_collection(build: Build) -> None:
    app = build(**{"resources.b.d.linger": "1h"})
    put(app, f"{BUCKET}/collections/d")
    attach(app)
    attach(app, content=b"new")
    assert len(stored_files(app)) == 1
    lasting = f"{BUCKET}/collections/d/records/r"
    attach(app, lasting)
    attach(app, lasting, content=b"new")
    assert len(stored_files(app)) == 3
    lingering.pass_the_time(app)
    app.get(RECORD, headers=ALICE)
    assert len(stored_files(app)) == 2
