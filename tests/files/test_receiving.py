"""The event before a file is stored, in which a plugin can refuse it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import transaction
from kinto.core.errors import ERRORS, http_error
from kinto.core.events import ResourceChanged
from kinto.core.storage.exceptions import IntegrityError
from pyramid import httpexceptions

from kinto_attachment import AttachmentAdded, AttachmentEvent, AttachmentReceiving
from tests.support import ROOT, live
from tests.support.application import (
    ALICE,
    BOB,
    COLLECTION,
    CONTENT,
    DEFAULT,
    RECORD,
    Part,
    attach,
    attachment_of,
    error,
    form,
    key_of,
    on_event,
    post_form_to,
    put_raw,
    read,
    seen,
    send,
    stored_files,
    userid,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_MEMORY, ON_POSTGRESQL, Build

URL = f"{RECORD}/attachment"


def refusing(event: Any) -> None:
    raise httpexceptions.HTTPForbidden("Not this one.")


@ON_MEMORY
class TestTells:
    def test_of_a_form(self, app: Any) -> None:
        attach(app, filename="dir/pic.png", content_type="application/octet-stream")
        (event,) = seen(app, AttachmentReceiving)
        assert (event.record_uri, event.filename) == (RECORD, "pic.png")
        assert (event.mimetype, event.size) == ("image/png", None)
        assert event.request.prefixed_userid == userid(app)
        assert not isinstance(event, AttachmentEvent)

    def test_of_raw_bytes(self, app: Any) -> None:
        put_raw(app)
        (event,) = seen(app, AttachmentReceiving)
        assert (event.filename, event.size) == ("notes.txt", len(CONTENT))

    def test_of_chunks(self, app: Any) -> None:
        send(app, "PUT", f"{URL}?filename=a.txt", io.BytesIO(CONTENT), status=201)
        (event,) = seen(app, AttachmentReceiving)
        assert event.size is None

    def test_of_a_file_that_the_server_compresses(self, build: Build) -> None:
        app = build(gzipped="true")
        put_raw(app)
        (event,) = seen(app, AttachmentReceiving)
        described = (event.filename, event.mimetype, event.size)
        assert described == ("notes.txt", "text/plain", len(CONTENT))

    def test_of_the_record_that_will_be_created(self, app: Any) -> None:
        file = Part("attachment", CONTENT, "a.txt")
        response = post_form_to(app, f"{COLLECTION}/attachments", file, status=201)
        (event,) = seen(app, AttachmentReceiving)
        assert event.record_uri == f"{COLLECTION}/records/{response.json['data']['id']}"

    def test_of_the_real_bucket(self, app: Any) -> None:
        attach(app, DEFAULT)
        (event,) = seen(app, AttachmentReceiving)
        bucket = app.get("/", headers=ALICE).json["user"]["bucket"]
        assert event.record_uri == DEFAULT.replace("default", bucket)

    def test_before_anything_is_stored(self, app: Any) -> None:
        found = []
        on_event(app, AttachmentReceiving, lambda event: found.append(stored_files(app)))
        attach(app)
        assert found == [set()]
        kinds = [type(event) for event in seen(app, AttachmentReceiving, AttachmentAdded)]
        assert kinds == [AttachmentReceiving, AttachmentAdded]

    def test_nothing_of_what_is_refused_anyway(self, app: Any) -> None:
        attach(app, headers={}, status=401)
        attach(app, headers=BOB, status=403)
        attach(app, filename="a.exe", status=400)
        put_raw(app, headers={**ALICE, "If-Match": '"1"'}, status=412)
        assert not seen(app, AttachmentReceiving)

    def test_nothing_of_records_and_renamings(self, app: Any) -> None:
        attach(app)
        app.app.registry.seen.clear()
        app.patch_json(URL, {"data": {"filename": "b.txt"}}, headers=ALICE)
        app.patch_json(RECORD, {"data": {"a": 1}}, headers=ALICE)
        app.delete(URL, headers=ALICE)
        assert not seen(app, AttachmentReceiving)


REFUSALS = [
    (httpexceptions.HTTPForbidden("No."), 403, 121, "No."),
    (httpexceptions.HTTPBadRequest("Bad."), 400, 107, "Bad."),
    (httpexceptions.HTTPRequestEntityTooLarge("Big."), 413, 113, "Big."),
    (httpexceptions.HTTPTooManyRequests("Wait."), 429, 117, "Wait."),
    (httpexceptions.HTTPServiceUnavailable("Later."), 503, 201, "Later."),
    (httpexceptions.HTTPNotFound("Gone."), 404, 111, "Gone."),
    (httpexceptions.HTTPConflict("Twice."), 409, 122, "Twice."),
    (httpexceptions.HTTPUnprocessableEntity("Odd."), 422, 999, "Odd."),
]


@EVERYWHERE
class TestRefuses:
    @pytest.mark.parametrize("upload", [attach, put_raw])
    def test_a_new_record(self, app: Any, upload: Any) -> None:
        on_event(app, AttachmentReceiving, refusing)
        response = upload(app, status=403)
        assert error(response) == (121, "Not this one.")
        app.get(RECORD, headers=ALICE, status=404)
        assert not stored_files(app)

    def test_a_replacement(self, app: Any) -> None:
        before = attach(app).json
        on_event(app, AttachmentReceiving, refusing)
        attach(app, content=b"new", data={"title": "A"}, status=403)
        assert attachment_of(app) == before
        assert "title" not in app.get(RECORD, headers=ALICE).json["data"]
        assert read(app) == CONTENT
        assert stored_files(app) == {key_of(before)}


@ON_MEMORY
class TestAnswers:
    @pytest.mark.parametrize(("refusal", "status", "errno", "message"), REFUSALS)
    @pytest.mark.parametrize("record", [RECORD, DEFAULT])
    def test_are_kinto_s(
        self, app: Any, refusal: Any, status: int, errno: int, message: str, record: str
    ) -> None:
        def refuse(event: Any) -> None:
            raise type(refusal)(refusal.detail)

        on_event(app, AttachmentReceiving, refuse)
        response = attach(app, record, status=status)
        assert error(response) == (errno, message)
        assert response.headers["Access-Control-Allow-Origin"] == "*"

    def test_of_kinto_s_own_errors_stay(self, app: Any) -> None:
        def refuse(event: Any) -> None:
            details = {"quota": 1}
            forbidden = httpexceptions.HTTPInsufficientStorage()
            raise http_error(forbidden, errno=ERRORS.FORBIDDEN, message="Full", details=details)

        on_event(app, AttachmentReceiving, refuse)
        response = attach(app, status=507)
        assert error(response) == (121, "Full")
        assert response.json["details"] == {"quota": 1}

    def test_to_somebody_unknown(self, app: Any) -> None:
        app.patch_json(
            COLLECTION, {"permissions": {"record:create": ["system.Everyone"]}}, headers=ALICE
        )
        on_event(app, AttachmentReceiving, refusing)
        assert error(attach(app, headers={}, status=403)) == (121, "Not this one.")

    def test_in_a_batch(self, app: Any) -> None:
        on_event(app, AttachmentReceiving, refusing)
        part = {"method": "PUT", "path": f"/v1{URL}?filename=a.json", "body": {"n": 1}}
        other = {"method": "PUT", "path": f"/v1{COLLECTION}/records/x", "body": {"data": {}}}
        answer = app.post_json("/batch", {"requests": [part, other]}, headers=ALICE).json
        first, second = answer["responses"]
        assert (first["status"], first["body"]["message"]) == (403, "Not this one.")
        assert second["status"] == 201
        assert not stored_files(app)

    def test_to_a_mistake_of_the_plugin(self, app: Any) -> None:
        def fail(event: Any) -> None:
            raise ValueError("a mistake")

        on_event(app, AttachmentReceiving, fail)
        attach(app, status=500)
        assert not stored_files(app)


@ON_DATABASES
def test_a_plugin_may_read_and_write_records(app: Any) -> None:
    """Its writes are committed before the body is read, and stay if the upload fails."""
    storage = app.app.registry.storage

    def count(event: Any) -> None:
        storage.create("upload", "attempts", {"record": event.record_uri})
        assert storage.get("collection", "/buckets/b", "c")

    on_event(app, AttachmentReceiving, count)
    attach(app, status=201)
    attach(app, data="[]", status=400)
    with transaction.manager:
        assert len(storage.list_all("upload", "attempts")) == 2


@ON_POSTGRESQL
def test_what_a_refusing_plugin_wrote_is_rolled_back(app: Any) -> None:
    storage = app.app.registry.storage

    def count_and_refuse(event: Any) -> None:
        storage.create("upload", "attempts", {"record": event.record_uri})
        refusing(event)

    on_event(app, AttachmentReceiving, count_and_refuse)
    attach(app, status=403)
    with transaction.manager:
        assert not storage.list_all("upload", "attempts")


@ON_POSTGRESQL
def test_a_repeated_request_is_told_once(app: Any) -> None:
    failures = [IntegrityError("once")]

    def fail(event: Any) -> None:
        if event.payload["resource_name"] == "record" and failures:
            raise failures.pop()

    on_event(app, ResourceChanged, fail)
    attach(app, status=201)
    assert not failures
    assert len(seen(app, AttachmentReceiving)) == 1


PLUGIN = """
from pyramid.httpexceptions import HTTPForbidden
from kinto_attachment import AttachmentReceiving

def includeme(config):
    config.add_subscriber(refuse, AttachmentReceiving)

def refuse(event):
    if event.filename.endswith(".png"):
        raise HTTPForbidden("No pictures.")
"""


def test_a_refused_upload_leaves_the_connection_usable(tmp_path: Path) -> None:
    (tmp_path / "no_pictures.py").write_text(PLUGIN)
    settings = {"base_path": str(tmp_path / "files")}
    includes = ("kinto.plugins.default_bucket", "no_pictures")
    environ = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    with (
        live.kinto(settings, environ=environ, includes=includes) as server,
        live.Client(server) as client,
    ):
        for filename, expected in (("a.png", 403), ("a.txt", 201)):
            body, content_type = form(Part("attachment", b"x" * 100_000, filename))
            headers = {"Content-Type": content_type}
            status, _, _ = client.request("POST", f"{DEFAULT}/attachment", body, headers)
            assert status == expected
