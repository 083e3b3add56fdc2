"""Who may write ``attachment`` in a record, and what happens to the file if it is dropped."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
import transaction
from kinto.core.events import ACTIONS, ResourceChanged, notify_resource_event
from pyramid.security import NO_PERMISSION_REQUIRED

from kinto_attachment import allow_metadata_changes
from kinto_attachment.files.ledger import CollectedEvents
from kinto_attachment.maintenance.gc import gc
from kinto_attachment.maintenance.reindex import reindex
from tests.support.application import (
    ALICE,
    BUCKET,
    COLLECTION,
    CONTENT,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    key_of,
    put,
    put_collection,
    read,
    seen,
    stored_files,
    stored_links,
    userid,
    write_behind,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_MEMORY, ON_POSTGRESQL, Build

pytestmark = EVERYWHERE

URL = f"{RECORD}/attachment"
JSON_PATCH = {"Content-Type": "application/json-patch+json", **ALICE}
MERGE_PATCH = {"Content-Type": "application/merge-patch+json", **ALICE}
MESSAGE = "attachment in body: Attachment metadata cannot be modified."

MIRRORED = f"{BUCKET}/collections/mirror/records/r"

FORGED = {
    "filename": "notes.txt",
    "hash": "0" * 64,
    "location": "http://localhost/v1/attachments/secret.txt",
    "mimetype": "text/plain",
    "size": 1,
}


def refuses(response: Any) -> None:
    assert response.status_code == 400
    assert response.json["errno"] == 107
    assert "Attachment metadata cannot be modified." in response.json["message"]


class TestForgery:
    """A client may not invent or change an attachment."""

    def batch(self, app: Any, requests: list[dict[str, Any]]) -> list[int]:
        answer = app.post_json("/batch", {"requests": requests}, headers=ALICE, status=200)
        return [part["status"] for part in answer.json["responses"]]

    def test_in_a_record_created_by_put(self, app: Any) -> None:
        body = {"data": {"attachment": FORGED}}
        refuses(app.put_json(RECORD, body, headers=ALICE, status=400))
        app.get(RECORD, headers=ALICE, status=404)

    @ON_DATABASES
    def test_leaves_no_trace(self, app: Any) -> None:
        """Clients that ask for changes do not see a record that was never created."""
        body = {"data": {"attachment": FORGED}}
        refuses(app.put_json(RECORD, body, headers=ALICE, status=400))
        changes = app.get(f"{COLLECTION}/records?_since=1", headers=ALICE)
        assert changes.json["data"] == []

    def test_in_a_record_created_by_post(self, app: Any) -> None:
        body = {"data": {"attachment": FORGED}}
        refuses(app.post_json(f"{COLLECTION}/records", body, headers=ALICE, status=400))
        assert app.get(f"{COLLECTION}/records", headers=ALICE).json["data"] == []

    @pytest.mark.parametrize("attachment", [{}, [], "text", 1, False, "", {"filename": "a"}])
    def test_that_is_no_attachment_at_all(self, app: Any, attachment: Any) -> None:
        body = {"data": {"attachment": attachment}}
        refuses(app.put_json(RECORD, body, headers=ALICE, status=400))
        app.get(RECORD, headers=ALICE, status=404)

    def test_in_a_record_without_one(self, app: Any) -> None:
        put(app, RECORD, data={"title": "A"})
        body = {"data": {"attachment": FORGED}}
        refuses(app.put_json(RECORD, body, headers=ALICE, status=400))
        refuses(app.patch_json(RECORD, body, headers=ALICE, status=400))
        assert attachment_of(app) is None
        assert app.get(RECORD, headers=ALICE).json["data"]["title"] == "A"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("filename", "other.txt"),
            ("hash", "0" * 64),
            ("location", "http://localhost/v1/attachments/secret.txt"),
            ("mimetype", "text/html"),
            ("size", 1),
            ("original", {"filename": "x"}),
            ("extra", True),
        ],
    )
    def test_of_one_attribute(self, app: Any, name: str, value: Any) -> None:
        attachment = attach(app).json
        body = {"data": {"attachment": {**attachment, name: value}}}
        refuses(app.put_json(RECORD, body, headers=ALICE, status=400))
        refuses(app.patch_json(RECORD, body, headers=ALICE, status=400))
        merge = {"data": {"attachment": {name: value}}}
        # Kinto merges it into the old object in place, so that it can no longer be detected.
        refuses(app.patch_json(RECORD, merge, headers=MERGE_PATCH, status=400))
        operation = {"op": "add", "path": f"/data/attachment/{name}", "value": value}
        refuses(app.patch_json(RECORD, [operation], headers=JSON_PATCH, status=400))
        assert attachment_of(app) == attachment
        assert read(app) == CONTENT

    @pytest.mark.parametrize(
        "operation",
        [
            {"op": "remove", "path": "/data/attachment/hash"},
            {"op": "replace", "path": "/data/attachment", "value": FORGED},
            {"op": "move", "from": "/data/title", "path": "/data/attachment/filename"},
            {"op": "copy", "from": "/data/other", "path": "/data/attachment"},
        ],
        ids=lambda operation: operation["op"],
    )
    def test_by_json_patch(self, app: Any, operation: dict[str, Any]) -> None:
        attachment = attach(app, data={"title": "A", "other": FORGED}).json
        refuses(app.patch_json(RECORD, [operation], headers=JSON_PATCH, status=400))
        assert attachment_of(app) == attachment

    @ON_DATABASES
    @pytest.mark.parametrize(
        ("content", "gzipped", "path", "value"),
        [
            (b"four", "false", "size", 4.0),
            (b"1", "false", "size", 1.0),
            (b"1", "false", "size", True),
            (b"", "false", "size", False),
            (b"", "false", "size", 0.0),
            (b"", "false", "size", "0"),
            (b"", "false", "size", None),
            (b"four", "true", "original/size", 4.0),
            (b"1", "true", "original/size", True),
        ],
    )
    def test_of_a_number_that_python_calls_equal(
        self, build: Build, content: bytes, gzipped: str, path: str, value: Any
    ) -> None:
        app = build(gzipped=gzipped)
        attachment = attach(app, content=content).json
        before = app.get(RECORD, headers=ALICE).text
        *inside, name = path.split("/")
        changed = merge = deepcopy(attachment)
        for step in inside:
            merge = merge[step]
        merge[name] = value
        body = {"data": {"attachment": changed}}
        refuses(app.put_json(RECORD, body, headers=ALICE, status=400))
        refuses(app.patch_json(RECORD, body, headers=ALICE, status=400))
        refuses(app.patch_json(RECORD, body, headers=MERGE_PATCH, status=400))
        operation = {"op": "replace", "path": f"/data/attachment/{path}", "value": value}
        refuses(app.patch_json(RECORD, [operation], headers=JSON_PATCH, status=400))
        assert app.get(RECORD, headers=ALICE).text == before

    def test_with_the_attachment_of_another_record(self, app: Any) -> None:
        """Otherwise, readers of this record could read the other record's file."""
        stolen = attach(app, OTHER).json
        attachment = attach(app).json
        body = {"data": {"attachment": stolen}}
        refuses(app.put_json(RECORD, body, headers=ALICE, status=400))
        assert attachment_of(app) == attachment
        assert len(stored_files(app)) == 2

    def test_in_a_batch(self, app: Any) -> None:
        attachment = attach(app).json
        requests = [
            {"method": "PATCH", "path": f"/v1{RECORD}", "body": {"data": {"attachment": FORGED}}},
            {"method": "PATCH", "path": f"/v1{RECORD}", "body": {"data": {"title": "A"}}},
        ]
        assert self.batch(app, requests) == [400, 200]
        record = app.get(RECORD, headers=ALICE).json["data"]
        assert (record["attachment"], record["title"]) == (attachment, "A")

    def test_by_merge_patch_in_a_batch(self, app: Any) -> None:
        attachment = attach(app).json
        requests = [
            {
                "method": "PATCH",
                "path": f"/v1{RECORD}",
                "headers": {"Content-Type": "application/merge-patch+json"},
                "body": {"data": changes},
            }
            for changes in ({"title": "A"}, {"attachment": {"mimetype": "text/html"}})
        ]
        assert self.batch(app, requests) == [200, 400]
        assert attachment_of(app) == attachment

    def test_beside_an_upload_in_a_batch(self, app: Any) -> None:
        """The rest of the batch may not write what the upload may."""
        requests = [
            {"method": "PUT", "path": f"/v1{URL}?filename=a.json", "body": {"n": 1}},
            {"method": "PUT", "path": f"/v1{OTHER}", "body": {"data": {"attachment": FORGED}}},
        ]
        assert self.batch(app, requests) == [201, 400]
        assert json.loads(read(app)) == {"n": 1}
        app.get(OTHER, headers=ALICE, status=404)

    @ON_MEMORY
    def test_of_other_attributes_is_none(self, app: Any) -> None:
        data = {"attachments": FORGED, "file": {"attachment": FORGED}}
        put(app, RECORD, data=data)
        assert app.get(RECORD, headers=ALICE).json["data"].items() >= data.items()

    @ON_MEMORY
    def test_in_other_objects_is_none(self, app: Any) -> None:
        put(app, COLLECTION, data={"attachment": FORGED})
        put(app, BUCKET, data={"attachment": FORGED})
        put(app, f"{BUCKET}/groups/g", data={"attachment": FORGED, "members": []})


class TestUnchanged:
    """Repeating the unchanged attachment is allowed, as kinto.js and admin pages do."""

    def test_by_put_and_patch(self, app: Any) -> None:
        attachment = attach(app).json
        body = {"data": {"attachment": attachment, "title": "A"}}
        app.put_json(RECORD, body, headers=ALICE, status=200)
        app.patch_json(RECORD, body, headers=ALICE, status=200)
        record = app.get(RECORD, headers=ALICE).json["data"]
        assert (record["attachment"], record["title"]) == (attachment, "A")
        assert read(app) == CONTENT

    @pytest.mark.parametrize("gzipped", ["false", "true"])
    def test_in_another_order(self, build: Build, gzipped: str) -> None:
        app = build(gzipped=gzipped)
        attachment = attach(app).json
        turned = dict(reversed(attachment.items()))
        if "original" in attachment:
            turned["original"] = dict(reversed(attachment["original"].items()))
        body = {"data": {"attachment": turned}}
        app.put_json(RECORD, body, headers=ALICE, status=200)
        app.patch_json(RECORD, body, headers=ALICE, status=200)
        assert attachment_of(app) == attachment
        assert stored_files(app) == {key_of(attachment)}

    def test_by_a_patch_of_something_else(self, app: Any) -> None:
        attachment = attach(app).json
        app.patch_json(RECORD, {"data": {"title": "A"}}, headers=ALICE)
        operation = {"op": "add", "path": "/data/author", "value": "B"}
        app.patch_json(RECORD, [operation], headers=JSON_PATCH)
        app.patch_json(RECORD, {"permissions": {"read": ["system.Everyone"]}}, headers=ALICE)
        assert attachment_of(app) == attachment
        assert read(app) == CONTENT

    def test_null_where_there_is_none(self, app: Any) -> None:
        put(app, RECORD, data={"attachment": None})
        put(app, RECORD, data={"attachment": None, "title": "A"})
        put(app, RECORD, data={})
        assert not stored_links(app)


class TestDetach:
    """Dropping the attachment in a write of the record deletes the file."""

    @pytest.mark.parametrize("data", [{}, {"attachment": None}, {"title": "A"}])
    def test_by_put(self, app: Any, data: dict[str, Any]) -> None:
        attach(app)
        put(app, RECORD, data=data)
        assert attachment_of(app) is None
        assert not stored_files(app)
        assert not stored_links(app)
        attach(app, status=200)
        assert read(app) == CONTENT

    def test_by_patch(self, app: Any) -> None:
        attach(app, data={"title": "A"})
        app.patch_json(RECORD, {"data": {"attachment": None}}, headers=ALICE)
        assert app.get(RECORD, headers=ALICE).json["data"]["title"] == "A"
        assert not stored_files(app)

    def test_by_merge_patch(self, app: Any) -> None:
        attach(app)
        app.patch_json(RECORD, {"data": {"attachment": None}}, headers=MERGE_PATCH)
        assert "attachment" not in app.get(RECORD, headers=ALICE).json["data"]
        assert not stored_files(app)

    def test_by_json_patch(self, app: Any) -> None:
        attach(app)
        operation = {"op": "remove", "path": "/data/attachment"}
        app.patch_json(RECORD, [operation], headers=JSON_PATCH)
        assert not stored_files(app)

    def test_in_a_batch(self, app: Any) -> None:
        attach(app)
        attach(app, OTHER)
        requests = [
            {"method": "PUT", "path": f"/v1{RECORD}", "body": {"data": {"title": "A"}}},
            {"method": "PATCH", "path": f"/v1{OTHER}", "body": {"data": {"attachment": None}}},
        ]
        app.post_json("/batch", {"requests": requests}, headers=ALICE)
        assert not stored_files(app)

    def test_is_refused_with_the_write(self, app: Any) -> None:
        etag = attach(app).headers["ETag"]
        attach(app, content=b"new")
        headers = {**ALICE, "If-Match": etag}
        app.put_json(RECORD, {"data": {}}, headers=headers, status=412)
        assert read(app) == b"new"

    def test_keeps_old_files(self, build: Build) -> None:
        app = build(keep_old_files="true")
        key = key_of(attach(app).json)
        put(app, RECORD, data={})
        assert stored_files(app) == {key}
        assert {state for _, _, state in stored_links(app)} == {"kept"}


@ON_DATABASES
class TestWithoutIndex:
    """Records that are not in the index: restored, or written by another plugin."""

    @pytest.fixture
    def unlinked(self, app: Any) -> Any:
        attach(app)
        links = app.app.registry.attachment_links
        with transaction.manager:
            links.drop(links.of_record(RECORD))
        assert not stored_links(app)
        return app

    def test_are_not_linked_because_a_client_writes_them(self, unlinked: Any) -> None:
        unlinked.patch_json(RECORD, {"data": {"title": "A"}}, headers=ALICE)
        assert not stored_links(unlinked)
        assert read(unlinked) == CONTENT
        reindex(unlinked.app.registry)
        assert {record for record, _, _ in stored_links(unlinked)} == {RECORD}

    def test_are_read(self, unlinked: Any) -> None:
        assert read(unlinked) == CONTENT
        reindex(unlinked.app.registry)

    def test_point_at_a_file_that_is_gone(self, unlinked: Any) -> None:
        unlinked.app.registry.attachment_storages.default.files.delete(*stored_files(unlinked))
        unlinked.patch_json(RECORD, {"data": {"title": "A"}}, headers=ALICE)
        assert not stored_links(unlinked)
        put(unlinked, RECORD, data={})


@ON_DATABASES
class TestEventsOfPlugins:
    """Events of one request can carry the ids of another resource."""

    @pytest.mark.parametrize("told", [RECORD, OTHER, f"{BUCKET}/collections/nowhere/records/x"])
    def test_the_file_is_linked_to_the_record_that_was_written(
        self, build: Build, told: str
    ) -> None:
        app = build({"includes": "tests.support.publishing"})
        put(app, f"{BUCKET}/collections/public")
        copy = f"{BUCKET}/collections/public/records/copy"
        key = key_of(attach(app).json)
        app.post_json("/publish", {"copies": {RECORD: copy}, "ids_of": told})
        assert stored_links(app) == {(RECORD, key, "current"), (copy, key, "current")}
        app.delete(RECORD, headers=ALICE)
        assert read(app, f"{copy}/attachment") == CONTENT

    @pytest.mark.parametrize("told", [RECORD, OTHER])
    def test_what_was_linked_wrongly_is_put_right(self, build: Build, told: str) -> None:
        """The event was not sent by Kinto's own function for events."""
        app = build({"includes": "tests.support.publishing"})
        put(app, f"{BUCKET}/collections/public")
        copy = f"{BUCKET}/collections/public/records/copy"
        attachment = attach(app).json
        key = key_of(attachment)
        with mock.patch.object(CollectedEvents, "parent_of", return_value=None):
            app.post_json("/publish", {"copies": {RECORD: copy}, "ids_of": told}, status="*")
        write_behind(app, copy, {"attachment": attachment})
        for _ in range(2):
            gc(
                app.app.registry,
                grace=timedelta(seconds=-1),
                orphan_age=timedelta(0),
                pause=timedelta(0),
            )
            assert stored_files(app) == {key}
            reindex(app.app.registry)
        assert (copy, key, "current") in stored_links(app)
        app.delete(RECORD, headers=ALICE)
        assert read(app, f"{copy}/attachment") == CONTENT


@ON_MEMORY
def test_an_unrelated_change_adds_no_link_to_a_wrong_one(app: Any) -> None:
    """A backup of the records can cause such a link; reindex repairs it."""
    key = key_of(attach(app).json)
    other = attach(app, OTHER).json
    write_behind(app, RECORD, {"attachment": other})
    app.patch_json(RECORD, {"data": {"title": "x"}}, headers=ALICE)
    assert {(RECORD, key, "current"), (OTHER, key_of(other), "current")} == stored_links(app)


@ON_POSTGRESQL
class TestFlagsOfPlugins:
    """A plugin that is included before ours and copies what clients write."""

    def test_a_flag_does_not_cover_what_a_client_wrote_before(self, build: Build) -> None:
        app = build({"included_first": "tests.support.mirroring"})
        put(app, f"{BUCKET}/collections/mirror")
        attachment = attach(app).json
        for forged in (attachment, FORGED):
            body = {"data": {"attachment": forged}}
            refuses(app.put_json(OTHER, body, headers=ALICE, status=400))
        assert {record for record, _, _ in stored_links(app)} == {RECORD, MIRRORED}

    def test_it_covers_the_copy(self, build: Build) -> None:
        app = build({"included_first": "tests.support.mirroring"})
        put(app, f"{BUCKET}/collections/mirror")
        attachment = attach(app).json
        assert attachment_of(app, MIRRORED) == attachment
        app.delete(RECORD, headers=ALICE)
        assert read(app, f"{MIRRORED}/attachment") == CONTENT


@ON_DATABASES
class TestSeveralWritesInABatch:
    """Kinto's events are sorted by kind, not in the order of the writes."""

    def batch(self, app: Any, *requests: tuple[str, str]) -> list[int]:
        parts = [
            {
                "method": method,
                "path": f"/v1{path}" + ("?filename=a.json" if method == "PUT" else ""),
                **({"body": {"number": number}} if method == "PUT" else {}),
            }
            for number, (method, path) in enumerate(requests)
        ]
        answer = app.post_json("/batch", {"requests": parts}, headers=ALICE)
        return [part["status"] for part in answer.json["responses"]]

    def test_created_deleted_and_created_again(self, app: Any) -> None:
        statuses = self.batch(app, ("PUT", URL), ("DELETE", RECORD), ("PUT", URL))
        assert statuses == [201, 200, 201]
        assert json.loads(read(app)) == {"number": 2}
        assert len(stored_files(app)) == 1

    def test_replaced_deleted_and_created_again(self, app: Any) -> None:
        attach(app)
        self.batch(app, ("PUT", URL), ("DELETE", RECORD), ("PUT", URL))
        assert json.loads(read(app)) == {"number": 2}
        assert len(stored_files(app)) == 1

    def test_replaced_several_times(self, app: Any) -> None:
        attach(app)
        assert self.batch(app, *[("PUT", URL)] * 3) == [200] * 3
        assert json.loads(read(app)) == {"number": 2}
        assert len(stored_files(app)) == 1

    def test_each_is_kept_where_old_files_are(self, build: Build) -> None:
        app = build(keep_old_files="true")
        attach(app)
        self.batch(app, *[("PUT", URL)] * 3)
        assert json.loads(read(app)) == {"number": 2}
        assert len(stored_files(app)) == 4

    def test_written_before_their_collection_is_deleted(self, app: Any) -> None:
        self.batch(app, ("PUT", URL), ("DELETE", COLLECTION))
        assert not stored_files(app)
        assert not stored_links(app)


@ON_MEMORY
class TestHistory:
    def test_is_of_the_record(self, app: Any) -> None:
        attach(app, data={"title": "A"})
        attach(app, content=b"new")
        app.delete(URL, headers=ALICE)
        entries = app.get(f"{BUCKET}/history?resource_name=record", headers=ALICE).json["data"]
        assert [entry["uri"] for entry in entries] == [RECORD] * 3
        assert [entry["action"] for entry in entries] == ["update", "update", "create"]
        assert {entry["user_id"] for entry in entries} == {userid(app)}
        assert entries[2]["target"]["data"]["attachment"]["filename"] == "notes.txt"
        assert entries[0]["target"]["data"]["attachment"] is None

    def test_has_the_permissions(self, app: Any) -> None:
        attach(app, permissions={"read": ["system.Everyone"]})
        (entry,) = app.get(f"{BUCKET}/history?resource_name=record", headers=ALICE).json["data"]
        assert entry["target"]["permissions"]["read"] == ["system.Everyone"]


class TestResourceChanged:
    def record_events(self, app: Any) -> list[tuple[str, list[dict[str, Any]]]]:
        return [
            (event.payload["action"], event.impacted_objects)
            for event in seen(app, ResourceChanged)
            if event.payload["resource_name"] == "record"
        ]

    def test_is_fired_once(self, app: Any) -> None:
        first = attach(app, data={"title": "A"}).json
        second = attach(app, content=b"new").json
        app.delete(URL, headers=ALICE)
        events = self.record_events(app)
        assert [action for action, _ in events] == ["create", "update", "update"]
        assert [len(impacted) for _, impacted in events] == [1, 1, 1]
        assert events[0][1][0]["new"]["attachment"] == first
        assert events[1][1][0]["old"]["attachment"] == first
        assert events[1][1][0]["new"]["attachment"] == second
        assert events[2][1][0]["new"]["attachment"] is None

    def test_says_who_and_where(self, app: Any) -> None:
        attach(app)
        (event,) = (
            event
            for event in seen(app, ResourceChanged)
            if event.payload["resource_name"] == "record"
        )
        assert event.payload["uri"] == RECORD
        assert event.payload["user_id"] == userid(app)
        assert event.payload["bucket_id"] == "b"
        assert event.payload["collection_id"] == "c"
        assert event.payload["record_id"] == "r"

    def test_is_not_fired_for_what_is_refused(self, app: Any) -> None:
        attach(app, data="nope", status=400)
        attach(app, headers={}, status=401)
        app.delete(URL, headers=ALICE, status=404)
        assert self.record_events(app) == []


def includeme(config: Any) -> None:
    """A plugin that writes attachments: ``POST /write`` with ``[[URI, attachment, how], …]``."""
    config.add_route("write", "/write")
    config.add_view(
        write,
        route_name="write",
        request_method="POST",
        renderer="json",
        permission=NO_PERMISSION_REQUIRED,
    )


def write(request: Any) -> dict[str, Any]:
    for uri, attachment, how in request.json:
        if how == "context":
            with allow_metadata_changes(request):
                write_record(request, uri, attachment)
        else:
            if how == "flag":
                request._attachment_auto_save = True
            write_record(request, uri, attachment)
    return {}


def write_record(request: Any, uri: str, attachment: Any) -> None:
    parent, _, object_id = uri.rpartition("/records/")
    _, _, bucket_id, _, collection_id = parent.split("/")
    record = {"id": object_id, "attachment": attachment}
    written = request.registry.storage.update("record", parent, object_id, record)
    notify_resource_event(
        request,
        parent_id=parent,
        timestamp=written["last_modified"],
        data=written,
        action=ACTIONS.CREATE,
        resource_name="record",
        resource_data={"bucket_id": bucket_id, "collection_id": collection_id},
    )


class TestPlugins:
    """Server-side code may write attachments if it sets the flag."""

    @pytest.fixture
    def app(self, build: Build) -> Any:
        return build({"includes": __name__})

    def write(self, app: Any, *writes: tuple[str, Any, str], status: int = 200) -> None:
        response = app.post_json("/write", list(writes), headers=ALICE, status=status)
        if status == 400:
            refuses(response)

    @pytest.mark.parametrize("how", ["context", "flag"])
    def test_that_say_so(self, app: Any, how: str) -> None:
        attachment = attach(app).json
        self.write(app, (OTHER, attachment, how))
        assert attachment_of(app, OTHER) == attachment
        assert {record for record, _, _ in stored_links(app)} == {RECORD, OTHER}
        app.delete(RECORD, headers=ALICE)
        assert read(app, f"{OTHER}/attachment") == CONTENT

    @ON_DATABASES
    def test_that_do_not_say_so(self, app: Any) -> None:
        attachment = attach(app).json
        self.write(app, (OTHER, attachment, ""), status=400)
        app.get(OTHER, headers=ALICE, status=404)
        assert {record for record, _, _ in stored_links(app)} == {RECORD}

    @ON_DATABASES
    @pytest.mark.parametrize("first", ["context", ""])
    def test_the_context_covers_what_is_notified_inside_alone(self, app: Any, first: str) -> None:
        attachment = attach(app).json
        third = f"{COLLECTION}/records/third"
        second = "" if first else "context"
        self.write(app, (OTHER, attachment, first), (third, attachment, second), status=400)
        app.get(OTHER, headers=ALICE, status=404)
        app.get(third, headers=ALICE, status=404)

    @ON_MEMORY
    def test_that_are_refused_leave_no_trace(self, app: Any) -> None:
        """A plugin's changes are written before they are refused. Databases roll them back."""
        attachment = attach(app).json
        self.write(app, (OTHER, attachment, ""), status=400)
        changes = app.get(f"{COLLECTION}/records?_since=1", headers=ALICE).json["data"]
        assert [each["id"] for each in changes] == ["r"]

    def test_the_context_may_be_entered_more_than_once(self, app: Any) -> None:
        attachment = attach(app).json
        third = f"{COLLECTION}/records/third"
        self.write(app, (OTHER, attachment, "context"), (third, attachment, "context"))
        assert len(stored_links(app)) == 3
        assert len(stored_files(app)) == 1

    def test_that_write_attachments_of_other_servers(self, app: Any) -> None:
        elsewhere = {"filename": "a", "location": "https://elsewhere.example.com/a"}
        self.write(app, (OTHER, elsewhere, "context"))
        assert stored_links(app) == set()
        # Clients may repeat it and drop it.
        put(app, OTHER, data={"attachment": elsewhere, "title": "A"})
        put(app, OTHER, data={})
        write_behind(app, OTHER, {"id": "other"})

    @ON_POSTGRESQL
    def test_that_point_at_a_file_that_is_gone(self, app: Any) -> None:
        """The record is not written, because its file could not be downloaded."""
        attachment = attach(app).json
        app.delete(URL, headers=ALICE)
        response = app.post_json(
            "/write", [(OTHER, attachment, "context")], headers=ALICE, status=409
        )
        assert "retry" in response.json["message"]
        assert int(response.headers["Retry-After"]) > 0


@ON_MEMORY
def test_collections_and_buckets_that_were_never_attached_to_are_deleted(app: Any) -> None:
    put_collection(app, f"{BUCKET}/collections/d")
    put(app, f"{BUCKET}/collections/d/records/r", data={"title": "A"})
    app.delete(f"{BUCKET}/collections/d/records/r", headers=ALICE)
    app.delete(f"{BUCKET}/collections/d", headers=ALICE)
    app.delete(BUCKET, headers=ALICE)
