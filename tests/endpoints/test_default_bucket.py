"""``/buckets/default/…/attachment``: as for a named bucket, which is created if needed."""

from __future__ import annotations

from typing import Any

import pytest
from kinto.core.events import ResourceChanged

from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    CONTENT,
    DEFAULT,
    attach,
    attachment_of,
    key_of,
    put,
    put_collection,
    put_raw,
    read,
    records,
    seen,
    stored_files,
    userid,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_MEMORY, Build

pytestmark = EVERYWHERE

URL = f"{DEFAULT}/attachment"
OTHER = f"{DEFAULT}2/attachment"


@pytest.fixture(params=["", "kinto_attachment"], ids=["included-last", "included-first"])
def build(build: Build, request: pytest.FixtureRequest) -> Build:
    """Servers that include us after the plugin of the default bucket, or before it."""

    def builder(settings: dict[str, Any] | None = None, /, **options: Any) -> Any:
        order = {"included_first": request.param} if request.param else {}
        return build({**(settings or {}), **order}, **options)

    return builder


def real(app: Any, path: str = DEFAULT, headers: dict[str, str] = ALICE) -> str:
    bucket = app.get("/", headers=headers).json["user"]["bucket"]
    return path.replace("/default/", f"/{bucket}/")


@pytest.mark.parametrize("upload", [attach, put_raw])
class TestUpload:
    def test_creates_bucket_and_collection(self, app: Any, upload: Any) -> None:
        response = upload(app, DEFAULT, status=201)
        assert app.app.body.taken >= len(CONTENT)
        assert response.headers["Location"] == f"http://localhost/v1{real(app)}"
        record = app.get(real(app), headers=ALICE)
        assert record.json["data"]["attachment"] == response.json
        assert record.headers["ETag"] == response.headers["ETag"]
        assert read(app, URL) == read(app, f"{real(app)}/attachment") == CONTENT

    def test_notifies_what_it_creates(self, app: Any, upload: Any) -> None:
        app.app.registry.seen.clear()
        upload(app, DEFAULT)
        created = [
            (event.payload["resource_name"], event.payload["action"])
            for event in seen(app, ResourceChanged)
        ]
        assert created == [("bucket", "create"), ("collection", "create"), ("record", "create")]

    def test_uses_what_is_there(self, app: Any, upload: Any) -> None:
        put(app, "/buckets/default", data={"kept": True})
        put(app, "/buckets/default/collections/c", data={"kept": True})
        put(app, DEFAULT, data={"title": "A"})
        upload(app, DEFAULT, status=200)
        assert app.get("/buckets/default", headers=ALICE).json["data"]["kept"]
        assert app.get("/buckets/default/collections/c", headers=ALICE).json["data"]["kept"]
        assert app.get(DEFAULT, headers=ALICE).json["data"]["title"] == "A"

    def test_replaces(self, app: Any, upload: Any) -> None:
        upload(app, DEFAULT)
        upload(app, DEFAULT, content=b"new", status=200)
        assert read(app, URL) == b"new"
        assert len(stored_files(app)) == 1

    def test_of_nobody_is_refused(self, app: Any, upload: Any) -> None:
        upload(app, DEFAULT, headers=ANONYMOUS, status=401)
        assert app.app.body.taken == 0

    def test_that_is_refused_creates_nothing(self, app: Any, upload: Any) -> None:
        upload(app, DEFAULT, filename="virus.exe", status=400)
        app.get("/buckets/default/collections/c/records", headers=ALICE)
        assert not records(app)
        assert not stored_files(app)

    def test_honours_preconditions(self, app: Any, upload: Any) -> None:
        headers = {**ALICE, "If-None-Match": "*"}
        etag = upload(app, DEFAULT, headers=headers, status=201).headers["ETag"]
        upload(app, DEFAULT, content=b"new", headers=headers, status=412)
        assert app.app.body.taken == 0
        headers = {**ALICE, "If-Match": etag}
        upload(app, DEFAULT, content=b"new", headers=headers, status=200)
        upload(app, DEFAULT, content=b"newer", headers=headers, status=412)
        assert read(app, URL) == b"new"

    def test_refuses_ids_that_kinto_refuses(self, app: Any, upload: Any) -> None:
        for record in (
            "/buckets/default/collections/no!id/records/r",
            "/buckets/default/collections/c/records/not,an,id",
        ):
            app.put_json(record, {"data": {}}, headers=ALICE, status=400)
            upload(app, record, status=(400, 404))
        assert not stored_files(app)


class TestOfEachUser:
    def test_is_their_own(self, app: Any) -> None:
        attach(app, DEFAULT, content=b"alice's")
        attach(app, DEFAULT, content=b"bob's", headers=BOB)
        assert read(app, URL) == b"alice's"
        assert read(app, URL, headers=BOB) == b"bob's"
        app.get(f"{real(app)}/attachment", headers=BOB, status=403)
        assert len(stored_files(app)) == 2

    def test_takes_permissions(self, app: Any) -> None:
        attach(app, DEFAULT, permissions={"read": [userid(app, BOB)]})
        assert read(app, f"{real(app)}/attachment", headers=BOB) == CONTENT

    def test_is_not_one_s_own_when_somebody_else_made_it(self, app: Any) -> None:
        put_collection(app, real(app, "/buckets/default/collections/c"), headers=BOB)
        put(app, real(app), headers=BOB)
        for upload in (attach, put_raw):
            upload(app, DEFAULT, status=403)
            assert app.app.body.taken == 0
        app.get(URL, headers=ALICE, status=403)

    def test_without_permission_to_create_buckets(self, build: Build) -> None:
        app = build({"bucket_create_principals": userid(build())})
        app.put_json("/buckets/bobs", {}, headers=BOB, status=403)
        attach(app, DEFAULT, headers=BOB, status=201)
        assert read(app, URL, headers=BOB) == CONTENT


class TestOtherMethods:
    def test_delete(self, app: Any) -> None:
        attach(app, DEFAULT)
        app.delete(URL, headers=ALICE, status=204)
        assert app.get(DEFAULT, headers=ALICE).json["data"]["attachment"] is None
        assert not stored_files(app)

    def test_delete_and_get_of_nothing(self, app: Any) -> None:
        app.delete(URL, headers=ALICE, status=404)
        assert app.get(URL, headers=ALICE, status=404).json["errno"] in (110, 111)
        assert "bucket" not in [event.payload["resource_name"] for event in seen(app)[4:]]

    def test_get_of_nobody(self, app: Any) -> None:
        attach(app, DEFAULT)
        app.get(URL, headers=ANONYMOUS, status=401)
        app.delete(URL, headers=ANONYMOUS, status=401)

    def test_head_and_ranges(self, build: Build) -> None:
        app = build(downloads="proxy")
        attach(app, DEFAULT)
        assert app.head(URL, headers=ALICE).headers["Content-Length"] == str(len(CONTENT))
        response = app.get(URL, headers={**ALICE, "Range": "bytes=-1"}, status=206)
        assert response.body == CONTENT[-1:]

    @ON_MEMORY
    def test_options(self, app: Any) -> None:
        headers = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}
        response = app.options(URL, headers=headers, status=200)
        assert response.headers["Access-Control-Allow-Origin"] in ("*", "https://example.com")
        assert "POST" in response.headers["Access-Control-Allow-Methods"]

    @ON_MEMORY
    def test_patch_renames(self, app: Any) -> None:
        attach(app, DEFAULT)
        body = {"data": {"filename": "new.txt"}}
        renamed = app.patch_json(f"{DEFAULT}/attachment", body, headers=ALICE).json
        assert renamed["filename"] == "new.txt"
        assert attachment_of(app, DEFAULT) == renamed


class TestBatch:
    def test_uploads(self, app: Any) -> None:
        requests = [
            {"method": "PUT", "path": f"/v1{URL}?filename=a.json", "body": {"n": 1}},
            {
                "method": "PUT",
                "path": f"/v1{OTHER}?filename=a.json",
                "body": {"n": 2},
            },
        ]
        answers = app.post_json("/batch", {"requests": requests}, headers=ALICE).json["responses"]
        assert [answer["status"] for answer in answers] == [201, 201]
        assert read(app, URL) == b'{"n":1}'
        assert len(stored_files(app)) == 2

    def test_deletes(self, app: Any) -> None:
        attach(app, DEFAULT)
        requests = [{"method": "DELETE", "path": f"/v1{URL}"}]
        answers = app.post_json("/batch", {"requests": requests}, headers=ALICE).json["responses"]
        assert [answer["status"] for answer in answers] == [204]
        assert not stored_files(app)

    @ON_DATABASES
    @pytest.mark.parametrize("uploads", [(0,), (2,), (0, 2), (1, 3)], ids=str)
    def test_creates_bucket_and_collection_once(
        self, app: Any, monkeypatch: pytest.MonkeyPatch, uploads: tuple[int, ...]
    ) -> None:
        """The first request creates them, an upload or a plain write; later ones do not check."""
        storage = app.app.registry.storage
        create = storage.create

        def count(resource_name: str, *args: Any, **kwargs: Any) -> Any:
            created.append(resource_name)
            return create(resource_name, *args, **kwargs)

        created: list[str] = []
        monkeypatch.setattr(storage, "create", count)
        requests = [
            {"method": "PUT", "path": f"/v1{DEFAULT}{number}", "body": {"data": {}}}
            for number in range(4)
        ]
        for number in uploads:
            path = f"/v1{DEFAULT}{number}/attachment?filename=a.json"
            requests[number] = {"method": "PUT", "path": path, "body": {"n": number}}
        answers = app.post_json("/batch", {"requests": requests}, headers=ALICE).json["responses"]
        assert [answer["status"] for answer in answers] == [201] * 4
        assert (created.count("bucket"), created.count("collection")) == (1, 1)
        for number in uploads:
            assert read(app, f"{DEFAULT}{number}/attachment") == b'{"n":%d}' % number

    def test_refusals_are_answered_by_themselves(self, app: Any) -> None:
        requests = [
            {"method": "PUT", "path": f"/v1{URL}?filename=a.exe", "body": {"n": 1}},
            {"method": "DELETE", "path": f"/v1{DEFAULT}x/attachment"},
            {"method": "PUT", "path": f"/v1{URL}?filename=a.json", "body": {"n": 1}},
        ]
        answers = app.post_json("/batch", {"requests": requests}, headers=ALICE).json["responses"]
        assert [answer["status"] for answer in answers] == [400, 404, 201]
        assert len(stored_files(app)) == 1


@ON_DATABASES
def test_deleting_the_bucket_deletes_the_files(app: Any) -> None:
    attach(app, DEFAULT)
    key = key_of(attach(app).json)
    app.delete("/buckets/default", headers=ALICE)
    assert stored_files(app) == {key}


@ON_MEMORY
def test_locations_are_those_of_any_file(app: Any) -> None:
    location = attach(app, DEFAULT).json["location"]
    assert read(app, location) == CONTENT
    app.get(location, headers=BOB, status=404)


@ON_MEMORY
def test_settings_of_a_resource_name_the_real_bucket(build: Build) -> None:
    bucket = build().get("/", headers=ALICE).json["user"]["bucket"]
    app = build(**{f"resources.{bucket}.c.randomize": "false"})
    assert key_of(attach(app, DEFAULT).json) == "notes.txt"


@ON_MEMORY
def test_history_has_the_real_uris(app: Any) -> None:
    attach(app, DEFAULT)
    entries = app.get(real(app, "/buckets/default/history"), headers=ALICE).json["data"]
    assert {entry["uri"] for entry in entries} == {
        real(app),
        real(app, "/buckets/default/collections/c"),
        real(app, "/buckets/default/")[:-1],
    }
