"""``POST R/attachment`` with JSON: the record gets the file of another one."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
import transaction
from pyramid.httpexceptions import HTTPForbidden

from kinto_attachment import AttachmentReceiving
from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    BUCKET,
    COLLECTION,
    CONTENT,
    DEFAULT,
    INVALID_POSTED_DATA,
    OTHER,
    RECORD,
    Headers,
    attach,
    attachment_of,
    describe_behind,
    error,
    key_of,
    on_event,
    put,
    put_raw,
    read,
    sha256,
    stored_content,
    stored_files,
    userid,
    write_behind,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_MEMORY, Build

pytestmark = ON_MEMORY

URL = f"{RECORD}/attachment"
SOURCE = f"{BUCKET}/collections/d/records/source"


def copy(
    app: Any,
    source: Any = SOURCE,
    record: str = RECORD,
    headers: Headers = ALICE,
    status: Any = None,
    **more: Any,
) -> Any:
    body = {"copy_from": source, **more}
    return app.post_json(f"{record}/attachment", body, headers=headers, status=status)


def start(app: Any, **file: Any) -> Any:
    put(app, f"{BUCKET}/collections/d")
    return attach(app, SOURCE, **file)


class TestCopies:
    @EVERYWHERE
    def test_share_the_file(self, build: Build) -> None:
        app = build()
        source = start(app).json
        files = stored_files(app)
        answer = copy(app, status=201)
        assert answer.json == attachment_of(app) == source
        assert answer.headers["Attachment-Version"]
        assert answer.headers["ETag"] == app.get(RECORD, headers=ALICE).headers["ETag"]
        assert stored_files(app) == files
        app.delete(SOURCE, headers=ALICE)
        assert read(app) == CONTENT
        app.delete(RECORD, headers=ALICE)
        assert not stored_files(app)

    @ON_DATABASES
    def test_replace_a_file(self, app: Any) -> None:
        start(app)
        attach(app, content=b"old")
        copy(app, status=200)
        assert read(app) == CONTENT
        assert len(stored_files(app)) == 1

    def test_set_attributes_and_permissions(self, app: Any) -> None:
        start(app)
        permissions = {"read": ["system.Everyone"]}
        copy(app, data={"title": "A"}, permissions=permissions)
        assert app.get(RECORD, headers=ANONYMOUS).json["data"]["title"] == "A"
        copy(app, data={"color": "red"})
        found = app.get(RECORD, headers=ALICE).json["data"]
        assert (found["title"], found["color"]) == ("A", "red")

    def test_of_a_record_to_itself_change_nothing(self, app: Any) -> None:
        start(app)
        copy(app, SOURCE, SOURCE, status=200)
        assert read(app, f"{SOURCE}/attachment") == CONTENT

    def test_keep_the_stored_form(self, build: Build) -> None:
        app = build(**{"resources.b.d.gzipped": "true"}, content_encodings="gzip")
        source = start(app).json
        assert source["original"]["filename"] == "notes.txt"
        assert copy(app).json == source
        packed = gzip.compress(CONTENT)
        put_raw(app, OTHER, packed, headers={**ALICE, "Content-Encoding": "gzip"})
        assert copy(app, OTHER).json["encoding"] == "gzip"
        assert read(app) == CONTENT  # webtest decompresses it.

    def test_look_at_preconditions(self, app: Any) -> None:
        start(app)
        copy(app, headers={**ALICE, "If-None-Match": "*"}, status=201)
        copy(app, headers={**ALICE, "If-None-Match": "*"}, status=412)
        copy(app, headers={**ALICE, "If-Match": '"1"'}, status=412)

    def test_of_a_renamed_file_have_its_name(self, app: Any) -> None:
        start(app)
        renamed = {"data": {"filename": "new.txt"}}
        app.patch_json(f"{SOURCE}/attachment", renamed, headers=ALICE)
        assert copy(app).json["filename"] == "new.txt"

    @ON_DATABASES
    def test_of_a_record_from_before_the_index(self, app: Any) -> None:
        start(app)
        links = app.app.registry.attachment_links
        with transaction.manager:
            (link,) = links.of_record(SOURCE)
            links._rows.delete(link.parent, link.id)
        copy(app)
        assert read(app) == CONTENT
        app.delete(SOURCE, headers=ALICE)
        assert read(app) == CONTENT

    def test_in_a_batch(self, app: Any) -> None:
        start(app)
        third = f"{COLLECTION}/records/third"
        requests = [
            {"method": "POST", "path": f"/v1{record}/attachment", "body": {"copy_from": SOURCE}}
            for record in (RECORD, OTHER, third)
        ]
        answer = app.post_json("/batch", {"requests": requests}, headers=ALICE)
        assert [part["status"] for part in answer.json["responses"]] == [201] * 3
        app.delete(SOURCE, headers=ALICE)
        for record in (RECORD, OTHER, third):
            assert read(app, f"{record}/attachment") == CONTENT
        assert len(stored_files(app)) == 1

    @ON_DATABASES
    def test_of_a_file_that_came_in_the_same_batch(self, app: Any) -> None:
        """Both records have the same file, whichever of them was written first."""
        put(app, OTHER)
        requests = [
            {"method": "PATCH", "path": f"/v1{OTHER}", "body": {"data": {"title": "A"}}},
            {"method": "PUT", "path": f"/v1{RECORD}/attachment?filename=a.json", "body": {"n": 1}},
            {"method": "POST", "path": f"/v1{OTHER}/attachment", "body": {"copy_from": RECORD}},
        ]
        answer = app.post_json("/batch", {"requests": requests}, headers=ALICE)
        assert [part["status"] for part in answer.json["responses"]] == [200, 201, 200]
        app.delete(RECORD, headers=ALICE)
        assert read(app, f"{OTHER}/attachment") == b'{"n":1}'

    @pytest.mark.parametrize("included", ["", "kinto_attachment"])
    def test_in_the_default_bucket(self, build: Build, included: str) -> None:
        app = build({"included_first": included} if included else {})
        start(app)
        copy(app, SOURCE, DEFAULT, status=201)
        copy(app, DEFAULT, f"{DEFAULT}2", status=201)
        assert read(app, f"{DEFAULT}2/attachment") == CONTENT
        copy(app, DEFAULT, headers=BOB, status=403)

    def test_of_versions(self, build: Build) -> None:
        app = build(keep_old_files="true")
        first = start(app, content=b"one").headers["Attachment-Version"]
        attach(app, SOURCE, b"two")
        copy(app, version=first, status=201)
        assert read(app) == b"one"
        copy(app, SOURCE, SOURCE, version=first, status=200)
        assert read(app, f"{SOURCE}/attachment") == b"one"
        app.delete(SOURCE, headers=ALICE)
        copy(app, record=OTHER, status=404)
        copy(app, record=OTHER, version=first, status=201)
        assert read(app, f"{OTHER}/attachment") == b"one"
        listed = app.get(f"{SOURCE}/attachment/versions", headers=ALICE).json["data"]
        assert len(listed) == 2


class TestNewRecords:
    """``POST C/attachments``: Kinto makes the id."""

    NEW = f"{COLLECTION}/attachments"

    def copy(self, app: Any, url: str = NEW, status: Any = 201, **more: Any) -> Any:
        headers = more.pop("headers", ALICE)
        body = {"copy_from": SOURCE, **more}
        return app.post_json(url, body, headers=headers, status=status)

    @ON_DATABASES
    def test_get_the_file(self, app: Any) -> None:
        start(app)
        answer = self.copy(app, data={"title": "A"}, permissions={"read": ["system.Everyone"]})
        record = f"{COLLECTION}/records/{answer.json['data']['id']}"
        assert answer.headers["Location"].endswith(f"/v1{record}")
        assert answer.headers["Attachment-Version"]
        assert answer.json == app.get(record, headers=ALICE).json
        assert answer.json["data"]["title"] == "A"
        assert read(app, f"{record}/attachment", ANONYMOUS) == CONTENT
        assert len(stored_files(app)) == 1

    @pytest.mark.parametrize("included", ["", "kinto_attachment"])
    def test_in_the_default_bucket(self, build: Build, included: str) -> None:
        app = build({"included_first": included} if included else {})
        start(app)
        url = DEFAULT.partition("/records/")[0] + "/attachments"
        record = f"{DEFAULT.rpartition('/')[0]}/{self.copy(app, url).json['data']['id']}"
        assert read(app, f"{record}/attachment") == CONTENT

    @ON_DATABASES
    @pytest.mark.parametrize("collection", [COLLECTION, DEFAULT.partition("/records/")[0]])
    def test_are_others_in_each_part_of_a_batch(self, app: Any, collection: str) -> None:
        start(app)
        url = f"{collection}/attachments"
        part = {"method": "POST", "path": f"/v1{url}", "body": {"copy_from": SOURCE}}
        answer = app.post_json("/batch", {"requests": [part] * 3}, headers=ALICE).json
        assert [each["status"] for each in answer["responses"]] == [201] * 3
        assert len(app.get(url, headers=ALICE).json["data"]) == 3
        assert len(stored_files(app)) == 1

    def test_refuse_an_id_and_what_is_none(self, app: Any) -> None:
        start(app)
        answer = self.copy(app, data={"id": "x"}, status=400)
        assert error(answer)[0] == INVALID_POSTED_DATA
        answer = self.copy(app, copy_from=f"/v1{SOURCE}", status=400)
        assert answer.json["message"].endswith("without a host and without /v1")
        self.copy(app, copy_from=OTHER, status=404)
        assert app.get(f"{COLLECTION}/records", headers=ALICE).json["data"] == []

    def test_need_both_permissions(self, app: Any) -> None:
        start(app)
        self.copy(app, headers=ANONYMOUS, status=401)
        self.copy(app, headers=BOB, status=403)
        grant(app, COLLECTION, "record:create")
        self.copy(app, headers=BOB, status=403)
        grant(app, SOURCE, "read")
        self.copy(app, headers=BOB)
        app.patch_json(COLLECTION, {"permissions": {"record:create": []}}, headers=ALICE)
        self.copy(app, headers=BOB, status=403)


class TestBetweenStorages:
    @pytest.fixture
    def app(self, build: Build, tmp_path_factory: pytest.TempPathFactory) -> Any:
        self.folder = tmp_path_factory.mktemp("other")
        options = {
            "storages.other.base_path": str(self.folder),
            "resources.b.d.storage": "other",
            "content_encodings": "gzip",
        }
        return build(**options)

    def test_the_file_is_stored_again(self, app: Any) -> None:
        source = start(app).json
        copied = copy(app).json
        assert copied["location"] != source["location"]
        assert {**copied, "location": ""} == {**source, "location": ""}
        assert len(stored_files(app)) == 2
        app.delete(SOURCE, headers=ALICE)
        assert read(app) == CONTENT

    def test_large_ones_too(self, app: Any) -> None:
        content = bytes(range(256)) * 20_000
        start(app, content=content)
        assert copy(app).json["hash"] == sha256(content)
        assert read(app) == content

    def test_the_stored_form_stays(self, app: Any) -> None:
        packed = gzip.compress(CONTENT)
        put(app, f"{BUCKET}/collections/d")
        put_raw(app, SOURCE, packed, headers={**ALICE, "Content-Encoding": "gzip"})
        copied = copy(app).json
        assert copied["encoding"] == "gzip"
        assert read(app) == CONTENT  # webtest decompresses it.
        assert stored_content(app, key_of(copied)) == packed

    def test_a_damaged_file_is_not_copied(self, app: Any) -> None:
        start(app)
        (path,) = (path for path in Path(self.folder).rglob("*.txt"))
        damaged = CONTENT.swapcase()
        path.write_bytes(damaged)
        copy(app, status=503)
        app.get(RECORD, headers=ALICE, status=404)
        assert len(stored_files(app)) == 1
        path.write_bytes(CONTENT)

    def test_what_is_refused_leaves_nothing(self, app: Any) -> None:
        start(app)
        schema = {"type": "object", "required": ["title"]}
        app.patch_json(COLLECTION, {"data": {"schema": schema}}, headers=ALICE)
        copy(app, status=400)
        assert len(stored_files(app)) == 1


class TestRefused:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"x",
            b"[]",
            b"{}",
            b'{"copy_from": 1}',
            b'{"copy_from": "/buckets/b"}',
            b'{"copy_from": "/v1/buckets/b/collections/d/records/source"}',
            b'{"copy_from": "S", "version": 1}',
            b'{"copy_from": "S", "data": []}',
            b'{"copy_from": "S", "permissions": 1}',
            b'{"copy_from": "S", "other": 1}',
        ],
    )
    def test_other_bodies(self, app: Any, body: bytes) -> None:
        start(app)
        headers = {**ALICE, "Content-Type": "application/json"}
        body = body.replace(b'"S"', b'"%s"' % SOURCE.encode())
        answer = app.post(URL, body, headers=headers, status=400)
        assert error(answer)[0] == INVALID_POSTED_DATA
        app.get(RECORD, headers=ALICE, status=404)

    def test_large_bodies(self, app: Any) -> None:
        headers = {**ALICE, "Content-Type": "application/json"}
        app.post(URL, b" " * 1_100_000, headers=headers, status=413)

    def test_packed_bodies(self, app: Any) -> None:
        copy(app, headers={**ALICE, "Content-Encoding": "gzip"}, status=415)

    def test_records_without_a_file(self, app: Any) -> None:
        put(app, f"{BUCKET}/collections/d")
        copy(app, status=404)
        put(app, SOURCE)
        copy(app, status=404)
        copy(app, version="x", status=404)
        write_behind(app, SOURCE, {"attachment": {"location": "https://elsewhere.example.com/a"}})
        copy(app, status=404)
        write_behind(app, SOURCE, {})

    @pytest.mark.parametrize(
        ("rule", "status"),
        [
            ({"extensions": "jpg"}, 400),
            ({"max_size": "3"}, 413),
            ({"min_size": "300"}, 400),
        ],
    )
    def test_what_the_collection_refuses(
        self, build: Build, rule: dict[str, str], status: int
    ) -> None:
        app = build(**{f"resources.b.c.{name}": value for name, value in rule.items()})
        start(app)
        copy(app, status=status)
        app.get(RECORD, headers=ALICE, status=404)

    def test_limits_are_of_the_file_before_it_was_compressed(self, build: Build) -> None:
        rules = {"resources.b.d.gzipped": "true", "resources.b.c.max_size": "500"}
        app = build(**rules)
        assert start(app, content=b"x" * 1000).json["size"] < 500
        copy(app, status=413)

    def test_what_the_schema_refuses(self, app: Any) -> None:
        start(app)
        schema = {"type": "object", "required": ["title"]}
        app.patch_json(COLLECTION, {"data": {"schema": schema}}, headers=ALICE)
        copy(app, status=400)
        copy(app, data={"title": "A"}, status=201)

    def test_what_another_plugin_refuses(self, app: Any) -> None:
        start(app)
        received = []

        def refuse(event: Any) -> None:
            received.append((event.record_uri, event.filename, event.mimetype, event.size))
            raise HTTPForbidden()

        on_event(app, AttachmentReceiving, refuse)
        copy(app, status=403)
        assert received == [(RECORD, "notes.txt", "text/plain", len(CONTENT))]

    def test_a_file_that_is_not_what_the_index_knows(self, app: Any) -> None:
        start(app)
        copy(app, OTHER, status=404)
        describe_behind(app, SOURCE, filename="changed.txt")
        assert copy(app).json["filename"] == "changed.txt"


def grant(app: Any, uri: str, permission: str) -> None:
    body = {"permissions": {permission: [userid(app, BOB)]}}
    app.patch_json(uri, body, headers=ALICE)


class TestPermissions:
    """They are ``read`` on the source, and what an upload needs on the target."""

    def test_none(self, app: Any) -> None:
        start(app)
        copy(app, headers=BOB, status=403)
        copy(app, headers=ANONYMOUS, status=401)

    def test_on_the_target_only(self, app: Any) -> None:
        start(app)
        grant(app, COLLECTION, "write")
        copy(app, headers=BOB, status=403)
        # The answer does not show what exists.
        copy(app, SOURCE + "x", headers=BOB, status=403)
        copy(app, "/buckets/x/collections/x/records/x", headers=BOB, status=403)
        app.get(RECORD, headers=ALICE, status=404)

    def test_on_the_source_only(self, app: Any) -> None:
        start(app)
        grant(app, SOURCE, "write")
        copy(app, headers=BOB, status=403)
        attach(app)
        grant(app, RECORD, "read")
        copy(app, headers=BOB, status=403)

    @pytest.mark.parametrize("source", [SOURCE, f"{BUCKET}/collections/d", BUCKET])
    @pytest.mark.parametrize(
        ("target", "permission"),
        [(COLLECTION, "record:create"), (COLLECTION, "write"), (BUCKET, "write")],
    )
    def test_on_both(self, app: Any, source: str, target: str, permission: str) -> None:
        start(app)
        grant(app, target, permission)
        grant(app, source, "read")
        copy(app, headers=BOB, status=201)

    def test_to_replace_a_file(self, app: Any) -> None:
        start(app)
        attach(app, content=b"old")
        grant(app, SOURCE, "read")
        grant(app, COLLECTION, "record:create")
        copy(app, headers=BOB, status=403)
        grant(app, RECORD, "write")
        copy(app, headers=BOB, status=200)

    @pytest.mark.parametrize(("rule", "status"), [("write", 404), ("read", 201)])
    def test_for_versions(self, build: Build, rule: str, status: int) -> None:
        app = build(keep_old_files="true", versions_permission=rule)
        first = start(app, content=b"one").headers["Attachment-Version"]
        second = attach(app, SOURCE, b"two").headers["Attachment-Version"]
        grant(app, SOURCE, "read")
        grant(app, COLLECTION, "write")
        copy(app, headers=BOB, version=first, status=status)
        app.delete(RECORD, headers=ALICE, status="*")
        copy(app, headers=BOB, version=second, status=201)
        app.delete(RECORD, headers=ALICE)
        grant(app, SOURCE, "write")
        copy(app, headers=BOB, version=first, status=201)
        app.delete(SOURCE, headers=ALICE)
        copy(app, headers=BOB, version=first, status=403)
        grant(app, f"{BUCKET}/collections/d", "read")
        copy(app, headers=BOB, version=first, status=404)
        grant(app, f"{BUCKET}/collections/d", "write")
        copy(app, headers=BOB, version=first, status=200)


@ON_DATABASES
def test_a_pattern_names_no_source(build: Build) -> None:
    """``*`` is a wildcard for Kinto's backends; PostgreSQL then also treats ``_`` as one."""
    app = build(keep_old_files="true")
    secret, own = f"{BUCKET}/collections/axb", f"{BUCKET}/collections/a_b"
    put(app, BUCKET)
    put(app, secret)
    put(app, own, permissions={"write": [userid(app, BOB)]})
    gone = f"{secret}/records/gone"
    version = attach(app, gone).headers["Attachment-Version"]
    app.delete(gone, headers=ALICE)
    mine = f"{own}/records/mine"
    for source in (
        f"{own}/records/*",
        f"{own}/records/g*",
        f"{BUCKET}/collections/*/records/gone",
    ):
        copy(app, source, mine, BOB, status=400, version=version)
    app.get(mine, headers=BOB, status=404)
