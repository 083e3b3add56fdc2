"""Files follow the transaction: a rollback removes new ones, and a commit deletes old ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import transaction
from kinto.core.errors import http_error, raise_invalid
from kinto.core.events import AfterResourceChanged, ResourceChanged
from kinto.core.storage.exceptions import BackendError, IntegrityError
from pyramid.httpexceptions import HTTPConflict, HTTPForbidden, HTTPServiceUnavailable

from kinto_attachment import AttachmentAdded
from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.files.records import ATTEMPTS
from kinto_attachment.maintenance.reindex import reindex
from tests.support import waiting
from tests.support.application import (
    ALICE,
    BUCKET,
    COLLECTION,
    CONTENT,
    DEFAULT,
    MEMORY,
    OTHER,
    RECORD,
    Part,
    attach,
    attachment_of,
    clear,
    empty_outbox,
    form,
    key_of,
    make_app,
    on_event,
    outbox,
    put,
    put_collection,
    put_raw,
    read,
    reconnect,
    records,
    seen,
    send,
    sha256,
    stored_content,
    stored_files,
    stored_links,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_MEMORY, ON_POSTGRESQL, Build
from tests.support.faults import FaultProxy
from tests.support.interruptions import Meanwhile, failing_deletes
from tests.support.sampling import sampled
from tests.support.services import S3, PostgreSQL
from tests.support.statements import before_statement
from tests.support.tus import BYTES, TUS, begin, metadata

pytestmark = EVERYWHERE

URL = f"{RECORD}/attachment"
UUID = "6f1ed002-ab59-5b5c-aa97-ae7ea3c9b1d4"


def pool(app: Any) -> Any:
    """PostgreSQL's connections."""
    session_factory = app.app.registry.storage.client.session_factory
    return session_factory.session_factory.kw["bind"].pool


def post_while(app: Any, action: Callable[[], object], status: int, **headers: str) -> Any:
    body, content_type = form(Part("attachment", CONTENT, "notes.txt"))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    headers = {**ALICE, "Content-Type": content_type, **named}
    return send(
        app, "POST", URL, Meanwhile(body, action), length=len(body), headers=headers, status=status
    )


class Unwilling:
    """A participant of a transaction that refuses to commit it."""

    transaction_manager = transaction.manager

    def sortKey(self) -> str:
        return "unwilling"

    def tpc_vote(self, *_: object) -> None:
        raise RuntimeError("no")

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name in ("abort", "commit", "tpc_begin", "tpc_finish", "tpc_abort"):
            return lambda *_: None
        raise AttributeError(name)


def fail_with(error: Exception) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise error

    return fail


def refuse(event: Any) -> None:
    raise_invalid(event.request, name="title", description="No.")


def refuse_commit(event: Any) -> None:
    transaction.get().join(Unwilling())


def fail_before_commit(event: Any) -> None:
    def fail() -> None:
        raise RuntimeError("no")

    transaction.get().addBeforeCommitHook(fail)


LATE_FAILURES = {
    "an error in a listener": (fail_with(RuntimeError("no")), 500),
    "a storage error in a listener": (fail_with(StorageUnavailable()), 503),
    "a refusal of a listener": (refuse, 400),
    "a forbidding listener": (fail_with(HTTPForbidden()), 403),
    "a conflict": (fail_with(http_error(HTTPConflict())), 409),
    "an unavailable service": (fail_with(HTTPServiceUnavailable()), 503),
    "a commit that fails": (refuse_commit, 500),
    "a hook before the commit that fails": (fail_before_commit, 500),
}


@sampled(2)
@ON_POSTGRESQL
@pytest.mark.parametrize("failure", LATE_FAILURES.values(), ids=LATE_FAILURES)
class TestLateFailures:
    """Nothing has changed: neither the record, nor its file, nor other files."""

    def test_of_a_new_attachment(self, app: Any, failure: Any) -> None:
        action, status = failure
        on_event(app, ResourceChanged, action)
        for upload in (attach, put_raw):
            response = upload(app, status=status)
            assert response.content_type == "application/json"
        assert not stored_files(app)
        assert not stored_links(app)
        assert not records(app)

    def test_of_a_replacement(self, app: Any, failure: Any) -> None:
        attach(app)
        before = app.get(RECORD, headers=ALICE).json
        action, status = failure
        on_event(app, ResourceChanged, action)
        attach(app, content=b"new", status=status)
        put_raw(app, content=b"new", status=status)
        assert app.get(RECORD, headers=ALICE).json == before
        assert stored_files(app) == {key_of(before["data"]["attachment"])}
        assert read(app) == CONTENT

    @pytest.mark.parametrize("path", [URL, RECORD, f"{COLLECTION}/records", COLLECTION, BUCKET])
    def test_of_a_delete(self, app: Any, failure: Any, path: str) -> None:
        attach(app)
        attach(app, OTHER)
        before = app.get(RECORD, headers=ALICE).json
        action, status = failure
        on_event(app, ResourceChanged, action)
        app.delete(path, headers=ALICE, status=status)
        assert app.get(RECORD, headers=ALICE).json == before
        assert len(stored_files(app)) == 2
        assert not outbox(app)
        assert read(app) == CONTENT

    def test_of_a_record_without_its_attachment(self, app: Any, failure: Any) -> None:
        attach(app)
        action, status = failure
        on_event(app, ResourceChanged, action)
        app.put_json(RECORD, {"data": {}}, headers=ALICE, status=status)
        assert read(app) == CONTENT

    def test_of_a_kept_name(self, build: Build, failure: Any) -> None:
        app = build(randomize="false")
        action, status = failure
        on_event(app, ResourceChanged, action)
        attach(app, status=status)
        app.app.registry.on_event = None
        attach(app)
        assert stored_files(app) == {"notes.txt"}

    def test_of_a_batch(self, app: Any, failure: Any) -> None:
        attach(app)
        action, status = failure
        on_event(app, ResourceChanged, action)
        requests = [
            {"method": "PUT", "path": f"/v1{OTHER}/attachment?filename=a.json", "body": {"n": 1}},
            {"method": "DELETE", "path": f"/v1{URL}"},
        ]
        app.post_json("/batch", {"requests": requests}, headers=ALICE, status=status)
        assert read(app) == CONTENT
        assert len(stored_files(app)) == 1
        app.get(OTHER, headers=ALICE, status=404)


@ON_MEMORY
def test_a_record_that_memory_keeps_without_a_link_keeps_its_file(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure occurs after the record is written, before the event that tells us of it."""
    with monkeypatch.context() as patch:
        permissions = app.app.registry.permission
        patch.setattr(permissions, "replace_object_permissions", fail_with(BackendError()))
        attach(app, status=503)
    assert stored_files(app) == {key_of(attachment_of(app))}
    assert reindex(app.app.registry).linked == 1
    assert read(app) == CONTENT


@ON_MEMORY
@pytest.mark.parametrize("upload", [attach, put_raw])
def test_a_record_that_memory_keeps_after_a_failure_keeps_its_file(
    build: Build, upload: Any
) -> None:
    """A memory backend does not roll back: the record remains, so its file must remain too."""
    app = build()
    attach(app)
    on_event(app, ResourceChanged, fail_with(RuntimeError("no")))
    upload(app, content=b"new", status=500)
    for attachment in [record["attachment"] for record in records(app).values()]:
        assert sha256(stored_content(app, key_of(attachment))) == attachment["hash"]
    clear(app)


class TestMeanwhile:
    """What may change while a body arrives is checked again after its end."""

    def test_somebody_writes_the_record(self, app: Any) -> None:
        put(app, RECORD, data={"title": "old", "author": "A"})
        post_while(app, lambda: put(app, RECORD, data={"title": "new"}), 200)
        record = app.get(RECORD, headers=ALICE).json["data"]
        assert record["title"] == "new"
        assert "author" not in record
        assert read(app) == CONTENT

    def test_somebody_creates_the_record(self, app: Any) -> None:
        post_while(app, lambda: put(app, RECORD, data={"title": "theirs"}), 200)
        assert app.get(RECORD, headers=ALICE).json["data"]["title"] == "theirs"
        assert read(app) == CONTENT

    def test_somebody_attaches_another_file(self, app: Any) -> None:
        post_while(app, lambda: put_raw(app, content=b"theirs"), 200)
        assert read(app) == CONTENT
        assert len(stored_files(app)) == 1

    def test_somebody_deletes_the_record(self, app: Any) -> None:
        attach(app, content=b"old")
        post_while(app, lambda: app.delete(RECORD, headers=ALICE), 201)
        assert read(app) == CONTENT
        assert len(stored_files(app)) == 1

    def test_somebody_changes_it_where_if_match_says_not_to(self, app: Any) -> None:
        etag = attach(app, content=b"old").headers["ETag"]
        put_new = lambda: put_raw(app, content=b"theirs")  # noqa: E731
        response = post_while(app, put_new, 412, If_Match=etag)
        assert response.json["errno"] == 114
        assert read(app) == b"theirs"
        assert len(stored_files(app)) == 1

    def test_somebody_creates_it_where_it_must_not_exist(self, app: Any) -> None:
        post_while(app, lambda: put(app, RECORD), 412, If_None_Match="*")
        assert attachment_of(app) is None
        assert not stored_files(app)

    def test_somebody_deletes_the_collection(self, app: Any) -> None:
        post_while(app, lambda: app.delete(COLLECTION, headers=ALICE), 404)
        assert not stored_files(app)

    @ON_POSTGRESQL
    def test_somebody_deletes_the_collection_at_the_last_moment(self, app: Any) -> None:
        """Kinto still writes a new record: it does not check the collection again."""
        attach(app, OTHER)
        deletion = lambda: app.delete(COLLECTION, headers=ALICE)  # noqa: E731
        with before_statement(app, "INSERT INTO objects", deletion):
            attach(app, status=409)
        put(app, COLLECTION)
        app.get(RECORD, headers=ALICE, status=404)
        assert not stored_files(app)

    def test_somebody_deletes_the_bucket(self, app: Any) -> None:
        post_while(app, lambda: app.delete(BUCKET, headers=ALICE), 404)
        assert not stored_files(app)

    def test_somebody_takes_the_permission_away(self, app: Any) -> None:
        attach(app)
        bob = {"Authorization": "Basic Ym9iOnNlY3JldA=="}
        put(app, COLLECTION, permissions={"write": ["system.Authenticated"]})

        def take_away() -> None:
            app.patch_json(COLLECTION, {"permissions": {"write": []}}, headers=ALICE)

        post_while(app, take_away, 403, **bob)
        assert len(stored_files(app)) == 1

    def test_somebody_makes_a_schema(self, app: Any) -> None:
        schema = {"required": ["title"]}
        post_while(app, lambda: put(app, COLLECTION, data={"schema": schema}), 400)
        assert not stored_files(app)

    def test_somebody_takes_the_name(self, build: Build) -> None:
        app = build(randomize="false")
        post_while(app, lambda: attach(app, OTHER, content=b"theirs"), 201)
        assert stored_files(app) == {"notes.txt", "notes-1.txt"}
        assert read(app) == CONTENT
        assert read(app, f"{OTHER}/attachment") == b"theirs"


@ON_POSTGRESQL
class TestConnections:
    """A slow client holds no database connection."""

    @pytest.mark.parametrize("record", [RECORD, DEFAULT])
    def test_while_a_form_arrives(self, app: Any, record: str) -> None:
        attach(app, record)
        body, content_type = form(Part("attachment", CONTENT, "notes.txt"))
        held: list[int] = []
        watched = Meanwhile(body, lambda: held.append(pool(app).checkedout()))
        headers = {**ALICE, "Content-Type": content_type}
        url = f"{record}/attachment"
        send(app, "POST", url, watched, length=len(body), headers=headers, status=200)
        assert held == [0]

    @pytest.mark.parametrize("record", [RECORD, DEFAULT])
    @pytest.mark.parametrize("randomize", ["true", "false"])
    def test_while_raw_bytes_arrive(self, build: Build, record: str, randomize: str) -> None:
        app = build(randomize=randomize)
        held: list[int] = []
        watched = Meanwhile(CONTENT, lambda: held.append(pool(app).checkedout()))
        url = f"{record}/attachment?filename=a.txt"
        send(app, "PUT", url, watched, length=len(CONTENT), status=201)
        assert held == [0]
        assert read(app, f"{record}/attachment") == CONTENT

    @pytest.mark.parametrize("creates", [True, False])
    def test_while_bytes_of_an_upload_arrive(self, build: Build, creates: bool) -> None:
        """In a bucket of which the database knows whether it is a default bucket."""
        app = build(**{"resources.default.max_size": 100})
        bucket = f"/buckets/{UUID}"
        put(app, bucket)
        put(app, f"{bucket}/collections/c")
        record = f"{bucket}/collections/c/records/r"
        held: list[int] = []
        watched = Meanwhile(CONTENT, lambda: held.append(pool(app).checkedout()))
        headers = {**ALICE, **TUS, **BYTES}
        if creates:
            method, url, status = "POST", f"{record}/attachment/uploads", 201
            headers |= {
                "Upload-Length": str(len(CONTENT)),
                "Upload-Metadata": metadata(filename="a.txt"),
            }
        else:
            method, url, status = "PATCH", begin(app, len(CONTENT), record), 204
            headers["Upload-Offset"] = "0"
        send(app, method, url, watched, length=len(CONTENT), headers=headers, status=status)
        assert held == [0]
        assert read(app, f"{record}/attachment") == CONTENT

    def test_while_a_file_is_sent(self, app: Any) -> None:
        attach(app)
        environ = app.RequestClass.blank(URL, headers=ALICE).environ
        answer = app.app(environ, lambda *_: lambda data: None)
        held = pool(app).checkedout()
        assert b"".join(answer) == CONTENT
        answer.close()
        assert held == 0

    def test_while_a_refused_body_is_dropped(self, build: Build) -> None:
        app = build(max_size=10)
        held: list[int] = []
        watched = Meanwhile(b"x" * 1000, lambda: held.append(pool(app).checkedout()))
        send(app, "PUT", f"{URL}?filename=a.txt", watched, length=1000, status=413)
        assert held == [0]

    def test_after_every_request(self, app: Any) -> None:
        attach(app)
        attach(app, data="nope", status=400)
        app.delete(URL, headers=ALICE)
        app.delete(URL, headers={}, status=401)
        assert pool(app).checkedout() == 0


class TestAfterTheCommit:
    def test_kinto_s_events_are_fired_once(self, app: Any) -> None:
        attach(app)
        put_raw(app)
        app.delete(URL, headers=ALICE)
        fired = [
            event.payload["action"]
            for event in seen(app, AfterResourceChanged)
            if event.payload["resource_name"] == "record"
        ]
        assert fired == ["create", "update", "update"]

    def test_not_after_a_failure(self, app: Any) -> None:
        app.app.registry.seen.clear()
        attach(app, data="nope", status=400)
        assert not seen(app, AfterResourceChanged, ResourceChanged)

    @ON_DATABASES
    def test_others_see_the_record(self, app: Any) -> None:
        found = []

        def look(event: Any) -> None:
            found.append(waiting.elsewhere(attachment_of, app))

        on_event(app, AttachmentAdded, look)
        attachment = attach(app).json
        assert found == [attachment]

    def test_the_old_file_is_there_until_then(self, app: Any) -> None:
        attach(app)
        found: list[int] = []
        on_event(app, ResourceChanged, lambda _: found.append(len(stored_files(app))))
        attach(app, content=b"new")
        app.delete(RECORD, headers=ALICE)
        assert found == [2, 1]
        assert not stored_files(app)

    def test_a_subscriber_that_fails_fails_alone(
        self, app: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        on_event(app, AttachmentAdded, fail_with(RuntimeError("no")))
        attach(app, status=201)
        assert read(app) == CONTENT
        assert "AttachmentAdded" in caplog.text


@ON_DATABASES
def test_what_fails_afterwards_is_logged_and_left_to_gc(
    app: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails, the client's request has already been done or refused."""
    key = key_of(attach(app).json)
    links = app.app.registry.attachment_links
    with monkeypatch.context() as patch:
        patch.setattr(links.outbox, "take", fail_with(RuntimeError("no")))
        attach(app, content=b"new", status=200)
        patch.setattr(links, "of_key", fail_with(RuntimeError("no")))
        attach(app, data="nope", status=400)
    assert caplog.text.count("Could not settle the attachments") == 2
    assert read(app) == b"new"
    assert [entry.keys for entry in outbox(app)] == [[key]]
    empty_outbox(app)
    stranded = stored_files(app) - {link_key for _, link_key, _ in stored_links(app)}
    assert len(stranded) == 1
    app.app.registry.attachment_storages.default.files.delete(*stranded)


@ON_POSTGRESQL
def test_a_database_that_goes_away_after_the_commit_leaves_its_files_to_gc(
    app: Any, postgresql: PostgreSQL, caplog: pytest.LogCaptureFixture
) -> None:
    key = key_of(attach(app).json)
    database = urlsplit(app.app.registry.settings["storage_url"]).path.removeprefix("/")

    def end_connections(_: Any) -> None:
        postgresql.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            f" WHERE datname = '{database}'"
        )

    on_event(app, AfterResourceChanged, end_connections)
    app.delete(URL, headers=ALICE, status=204)
    assert f"gc will try again: {key}" in caplog.text
    assert "Could not settle" not in caplog.text
    reconnect(app)
    assert stored_files(app) == {key}
    empty_outbox(app)
    assert not stored_files(app)


@ON_DATABASES
class TestFailingDeletes:
    """They never fail the client's request, and the remains are deleted later."""

    def test_of_a_replaced_file(self, app: Any, caplog: pytest.LogCaptureFixture) -> None:
        key = key_of(attach(app).json)
        with failing_deletes(app):
            attach(app, content=b"new", status=200)
        assert read(app) == b"new"
        assert key in caplog.text
        assert [entry.keys for entry in outbox(app)] == [[key]]
        empty_outbox(app)
        assert len(stored_files(app)) == 1

    @pytest.mark.parametrize("path", [URL, RECORD, f"{COLLECTION}/records", COLLECTION, BUCKET])
    def test_of_a_deleted_one(self, app: Any, path: str) -> None:
        attach(app)
        with failing_deletes(app):
            app.delete(path, headers=ALICE, status=(200, 204))
        empty_outbox(app)
        assert not stored_files(app)

    def test_of_all_files(self, app: Any) -> None:
        attach(app)
        with failing_deletes(app):
            app.post("/__flush__", headers=ALICE, status=202)
        empty_outbox(app)
        assert not stored_files(app)

    def test_before_all_files_are_deleted(self, app: Any) -> None:
        """The flush also deletes files that wait for deletion, because it erases the outbox."""
        attach(app)
        with failing_deletes(app):
            attach(app, content=b"new")
        assert len(stored_files(app)) == 2
        app.post("/__flush__", headers=ALICE, status=202)
        assert not stored_files(app)

    def test_of_an_undone_one(self, app: Any, caplog: pytest.LogCaptureFixture) -> None:
        """The client sees the error of its request, and not the errors that followed."""
        with failing_deletes(app):
            attach(app, data="nope", status=400)
        (key,) = stored_files(app)
        assert key in caplog.text
        app.app.registry.attachment_storages.default.files.delete(key)

    def test_of_a_name_that_is_wanted_again(self, build: Build) -> None:
        """A file that is about to be deleted keeps its name until then."""
        app = build(randomize="false")
        attach(app)
        with failing_deletes(app):
            attach(app, content=b"second")
            attach(app, OTHER, content=b"other")
        assert stored_files(app) == {"notes.txt", "notes-1.txt", "notes-2.txt"}
        empty_outbox(app)
        assert read(app) == b"second"
        assert read(app, f"{OTHER}/attachment") == b"other"

    def test_of_a_name_whose_file_is_gone(self, build: Build) -> None:
        """The key is not free, because the pending deletion would delete the new file."""
        app = build(randomize="false")
        attach(app)
        with failing_deletes(app, late=True):
            app.delete(URL, headers=ALICE)
        attach(app, OTHER, content=b"other")
        empty_outbox(app)
        assert read(app, f"{OTHER}/attachment") == b"other"


def test_deletes_that_a_storage_server_does_not_answer(seaweedfs: S3) -> None:
    options = seaweedfs.options(seaweedfs.create_bucket())
    with FaultProxy(seaweedfs.address) as proxy:
        options = {**options, "aws.endpoint_url": proxy.url, "aws.num_retries": "1"}
        app = make_app(options, MEMORY)
        put_collection(app)
        attach(app)
        on_event(app, AfterResourceChanged, lambda _: proxy.refuse())
        attach(app, content=b"new", status=200)
        app.app.registry.on_event = None
        proxy.work()
        assert len(stored_files(app)) == 2
        assert len(outbox(app)) == 1
        empty_outbox(app)
        assert read(app) == b"new"
        assert len(stored_files(app)) == 1
        clear(app)
        app.app.registry.attachment_storages.default.files.close()


class Conflicts:
    """Answers like Kinto to two writers with the same timestamp, a given number of times."""

    def __init__(self, app: Any, number: int) -> None:
        self.storage = app.app.registry.storage
        self.left = number
        self.create, self.update = self.storage.create, self.storage.update

    def __enter__(self) -> Conflicts:
        self.patch = pytest.MonkeyPatch()
        for name in ("create", "update"):
            self.patch.setattr(self.storage, name, self._failing(getattr(self, name)))
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()

    def _failing(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def fail(resource_name: str, *args: Any, **kwargs: Any) -> Any:
            if resource_name == "record" and self.left:
                self.left -= 1
                raise IntegrityError(original=RuntimeError("no"))
            return method(resource_name, *args, **kwargs)

        return fail


@ON_DATABASES
class TestConflicts:
    """The record is written again, because the file is already stored."""

    @pytest.mark.parametrize("record", [RECORD, DEFAULT])
    @pytest.mark.parametrize("upload", [attach, put_raw])
    def test_are_tried_again(self, app: Any, record: str, upload: Any) -> None:
        with Conflicts(app, 2) as conflicts:
            upload(app, record, status=201)
        assert conflicts.left == 0
        assert read(app, f"{record}/attachment") == CONTENT
        assert len(stored_files(app)) == 1
        changes = [
            event
            for event in seen(app, ResourceChanged)
            if event.payload["resource_name"] == "record"
        ]
        assert [len(event.impacted_objects) for event in changes] == [1]

    def test_of_a_replacement_and_a_delete(self, app: Any) -> None:
        attach(app)
        with Conflicts(app, 2):
            attach(app, content=b"new", status=200)
        assert read(app) == b"new"
        with Conflicts(app, 2):
            app.delete(URL, headers=ALICE, status=204)
        assert not stored_files(app)

    def test_that_do_not_end(self, app: Any) -> None:
        attach(app)
        with Conflicts(app, ATTEMPTS) as conflicts:
            response = attach(app, content=b"new", status=409)
        assert conflicts.left == 0
        assert response.content_type == "application/json"
        assert read(app) == CONTENT
        assert len(stored_files(app)) == 1

    def test_in_a_batch_are_kinto_s_to_answer(self, app: Any) -> None:
        attach(app)
        requests = [
            {"method": "PUT", "path": f"/v1{URL}?filename=a.json", "body": {"n": 1}},
        ]
        with Conflicts(app, 1):
            app.post_json("/batch", {"requests": requests}, headers=ALICE, status="*")
        assert read(app) == CONTENT
        assert len(stored_files(app)) == 1
