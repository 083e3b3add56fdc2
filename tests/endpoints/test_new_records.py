"""``POST C/attachments``: a file for a record whose id the server chooses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from kinto.core.events import ResourceChanged
from kinto.core.storage.exceptions import IntegrityError

from kinto_attachment import AttachmentAdded
from tests.support import live
from tests.support.application import (
    ALICE,
    BOB,
    BUCKET,
    COLLECTION,
    CONTENT,
    INVALID_POSTED_DATA,
    Headers,
    Part,
    attach,
    check_invariant,
    error,
    form,
    on_event,
    post_form_to,
    put,
    read,
    records,
    seen,
    sha256,
    stored_files,
    userid,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_MEMORY, ON_POSTGRESQL, Build

URL = f"{COLLECTION}/attachments"
DEFAULT = "/buckets/default/collections/c/attachments"
FILE = Part("attachment", CONTENT, "notes.txt")
DATA = Part("data", '{"title": "A"}')
PERMISSIONS = Part("permissions", '{"read": ["system.Everyone"]}')


def create(
    app: Any,
    *parts: Part,
    url: str = URL,
    headers: Headers = ALICE,
    status: Any = 201,
) -> Any:
    return post_form_to(app, url, *(parts or (FILE,)), headers=headers, status=status)


def record_of(response: Any) -> str:
    """The URI of the record that was created."""
    uri: str = response.headers["Location"].removeprefix("http://localhost/v1")
    return uri


@EVERYWHERE
class TestCreates:
    def test_a_record_as_kinto_answers_it(self, app: Any) -> None:
        response = create(app, DATA, FILE, PERMISSIONS)
        uri = record_of(response)
        assert re.fullmatch(rf"{COLLECTION}/records/[0-9a-f-]{{36}}", uri)
        record = app.get(uri, headers=ALICE)
        assert response.json == record.json
        assert response.json["data"]["title"] == "A"
        assert response.json["data"]["attachment"]["hash"] == sha256(CONTENT)
        assert response.json["permissions"]["read"] == ["system.Everyone"]
        for name in ("ETag", "Last-Modified"):
            assert response.headers[name] == record.headers[name]
        assert read(app, f"{uri}/attachment", headers={}) == CONTENT

    def test_the_answer_has_the_form_of_kinto_s_own(self, app: Any) -> None:
        ours = create(app).json
        kinto = app.post_json(f"{COLLECTION}/records", {"data": {}}, headers=ALICE, status=201)
        assert ours.keys() == kinto.json.keys()
        assert ours["data"].keys() == kinto.json["data"].keys() | {"attachment"}
        assert ours["permissions"] == kinto.json["permissions"]

    def test_another_record_each_time(self, app: Any) -> None:
        uris = {record_of(create(app)) for _ in range(3)}
        assert len(uris) == len(stored_files(app)) == 3
        check_invariant(app)

    def test_in_the_default_bucket(self, app: Any) -> None:
        response = create(app, url=DEFAULT)
        bucket = app.get("/", headers=ALICE).json["user"]["bucket"]
        assert record_of(response).startswith(f"/buckets/{bucket}/collections/c/records/")
        assert read(app, f"{record_of(response)}/attachment") == CONTENT
        assert app.get(f"/buckets/{bucket}/collections/c", headers=ALICE).json["data"]


@ON_MEMORY
class TestCreatesToo:
    def test_in_the_default_bucket_of_a_plugin_that_is_included_last(self, build: Build) -> None:
        app = build({"included_first": "kinto_attachment"})
        response = create(app, url=DEFAULT)
        assert read(app, f"{record_of(response)}/attachment") == CONTENT

    def test_the_id_is_in_the_name_of_the_file(self, build: Build) -> None:
        app = build(randomize="false", filename_pattern="{rid}-{filename}")
        response = create(app)
        assert stored_files(app) == {f"{response.json['data']['id']}-notes.txt"}

    def test_by_those_who_may_create_records(self, app: Any) -> None:
        put(app, COLLECTION, permissions={"record:create": [userid(app, BOB)]})
        response = create(app, headers=BOB)
        assert response.json["permissions"] == {"write": [userid(app, BOB)]}

    def test_is_counted_and_told(self, app: Any) -> None:
        response = create(app)
        (added,) = seen(app, AttachmentAdded)
        assert added.record_uri == record_of(response)

    def test_preconditions_as_kinto_has_them(self, app: Any) -> None:
        """There is no record yet: one condition always holds, and the other one never does."""
        for url in (f"{COLLECTION}/records", URL):
            for headers, status in (
                ({"If-None-Match": "*"}, 201),
                ({"If-Match": '"123"'}, 412),
                ({"If-Match": "*"}, 412),
                ({"If-Match": "nonsense"}, 400),
            ):
                known = {**ALICE, **headers}
                if url == URL:
                    create(app, headers=known, status=status)
                    assert status == 201 or app.app.body.taken == 0
                else:
                    app.post_json(url, {"data": {}}, headers=known, status=status)

    def test_for_pages_of_other_origins(self, app: Any) -> None:
        for url in (URL, DEFAULT):
            asked = {
                "Origin": "https://page.example.com",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization, content-type",
            }
            answer = app.options(url, headers=asked, status=200)
            assert "POST" in answer.headers["Access-Control-Allow-Methods"]
            for response in (
                create(app, url=url),
                create(app, url=url, headers={}, status=401),
                app.post(url, b"", headers=ALICE, status=415),
            ):
                assert response.headers["Access-Control-Allow-Origin"] == "*"
                assert "Location" in response.headers["Access-Control-Expose-Headers"]

    def test_options_announce(self, app: Any) -> None:
        answer = app.options(URL, status=204)
        assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, POST"

    def test_the_rest_is_kinto_s(self, app: Any) -> None:
        for method in ("put", "patch", "delete"):
            response = getattr(app, f"{method}_json")(URL, {}, headers=ALICE, status=405)
            assert response.json["errno"] == 115


@ON_DATABASES
class TestRefuses:
    @pytest.fixture(autouse=True)
    def nothing_stays(self, app: Any) -> Any:
        yield
        assert not records(app)
        assert not stored_files(app)

    def test_an_id(self, app: Any) -> None:
        for parts in ((Part("data", '{"id": "mine"}'), FILE), (FILE, Part("data", '{"id": 1}'))):
            errno, message = error(create(app, *parts, status=400))
            assert errno == INVALID_POSTED_DATA
            assert message.startswith("data.id in body: ")

    def test_strangers_before_the_body(self, app: Any) -> None:
        create(app, headers={}, status=401)
        create(app, headers=BOB, status=403)
        create(app, url=DEFAULT, headers={}, status=401)
        assert app.app.body.taken == 0

    def test_readers(self, app: Any) -> None:
        put(app, COLLECTION, permissions={"read": ["system.Everyone"]})
        create(app, headers=BOB, status=403)
        assert app.app.body.taken == 0

    @pytest.mark.parametrize("user", [ALICE, BOB, {}], ids=["owner", "stranger", "nobody"])
    @pytest.mark.parametrize(
        "collection",
        [
            f"{BUCKET}/collections/none",
            "/buckets/x/collections/c",
            f"{BUCKET}/collections/{'x' * 300}",
        ],
    )
    def test_collections_that_are_not_there_as_kinto_does(
        self, app: Any, collection: str, user: Headers
    ) -> None:
        kinto = app.post_json(f"{collection}/records", {"data": {}}, headers=user, status="4*")
        response = create(app, url=f"{collection}/attachments", headers=user, status="4*")
        assert response.status_code == kinto.status_code
        assert response.json["errno"] == kinto.json["errno"]
        assert app.app.body.taken == 0

    def test_a_forged_host(self, app: Any) -> None:
        create(app, headers={**ALICE, "Host": "a/../b"}, status=400)

    @pytest.mark.parametrize(
        "parts",
        [
            (Part("data", "{}"),),
            (FILE, Part("data", "[]")),
            (FILE, Part("permissions", '{"fly": []}')),
            (Part("attachment", b"", "a.exe"),),
            (Part("file", CONTENT, "a.txt"),),
        ],
    )
    def test_what_a_form_is_refused_for(self, app: Any, parts: tuple[Part, ...]) -> None:
        create(app, *parts, status=400)

    def test_what_the_schema_does_not_allow(self, app: Any) -> None:
        schema = {"type": "object", "required": ["title"]}
        put(app, COLLECTION, data={"schema": schema})
        create(app, FILE, status=400)
        create(app, FILE, Part("data", '{"title": 1, "attachment": {"forged": true}}'))
        (record,) = records(app).values()
        assert record["attachment"]["filename"] == "notes.txt"
        app.delete(f"{COLLECTION}/records", headers=ALICE)


@ON_MEMORY
def test_a_large_body_is_refused_by_its_length(build: Build) -> None:
    app = build(max_size=10)
    create(app, Part("attachment", b"x" * 3_000_000, "a.txt"), status=413)
    assert app.app.body.taken == 0


@ON_MEMORY
def test_a_right_that_is_withdrawn_while_the_file_is_stored(app: Any) -> None:
    put(app, COLLECTION, permissions={"record:create": [userid(app, BOB)]})
    storage = app.app.registry.attachment_storages.default.files
    write = storage.write

    def write_and_withdraw(*args: Any, **kwargs: Any) -> Any:
        app.patch_json(COLLECTION, {"permissions": {"record:create": []}}, headers=ALICE)
        return write(*args, **kwargs)

    storage.write = write_and_withdraw
    try:
        create(app, headers=BOB, status=403)
    finally:
        del storage.write
    assert not records(app)
    assert not stored_files(app)


@ON_POSTGRESQL
def test_a_repeated_request_creates_one_record(build: Build) -> None:
    """It is repeated after a conflict, with the id for which the file was stored."""
    app = build(randomize="false", filename_pattern="{rid}-{filename}")
    failures = [IntegrityError("once"), IntegrityError("twice")]

    def fail(event: Any) -> None:
        if event.payload["resource_name"] == "record" and failures:
            raise failures.pop()

    on_event(app, ResourceChanged, fail)
    response = create(app)
    assert not failures
    uri = record_of(response)
    assert list(records(app)) == [uri]
    assert stored_files(app) == {f"{uri.rpartition('/')[2]}-notes.txt"}
    assert read(app, f"{uri}/attachment") == CONTENT


@ON_POSTGRESQL
def test_a_readonly_server_takes_none(build: Build) -> None:
    attach(build())
    readonly = build({"readonly": "true"})
    for url in (URL, DEFAULT):
        assert create(readonly, url=url, status=405).json["errno"] == 115
        assert readonly.app.body.taken == 0


def test_a_refused_upload_is_answered_while_the_client_still_sends(tmp_path: Path) -> None:
    """Over a real socket: the answer comes before the body, and the next request is answered."""
    with live.kinto({"base_path": str(tmp_path)}) as server, live.Client(server) as client:
        client.put("/buckets/b")
        client.put("/buckets/b/collections/c")
        body, content_type = form(Part("attachment", b"x" * 100_000, "a.txt"))
        headers = {"Content-Type": content_type}
        status, _, answer = client.request("POST", URL, body, {"Authorization": "", **headers})
        assert (status, answer["code"]) == (401, 401)
        status, _, answer = client.request("POST", URL, body, headers)
        assert (status, answer["data"]["attachment"]["size"]) == (201, 100_000)
