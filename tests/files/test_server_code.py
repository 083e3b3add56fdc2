"""Attachments that other plugins make, in the transaction of a request."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import pytest
import transaction
from kinto.core.events import ResourceChanged
from pyramid.httpexceptions import HTTPException, HTTPForbidden

from kinto_attachment import (
    AttachmentAdded,
    AttachmentReceiving,
    attach,
    copy_attachment,
    open_attachment,
    signed_url,
)
from kinto_attachment.errors import FileNotAllowed, FileNotFound
from tests.support import application
from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    COLLECTION,
    CONTENT,
    OTHER,
    RECORD,
    attachment_of,
    on_event,
    put,
    put_collection,
    read,
    seen,
    stored_files,
    userid,
)
from tests.support.backends import ON_DATABASES, ON_MEMORY, ON_POSTGRESQL, Build

pytestmark = ON_MEMORY

REPORTS = f"{COLLECTION}2"
REPORT = f"{REPORTS}/records/report"
TRIGGER = f"{COLLECTION}/records/trigger"


def when_written(app: Any, act: Callable[[Any], object], record: str = TRIGGER) -> list[Any]:
    """Call a function when a record is written; returns its result or exception."""
    outcomes: list[Any] = []

    def on_change(event: Any) -> None:
        ids = [each.get("new", each.get("old"))["id"] for each in event.impacted_objects]
        if event.payload["resource_name"] == "record" and record.rpartition("/")[2] in ids:
            outcomes.append(act(event.request))

    on_event(app, ResourceChanged, on_change)
    return outcomes


def path_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


@pytest.fixture
def app(build: Build) -> Any:
    app = build()
    put_collection(app, REPORTS)
    return app


class TestAttach:
    @ON_DATABASES
    def test_in_the_transaction(self, app: Any) -> None:
        outcomes = when_written(
            app, lambda request: attach(request, REPORT, CONTENT, "a.txt", data={"title": "A"})
        )
        put(app, TRIGGER)
        assert outcomes == [attachment_of(app, REPORT)]
        assert outcomes[0]["mimetype"] == "text/plain"
        assert app.get(REPORT, headers=ALICE).json["data"]["title"] == "A"
        assert read(app, f"{REPORT}/attachment") == CONTENT
        assert [event.record_uri for event in seen(app, AttachmentAdded)] == [REPORT]

    @ON_DATABASES
    def test_again_and_again(self, app: Any) -> None:
        when_written(app, lambda request: attach(request, REPORT, BytesIO(CONTENT), "a.txt"))
        for number in range(3):
            put(app, TRIGGER, data={"n": number})
        assert len(stored_files(app)) == 1
        app.delete(TRIGGER, headers=ALICE)
        assert len(stored_files(app)) == 1

    @ON_DATABASES
    def test_to_the_record_that_is_written(self, app: Any) -> None:
        def on_change(event: Any) -> None:
            new = event.impacted_objects[0]["new"]
            if new["id"] == "trigger" and "attachment" not in new:
                attach(event.request, TRIGGER, CONTENT, "a.txt")

        on_event(app, ResourceChanged, on_change)
        put(app, TRIGGER, data={"title": "A"})
        assert read(app, f"{TRIGGER}/attachment") == CONTENT
        assert app.get(TRIGGER, headers=ALICE).json["data"]["title"] == "A"

    @ON_DATABASES
    def test_during_an_upload_and_a_batch(self, app: Any) -> None:
        when_written(app, lambda request: attach(request, REPORT, b"report", "a.txt"))
        application.attach(app, TRIGGER, CONTENT)
        assert read(app, f"{TRIGGER}/attachment") == CONTENT
        assert read(app, f"{REPORT}/attachment") == b"report"
        requests = [
            {
                "method": "PUT",
                "path": f"/v1{TRIGGER}/attachment?filename=a.json",
                "body": {"n": 1},
            },
            {"method": "DELETE", "path": f"/v1{TRIGGER}"},
        ]
        answer = app.post_json("/batch", {"requests": requests}, headers=ALICE).json
        assert [part["status"] for part in answer["responses"]] == [200, 200]
        assert len(stored_files(app)) == 1

    def test_under_a_name_that_is_kept(self, build: Build) -> None:
        app = build(randomize="false")
        put_collection(app, REPORTS)
        when_written(app, lambda request: attach(request, REPORT, CONTENT, "a.txt"))
        put(app, TRIGGER)
        assert stored_files(app) == {"a.txt"}

    def test_preconditions_are_of_the_client_s_record(self, app: Any) -> None:
        when_written(app, lambda request: attach(request, REPORT, CONTENT, "a.txt"))
        safely = {**ALICE, "If-None-Match": "*"}
        put(app, TRIGGER, safely)
        app.delete(TRIGGER, headers=ALICE)
        put(app, TRIGGER, safely)
        assert read(app, f"{REPORT}/attachment") == CONTENT

    @ON_POSTGRESQL
    def test_is_undone_with_the_request(self, build: Build) -> None:
        app = build()
        put_collection(app, REPORTS)

        def act(request: Any) -> None:
            attach(request, REPORT, CONTENT, "a.txt")
            raise HTTPForbidden()

        when_written(app, act)
        app.put_json(TRIGGER, {"data": {}}, headers=ALICE, status=403)
        app.get(REPORT, headers=ALICE, status=404)
        assert not stored_files(app)
        assert not seen(app, AttachmentAdded)

    def test_with_the_permissions_of_the_user(self, app: Any) -> None:
        when_written(app, lambda request: attach(request, REPORT, CONTENT, "a.txt"))
        put(app, COLLECTION, permissions={"write": [userid(app, BOB)]})
        app.put_json(TRIGGER, {"data": {}}, headers=BOB, status=403)
        app.get(REPORT, headers=ALICE, status=404)
        assert not stored_files(app)
        put(app, REPORTS, permissions={"write": [userid(app, BOB)]})
        app.put_json(TRIGGER, {"data": {}}, headers=BOB)
        assert read(app, f"{REPORT}/attachment") == CONTENT

    def test_obeys_the_settings(self, app: Any) -> None:
        def act(request: Any) -> Any:
            with pytest.raises(FileNotAllowed):
                attach(request, REPORT, CONTENT, "a.exe")

        assert when_written(app, act) == []
        put(app, TRIGGER)
        app.get(REPORT, headers=ALICE, status=404)

    def test_obeys_the_schema(self, app: Any) -> None:
        schema = {"type": "object", "required": ["title"]}
        app.patch_json(REPORTS, {"data": {"schema": schema}}, headers=ALICE)

        def act(request: Any) -> Any:
            with pytest.raises(HTTPException):
                attach(request, REPORT, CONTENT, "a.txt")

        when_written(app, act)
        put(app, TRIGGER)
        assert not stored_files(app)

    def test_tells_others_before_it_is_stored(self, app: Any) -> None:
        when_written(app, lambda request: attach(request, REPORT, CONTENT, "a.txt"))
        put(app, TRIGGER)
        (event,) = seen(app, AttachmentReceiving)
        assert (event.record_uri, event.filename) == (REPORT, "a.txt")


class TestOpen:
    def test_reads_a_file(self, app: Any) -> None:
        application.attach(app, RECORD)

        def act(request: Any) -> Any:
            with open_attachment(request, RECORD) as file:
                return file.read(4), file.read(), file.metadata

        outcomes = when_written(app, act)
        put(app, TRIGGER)
        assert outcomes == [(CONTENT[:4], CONTENT[4:], attachment_of(app))]

    @ON_DATABASES
    def test_reads_what_the_request_has_uploaded(self, app: Any) -> None:
        application.attach(app, TRIGGER, b"old")

        def act(request: Any) -> bytes:
            with open_attachment(request, TRIGGER) as file:
                return file.read()

        outcomes = when_written(app, act)
        application.attach(app, TRIGGER, b"new")
        assert outcomes == [b"new"]

    def test_needs_permission(self, app: Any) -> None:
        application.attach(app, RECORD)
        private = f"{REPORTS}/records/private"
        application.attach(app, private)
        put(app, COLLECTION, permissions={"write": [userid(app, BOB)]})

        def act(request: Any) -> Any:
            with pytest.raises(HTTPForbidden):
                open_attachment(request, private)
            with pytest.raises(FileNotFound):
                open_attachment(request, OTHER)
            with open_attachment(request, RECORD) as file:
                return file.read()

        outcomes = when_written(app, act)
        app.put_json(TRIGGER, {"data": {}}, headers=BOB)
        assert outcomes == [CONTENT]


class TestSignedUrl:
    @ON_DATABASES
    def test_needs_no_credentials(self, app: Any) -> None:
        application.attach(app, RECORD)
        made = when_written(app, lambda request: signed_url(request, RECORD))
        put(app, TRIGGER)
        assert read(app, path_of(made[0]), ANONYMOUS) == CONTENT
        application.attach(app, RECORD, b"new")
        app.get(path_of(made[0]), headers=ANONYMOUS, status="4*")

    @ON_DATABASES
    def test_to_what_the_request_has_attached(self, app: Any) -> None:
        def act(request: Any) -> list[str]:
            copy_attachment(request, TRIGGER, REPORT)
            return [signed_url(request, uri) for uri in (TRIGGER, REPORT)]

        application.attach(app, TRIGGER, b"old")
        made = when_written(app, act)
        application.attach(app, TRIGGER, b"new")
        for url in made[0]:
            assert read(app, path_of(url), ANONYMOUS) == b"new"

    def test_has_the_options_of_the_endpoint(self, build: Build) -> None:
        app = build(keep_old_files="true")
        first = application.attach(app, RECORD, b"one").headers["Attachment-Version"]
        application.attach(app, RECORD, b"two")

        def act(request: Any) -> str:
            options: Any = {"disposition": "attachment", "filename": "a/b.txt"}
            return signed_url(request, RECORD, 60, version=first, **options)

        made = when_written(app, act)
        put(app, TRIGGER)
        answer = app.get(path_of(made[0]), headers=ANONYMOUS)
        assert answer.body == b"one"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="b.txt"'
        assert int(answer.headers["Cache-Control"].split("max-age=")[1].split(",")[0]) <= 90

    def test_refuses_what_makes_no_sense(self, app: Any) -> None:
        application.attach(app, RECORD)

        def act(request: Any) -> None:
            wrong: list[dict[str, Any]] = [
                {"expires_in": 0},
                {"expires_in": 10**9},
                {"disposition": "x"},
            ]
            for options in wrong:
                with pytest.raises(ValueError, match=next(iter(options))):
                    signed_url(request, RECORD, **options)
            for uri in (OTHER, TRIGGER):
                with pytest.raises(FileNotFound):
                    signed_url(request, uri)
            with pytest.raises(FileNotFound):
                signed_url(request, RECORD, version="x")

        outcomes = when_written(app, act)
        put(app, TRIGGER)
        assert outcomes == [None]

    def test_of_a_record_from_before_the_index(self, app: Any) -> None:
        application.attach(app, RECORD)
        links = app.app.registry.attachment_links
        with transaction.manager:
            (link,) = links.of_record(RECORD)
            links._rows.delete(link.parent, link.id)

        def act(request: Any) -> None:
            with pytest.raises(FileNotFound, match="reindex"):
                signed_url(request, RECORD)

        outcomes = when_written(app, act)
        put(app, TRIGGER)
        assert outcomes == [None]
        with transaction.manager:
            links.share(link, known_in=[""])

    def test_needs_permission(self, app: Any) -> None:
        private = f"{REPORTS}/records/private"
        application.attach(app, private)
        put(app, COLLECTION, permissions={"write": [userid(app, BOB)]})

        def act(request: Any) -> None:
            with pytest.raises(HTTPForbidden):
                signed_url(request, private)

        outcomes = when_written(app, act)
        app.put_json(TRIGGER, {"data": {}}, headers=BOB)
        assert outcomes == [None]


class TestCopy:
    @ON_DATABASES
    def test_shares_the_file(self, app: Any) -> None:
        when_written(app, lambda request: copy_attachment(request, TRIGGER, REPORT))
        application.attach(app, TRIGGER)
        assert attachment_of(app, REPORT) == attachment_of(app, TRIGGER)
        assert len(stored_files(app)) == 1
        application.attach(app, TRIGGER, b"new")
        assert read(app, f"{REPORT}/attachment") == b"new"
        on_event(app, AttachmentAdded, lambda event: None)
        app.delete(TRIGGER, headers=ALICE)
        assert read(app, f"{REPORT}/attachment") == b"new"
        assert len(stored_files(app)) == 1

    @ON_DATABASES
    def test_from_one_record_to_another(self, app: Any) -> None:
        application.attach(app, RECORD)
        when_written(app, lambda request: copy_attachment(request, RECORD, REPORT, {"title": "A"}))
        put(app, TRIGGER)
        assert app.get(REPORT, headers=ALICE).json["data"]["title"] == "A"
        app.delete(RECORD, headers=ALICE)
        assert read(app, f"{REPORT}/attachment") == CONTENT
