"""Collections whose files are locked: what clients, plugins and uploads under way may do."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest

from tests.support import direct, tus, waiting
from tests.support.application import (
    ALICE,
    BUCKET,
    COLLECTION,
    CONTENT,
    OTHER,
    RECORD,
    Part,
    attach,
    attachment_of,
    error,
    post_form_to,
    put,
    put_collection,
    put_raw,
    read,
    send,
    stored_files,
)
from tests.support.backends import ON_DATABASES, ON_MEMORY, ON_POSTGRESQL, Build

URL = f"{RECORD}/attachment"
LOCKED = {"attachment": {"locked": True}}


def lock(app: Any, collection: str = COLLECTION) -> None:
    put(app, collection, data=LOCKED)


def unlock(app: Any, collection: str = COLLECTION) -> None:
    put(app, collection, data={})


@ON_DATABASES
class TestLocks:
    def test_refuse_new_files(self, app: Any) -> None:
        lock(app)
        assert error(attach(app, status=423)) == (121, "The files of this collection are locked.")
        put_raw(app, status=423)
        url = f"{COLLECTION}/attachments"
        post_form_to(app, url, Part("attachment", b"x", "x.txt"), status=423)
        tus.create(app, 3, status=423)
        assert not stored_files(app)
        app.get(RECORD, headers=ALICE, status=404)

    def test_are_read_before_the_body(self, app: Any) -> None:
        attach(app)
        lock(app)
        attach(app, content=b"x" * 100_000, status=423)
        assert app.app.body.taken == 0

    def test_refuse_to_rename(self, app: Any) -> None:
        attach(app)
        lock(app)
        app.patch_json(URL, {"data": {"filename": "new.txt"}}, headers=ALICE, status=423)
        assert attachment_of(app)["filename"] == "notes.txt"

    def test_refuse_changes_of_versions(self, build: Build) -> None:
        app = build(keep_old_files="true")
        attach(app)
        attach(app, content=b"new")
        *_, oldest = app.get(f"{URL}/versions", headers=ALICE).json["data"]
        lock(app)
        version = f"{URL}/versions/{oldest['id']}"
        app.post(f"{version}/restore", headers=ALICE, status=423)
        app.delete(version, headers=ALICE, status=423)
        assert read(app, version) == CONTENT
        app.delete(RECORD, headers=ALICE, status=423)

    def test_leave_everything_else_alone(self, app: Any) -> None:
        attach(app)
        put(app, OTHER)
        lock(app)
        put(app, f"{COLLECTION}/records/new")
        app.patch_json(RECORD, {"data": {"title": "x"}}, headers=ALICE, status=200)
        changed = {"attachment": attachment_of(app), "title": "y"}
        app.put_json(RECORD, {"data": changed}, headers=ALICE, status=200)
        app.delete(OTHER, headers=ALICE, status=200)
        app.delete(f"{COLLECTION}/records?in_id=new", headers=ALICE, status=200)
        assert read(app, URL) == CONTENT
        body = {"copy_from": RECORD}
        put_collection(app, f"{BUCKET}/collections/other")
        target = f"{BUCKET}/collections/other/records/r/attachment"
        app.post_json(target, body, headers=ALICE, status=201)

    def test_end(self, app: Any) -> None:
        attach(app)
        lock(app)
        app.delete(URL, headers=ALICE, status=423)
        unlock(app)
        app.delete(URL, headers=ALICE, status=204)

    @pytest.mark.parametrize("data", [{"locked": False}, {"locked": "true"}, {"locked": 1}, True])
    def test_need_the_value_true(self, app: Any, data: Any) -> None:
        put(app, COLLECTION, data={"attachment": data})
        attach(app)

    @pytest.mark.parametrize("bucket", [BUCKET, "/buckets/default"])
    def test_that_a_batch_sets_hold_in_it(self, app: Any, bucket: str) -> None:
        collection = f"{bucket}/collections/c"
        record = f"{collection}/records/r"
        attach(app, record)
        attach(app, f"{collection}/records/other")
        requests = [
            {"method": "DELETE", "path": f"/v1{collection}/records/other"},
            {"method": "PATCH", "path": f"/v1{record}", "body": {"data": {"title": "x"}}},
            {"method": "PATCH", "path": f"/v1{collection}", "body": {"data": LOCKED}},
            {"method": "PATCH", "path": f"/v1{record}", "body": {"data": {"attachment": None}}},
            {"method": "DELETE", "path": f"/v1{record}"},
            {"method": "DELETE", "path": f"/v1{collection}/records"},
        ]
        answers = app.post_json("/batch", {"requests": requests}, headers=ALICE).json["responses"]
        assert [each["status"] for each in answers] == [200, 200, 200, 423, 423, 423]

    def test_refuse_the_end_of_an_upload_that_can_be_finished_later(self, app: Any) -> None:
        url = tus.begin(app, len(CONTENT))
        tus.append(app, url, 0, CONTENT[:5], status=204)
        lock(app)
        refused = tus.append(app, url, 5, CONTENT[5:], status=423)
        assert refused.json["details"]["until"] is None
        app.get(RECORD, headers=ALICE, status=404)
        unlock(app)
        offset = tus.offset(app, url)
        tus.append(app, url, offset, CONTENT[offset:], status=204)
        assert read(app, URL) == CONTENT

    def test_refuse_the_bytes_of_a_direct_upload(self, app: Any) -> None:
        attach(app, content=b"old")
        upload = direct.begin(app, via="kinto")
        lock(app)
        refused = direct.put_own(app, upload, CONTENT, status=423)
        assert refused.json["details"]["until"] is None
        direct.create(app, via="kinto", status=423)
        assert read(app, URL) == b"old"
        unlock(app)
        direct.put_own(app, upload, CONTENT, status=200)
        assert read(app, URL) == CONTENT


@ON_MEMORY
class TestSettings:
    def test_of_a_collection(self, build: Build) -> None:
        app = build(**{"resources.b.locked": "true", "resources.b.free.locked": "false"})
        put_collection(app, f"{BUCKET}/collections/free")
        refused = attach(app, status=423)
        reason = "The setting is kinto.attachment.resources.b.locked."
        assert refused.json["details"] == {"reason": reason, "until": None}
        attach(app, f"{BUCKET}/collections/free/records/r")

    def test_create_no_default_bucket(self, build: Build) -> None:
        app = build(**{"resources.default.locked": "true"})
        attach(app, "/buckets/default/collections/c/records/r", status=423)
        bucket = app.get("/", headers=ALICE).json["user"]["bucket"]
        app.get(f"/buckets/{bucket}", headers=ALICE, status=403)

    def test_are_told_by_the_rules(self, app: Any) -> None:
        url = f"{COLLECTION}/attachments/rules"
        assert app.get(url, headers=ALICE).json["data"]["locked"] is False
        lock(app)
        assert app.get(url, headers=ALICE).json["data"]["locked"] is True


@ON_POSTGRESQL
def test_a_lock_that_is_set_while_a_body_arrives_counts(app: Any) -> None:
    """The lock is read again after the last byte."""
    attach(app)
    begun, locked = threading.Event(), threading.Event()

    class Body(io.BytesIO):
        """Ends when the collection is locked."""

        sent = False

        def read(self, size: int | None = -1) -> bytes:
            if not self.sent:
                self.sent = True
                begun.set()
                return b"new"
            assert locked.wait(waiting.SECONDS)
            return b""

    def lock_it() -> None:
        assert begun.wait(waiting.SECONDS)
        lock(app)
        locked.set()

    thread = threading.Thread(target=lock_it)
    thread.start()
    answer = send(app, "PUT", f"{URL}?filename=new.txt", Body(), status=423)
    thread.join(waiting.SECONDS)
    assert error(answer)[0] == 121
    assert read(app, URL) == CONTENT
    assert len(stored_files(app)) == 1
