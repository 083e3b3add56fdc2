"""``R/attachment/versions``: a record's current and earlier files, and operations on them."""

from __future__ import annotations

from typing import Any

import pytest
import transaction

from kinto_attachment import AttachmentReplaced
from tests.support import lingering
from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    BUCKET,
    COLLECTION,
    DEFAULT,
    INVALID_PARAMETERS,
    INVALID_POSTED_DATA,
    OTHER,
    RECORD,
    Headers,
    Part,
    attach,
    attachment_of,
    error,
    move_behind,
    post_form_to,
    put,
    put_collection,
    put_raw,
    read,
    seen,
    sha256,
    stored_content,
    stored_files,
    userid,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_MEMORY, ON_POSTGRESQL, Build

pytestmark = ON_MEMORY

URL = f"{RECORD}/attachment"
VERSIONS = f"{URL}/versions"
KEEPING = {"keep_old_files": "true"}


@pytest.fixture
def app(build: Build) -> Any:
    return build(**KEEPING)


def attach_all(app: Any, *contents: bytes, record: str = RECORD) -> list[str]:
    """Attach one file after the other; returns their versions."""
    answers = [attach(app, record, content, f"{content.decode()}.txt") for content in contents]
    return [answer.headers["Attachment-Version"] for answer in answers]


def versions(app: Any, record: str = RECORD, headers: Headers = ALICE, **query: Any) -> Any:
    return app.get(f"{record}/attachment/versions", query, headers=headers).json["data"]


def names(app: Any, record: str = RECORD, headers: Headers = ALICE, **query: Any) -> list[str]:
    return [each["filename"] for each in versions(app, record, headers, **query)]


def restore(app: Any, version: str, record: str = RECORD, **options: Any) -> Any:
    options = {"headers": ALICE, **options}
    return app.post(f"{record}/attachment/versions/{version}/restore", **options)


def delete(app: Any, version: str, record: str = RECORD, **options: Any) -> Any:
    options = {"headers": ALICE, **options}
    return app.delete(f"{record}/attachment/versions/{version}", **options)


def batch(app: Any, *parts: tuple[Any, ...], headers: Headers = ALICE) -> list[int]:
    requests = [
        {"method": method, "path": f"/v1{path}", **({"body": body[0]} if body else {})}
        for method, path, *body in parts
    ]
    answers = app.post_json("/batch", {"requests": requests}, headers=headers).json["responses"]
    return [answer["status"] for answer in answers]


class TestList:
    def test_is_of_the_current_file_and_those_before(self, app: Any) -> None:
        first, second = attach_all(app, b"one", b"two")
        answer = app.get(VERSIONS, headers=ALICE)
        newest, oldest = answer.json["data"]
        assert (newest["id"], oldest["id"]) == (second, first)
        assert {**oldest, "created": 0} == {
            "id": first,
            "filename": "one.txt",
            "hash": sha256(b"one"),
            "mimetype": "text/plain",
            "size": 3,
            "created": 0,
            "state": "kept",
        }
        assert newest["state"] == "current"
        assert newest["created"] >= oldest["created"] > 1.6e12
        assert answer.headers["Cache-Control"] == "private, no-cache"
        assert "Authorization" in answer.headers["Vary"]

    def test_of_a_record_without_files_is_empty(self, app: Any) -> None:
        put(app, RECORD)
        assert versions(app) == []

    def test_has_kept_files_after_the_attachment_was_deleted(self, app: Any) -> None:
        attach_all(app, b"one", b"two")
        app.delete(URL, headers=ALICE)
        assert [(each["filename"], each["state"]) for each in versions(app)] == [
            ("two.txt", "kept"),
            ("one.txt", "kept"),
        ]

    def test_has_nothing_that_only_lingers(self, build: Build) -> None:
        app = build(linger="1h")
        attach_all(app, b"one", b"two")
        assert names(app) == ["two.txt"]
        lingering.end(app)

    def test_tells_of_compressed_files(self, build: Build) -> None:
        app = build(gzipped="true", **KEEPING)
        attach_all(app, b"one")
        (version,) = versions(app)
        assert version["filename"] == "one.txt.gz"
        assert version["original"]["filename"] == "one.txt"

    def test_comes_in_pages(self, app: Any) -> None:
        attach_all(app, b"one", b"two", b"three", b"four", b"five")
        found, url = [], f"{VERSIONS}?_limit=2"
        while url:
            answer = app.get(url, headers=ALICE)
            page = [each["filename"].removesuffix(".txt") for each in answer.json["data"]]
            found.append(page)
            url = answer.headers.get("Next-Page")
        assert found == [["five", "four"], ["three", "two"], ["one"]]

    def test_goes_on_where_it_was_when_another_file_came(self, app: Any) -> None:
        attach_all(app, b"one", b"two")
        url = app.get(f"{VERSIONS}?_limit=1", headers=ALICE).headers["Next-Page"]
        attach_all(app, b"three")
        url = url.replace("_limit=1", "_limit=5")
        assert [each["filename"] for each in app.get(url, headers=ALICE).json["data"]] == [
            "one.txt",
        ]

    def test_pages_are_as_large_as_kinto_says(self, build: Build) -> None:
        app = build({"paginate_by": "1"}, **KEEPING)
        attach_all(app, b"one", b"two")
        assert names(app, _limit=5) == ["two.txt"]
        assert names(app) == ["two.txt"]

    @pytest.mark.parametrize(
        "query",
        [
            {"_limit": "x"},
            {"_limit": "-1"},
            {"_token": "x"},
            {"_token": "e30="},
            {"_token": "WzEsMl0="},
            {"_token": "WyJhIiwgMSwgMSwgMV0="},
            {"_token": "é"},
        ],
    )
    def test_refuses_what_it_does_not_understand(self, app: Any, query: dict[str, str]) -> None:
        attach_all(app, b"one")
        assert error(app.get(VERSIONS, query, headers=ALICE, status=400))[0] == INVALID_PARAMETERS

    def test_totals_are_told_on_head_only(self, app: Any) -> None:
        attach_all(app, b"one", b"three")
        head = app.head(f"{VERSIONS}?_limit=1", headers=ALICE)
        found = {name: head.headers[f"Total-{name}"] for name in ("Objects", "Records", "Bytes")}
        assert found == {"Objects": "2", "Records": "2", "Bytes": "8"}
        assert not head.body
        get = app.get(VERSIONS, headers=ALICE)
        assert not [name for name in get.headers if name.startswith("Total-")]

    def test_can_be_read_by_other_origins(self, app: Any) -> None:
        attach_all(app, b"one", b"two")
        origin = {"Origin": "https://page.example.com", **ALICE}
        exposed = app.get(f"{VERSIONS}?_limit=1", headers=origin).headers[
            "Access-Control-Expose-Headers"
        ]
        for name in ("Next-Page", "Total-Objects", "Total-Bytes", "Attachment-Version"):
            assert name in exposed
        allowed = app.options(VERSIONS).headers["Allow"]
        assert allowed == "GET, HEAD, OPTIONS"

    @ON_POSTGRESQL
    def test_has_all_versions_of_a_record_with_many(self, build: Build) -> None:
        """There are more than Kinto's storage returns at once."""
        app = build({"storage_max_fetch_size": "5", "paginate_by": "20"}, **KEEPING)
        contents = [b"%d" % number for number in range(13)]
        attach_all(app, *contents)
        assert names(app) == [f"{number}.txt" for number in reversed(range(13))]
        assert [each["state"] for each in versions(app)].count("current") == 1


class TestOne:
    def test_is_sent_as_the_attachment_is(self, app: Any) -> None:
        first, second = attach_all(app, b"one", b"two")
        for version, content in ((first, b"one"), (second, b"two")):
            answer = app.get(f"{VERSIONS}/{version}", headers=ALICE)
            assert answer.body == content
            assert answer.headers["ETag"] == f'"{sha256(content)}"'
            assert f'filename="{content.decode()}.txt"' in answer.headers["Content-Disposition"]
        url = f"{VERSIONS}/{first}"
        part = app.get(url, headers={**ALICE, "Range": "bytes=1-1"}, status=206)
        assert part.body == b"n"
        app.get(url, headers={**ALICE, "If-None-Match": f'"{sha256(b"one")}"'}, status=304)
        assert app.head(url, headers=ALICE).content_length == 3
        saved = app.get(f"{url}?disposition=attachment&filename=new.txt", headers=ALICE)
        assert saved.headers["Content-Disposition"] == 'attachment; filename="new.txt"'

    def test_that_does_not_exist(self, app: Any) -> None:
        attach_all(app, b"one")
        attach_all(app, b"two", record=OTHER)
        (other,) = (each["id"] for each in versions(app, OTHER))
        for version in ("x", "0" * 64, other, f"{other}-shared"):
            app.get(f"{VERSIONS}/{version}", headers=ALICE, status=404)
            restore(app, version, status=404)
            delete(app, version, status=404)

    @EVERYWHERE
    def test_is_in_the_storage(self, build: Build) -> None:
        app = build(**KEEPING)
        first, _ = attach_all(app, b"one", b"two")
        assert read(app, f"{VERSIONS}/{first}") == b"one"

    def test_cannot_be_sent_in_a_batch(self, app: Any) -> None:
        first, _ = attach_all(app, b"one", b"two")
        assert batch(app, ("GET", VERSIONS), ("GET", f"{VERSIONS}/{first}")) == [200, 400]


class TestRestore:
    @EVERYWHERE
    def test_makes_it_the_current_file(self, build: Build) -> None:
        app = build(**KEEPING)
        first, second = attach_all(app, b"one", b"two")
        files = stored_files(app)
        before = app.get(RECORD, headers=ALICE).json["data"]["last_modified"]
        answer = restore(app, first, status=200)
        assert answer.json == attachment_of(app)
        assert answer.json["filename"] == "one.txt"
        assert answer.headers["Attachment-Version"] == first
        assert int(answer.headers["ETag"].strip('"')) > before
        assert answer.headers["Location"].endswith(f"/v1{RECORD}")
        assert read(app) == b"one"
        assert stored_files(app) == files
        assert [(each["id"], each["state"]) for each in versions(app)] == [
            (first, "current"),
            (second, "kept"),
        ]

    def test_there_and_back(self, app: Any) -> None:
        first, second, third = attach_all(app, b"one", b"two", b"three")
        for version in (first, second, first, third):
            restore(app, version)
        assert [each["id"] for each in versions(app)] == [third, first, second]
        assert len(stored_files(app)) == 3

    def test_of_the_current_file_leaves_it_there(self, app: Any) -> None:
        _, second = attach_all(app, b"one", b"two")
        before = attachment_of(app)
        answer = restore(app, second, status=200)
        assert answer.json == attachment_of(app) == before
        assert answer.headers["Attachment-Version"] == second
        assert names(app) == ["two.txt", "one.txt"]

    def test_after_the_attachment_was_deleted(self, app: Any) -> None:
        first, second = attach_all(app, b"one", b"two")
        app.delete(URL, headers=ALICE)
        restore(app, second)
        assert read(app) == b"two"
        assert names(app) == ["two.txt", "one.txt"]
        assert first in str(versions(app))

    def test_of_a_file_that_another_record_shares(self, build: Build) -> None:
        app = build({"includes": "tests.support.publishing"}, **KEEPING)
        first, _ = attach_all(app, b"one")[0], put(app, f"{BUCKET}/collections/public")
        copy = f"{BUCKET}/collections/public/records/copy"
        app.post_json("/publish", {"copies": {RECORD: copy}})
        attach_all(app, b"two")
        restore(app, first)
        app.delete(copy, headers=ALICE)
        assert read(app) == b"one"
        assert names(app) == ["one.txt", "two.txt"]

    def test_sets_attributes_and_permissions(self, app: Any) -> None:
        first, _ = attach_all(app, b"one", b"two")
        body = {"data": {"title": "A"}, "permissions": {"read": ["system.Everyone"]}}
        app.post_json(f"{VERSIONS}/{first}/restore", body, headers=ALICE)
        found = app.get(RECORD, headers=ANONYMOUS).json["data"]
        assert found["title"] == "A"

    @pytest.mark.parametrize("body", ["x", "[]", '{"data": 1}', '{"copy_from": "x"}'])
    def test_refuses_other_bodies(self, app: Any, body: str) -> None:
        first, _ = attach_all(app, b"one", b"two")
        answer = restore(app, first, params=body, status=400)
        assert error(answer)[0] == INVALID_POSTED_DATA
        assert read(app) == b"two"

    def test_looks_at_preconditions(self, app: Any) -> None:
        first, _ = attach_all(app, b"one", b"two")
        restore(app, first, headers={**ALICE, "If-Match": '"1"'}, status=412)
        restore(app, first, headers={**ALICE, "If-None-Match": "*"}, status=412)
        delete(app, first, headers={**ALICE, "If-Match": '"1"'}, status=412)
        assert names(app) == ["two.txt", "one.txt"]
        etag = app.get(RECORD, headers=ALICE).headers["ETag"]
        restore(app, first, headers={**ALICE, "If-Match": etag})

    def test_obeys_the_schema(self, app: Any) -> None:
        first, _ = attach_all(app, b"one", b"two")
        schema = {"type": "object", "required": ["title"]}
        app.patch_json(COLLECTION, {"data": {"schema": schema}}, headers=ALICE)
        restore(app, first, status=400)
        assert read(app) == b"two"
        app.post_json(f"{VERSIONS}/{first}/restore", {"data": {"title": "A"}}, headers=ALICE)
        assert read(app) == b"one"

    @ON_POSTGRESQL
    def test_of_a_storage_that_is_gone(self, build: Build, tmp_path: Any) -> None:
        several = build(**KEEPING, **{"storages.old.base_path": str(tmp_path)})
        first, _ = attach_all(several, b"one", b"two")
        (key,) = (key for key in stored_files(several) if stored_content(several, key) == b"one")
        move_behind(several.app.registry, key, "old")
        app = build(**KEEPING)
        restore(app, first, status=410)
        app.get(f"{VERSIONS}/{first}", headers=ALICE, status=503)
        assert names(app) == ["two.txt", "one.txt"]
        move_behind(several.app.registry, key, "")

    @ON_POSTGRESQL
    def test_where_old_files_are_no_longer_kept(self, build: Build) -> None:
        first, _ = attach_all(build(**KEEPING), b"one", b"two")
        app = build()
        restore(app, first)
        assert names(app) == ["one.txt"]
        assert len(stored_files(app)) == 1

    def test_in_a_batch(self, app: Any) -> None:
        first, second = attach_all(app, b"one", b"two")
        statuses = batch(
            app,
            ("POST", f"{VERSIONS}/{first}/restore"),
            ("PATCH", RECORD, {"data": {"title": "x"}}),
            ("DELETE", f"{VERSIONS}/{first}"),
        )
        assert statuses == [200, 200, 409]
        assert read(app) == b"one"
        assert batch(
            app,
            ("POST", f"{VERSIONS}/{second}/restore"),
            ("POST", f"{VERSIONS}/{first}/restore"),
        ) == [200, 200]
        assert names(app) == ["one.txt", "two.txt"]

    def test_is_in_the_history(self, build: Build) -> None:
        """Kinto's plugin records who has restored what, and when."""
        app = build({"includes": "kinto.plugins.history"}, **KEEPING)
        first, _ = attach_all(app, b"one", b"two")
        grant(app, "record", "write")
        restore(app, first, headers=BOB)
        query = f"{BUCKET}/history?resource_name=record&_limit=1"
        (entry,) = app.get(query, headers=ALICE).json["data"]
        assert (entry["action"], entry["user_id"]) == ("update", userid(app, BOB))
        assert entry["target"]["data"]["attachment"] == attachment_of(app)
        assert attachment_of(app)["filename"] == "one.txt"

    def test_tells_other_plugins(self, app: Any) -> None:
        first, _ = attach_all(app, b"one", b"two")
        app.app.registry.seen.clear()
        restore(app, first)
        (event,) = seen(app, AttachmentReplaced)
        assert (event.old["filename"], event.attachment["filename"]) == ("two.txt", "one.txt")


class TestDelete:
    def test_is_for_good(self, app: Any) -> None:
        first, second = attach_all(app, b"one", b"two")
        assert delete(app, first, status=204).body == b""
        assert names(app) == ["two.txt"]
        assert len(stored_files(app)) == 1
        restore(app, first, status=404)
        delete(app, first, status=404)
        assert versions(app)[0]["id"] == second

    def test_is_refused_for_the_current_file(self, app: Any) -> None:
        _, second = attach_all(app, b"one", b"two")
        answer = delete(app, second, status=409)
        assert error(answer)[0] == 122
        assert "Retry-After" not in answer.headers
        assert read(app) == b"two"

    def test_spares_a_file_that_another_record_has(self, build: Build) -> None:
        app = build({"includes": "tests.support.publishing"}, **KEEPING)
        (first,) = attach_all(app, b"one")
        copy = f"{BUCKET}/collections/public/records/copy"
        put(app, f"{BUCKET}/collections/public")
        app.post_json("/publish", {"copies": {RECORD: copy}})
        attach_all(app, b"two")
        delete(app, first)
        assert names(app) == ["two.txt"]
        assert read(app, f"{copy}/attachment") == b"one"

    def test_in_a_batch(self, app: Any) -> None:
        first, second, third = attach_all(app, b"one", b"two", b"three")
        statuses = batch(
            app,
            ("DELETE", f"{VERSIONS}/{first}"),
            ("POST", f"{VERSIONS}/{first}/restore"),
            ("DELETE", f"{VERSIONS}/{second}"),
            ("DELETE", f"{VERSIONS}/{third}"),
        )
        assert statuses == [204, 404, 204, 409]
        assert names(app) == ["three.txt"]


class TestDeletedRecord:
    """Its versions are available to those who may write the collection."""

    def test_are_listed_and_read(self, app: Any) -> None:
        first, second = attach_all(app, b"one", b"two")
        app.delete(RECORD, headers=ALICE)
        assert [(each["id"], each["state"]) for each in versions(app)] == [
            (second, "kept"),
            (first, "kept"),
        ]
        assert read(app, f"{VERSIONS}/{first}") == b"one"
        app.get(URL, headers=ALICE, status=404)

    def test_create_it_again(self, app: Any) -> None:
        first, second, third = attach_all(app, b"one", b"two", b"three")
        put(app, RECORD, data={"attachment": attachment_of(app), "title": "old"})
        app.delete(RECORD, headers=ALICE)
        answer = app.post_json(
            f"{VERSIONS}/{second}/restore", {"data": {"title": "new"}}, headers=ALICE, status=201
        )
        assert answer.headers["Attachment-Version"] == second
        assert app.get(RECORD, headers=ALICE).json["data"]["title"] == "new"
        assert read(app) == b"two"
        assert [each["id"] for each in versions(app)] == [second, third, first]
        with transaction.manager:
            links = app.app.registry.attachment_links.of_record(RECORD)
        assert {(link.ended, len({each.life for each in links})) for link in links} == {("", 1)}

    def test_of_several_lives_come_back_with_their_own(self, app: Any) -> None:
        first, second = attach_all(app, b"one", b"two")
        app.delete(RECORD, headers=ALICE)
        third, fourth = attach_all(app, b"three", b"four")
        assert names(app) == ["four.txt", "three.txt"]
        restore(app, first, status=404)
        delete(app, first, status=404)
        app.get(f"{VERSIONS}/{first}", headers=ALICE, status=404)
        app.delete(RECORD, headers=ALICE)
        assert {each["id"] for each in versions(app)} == {first, second, third, fourth}
        restore(app, first, status=201)
        assert [each["id"] for each in versions(app)] == [first, second]
        app.delete(RECORD, headers=ALICE)
        restore(app, fourth, status=201)
        assert [each["id"] for each in versions(app)] == [fourth, third]

    def test_are_deleted_for_good(self, app: Any) -> None:
        first, second = attach_all(app, b"one", b"two")
        app.delete(RECORD, headers=ALICE)
        delete(app, first, status=204)
        delete(app, second, status=204)
        app.get(VERSIONS, headers=ALICE, status=404)
        assert not stored_files(app)

    @pytest.mark.parametrize("end", [COLLECTION, BUCKET])
    def test_are_gone_with_the_collection(self, app: Any, end: str) -> None:
        first, second = attach_all(app, b"one", b"two")
        app.delete(RECORD, headers=ALICE)
        app.delete(end, headers=ALICE)
        for _ in range(2):
            for path in (VERSIONS, f"{VERSIONS}/{first}"):
                assert app.get(path, headers=ALICE, status="*").status_int in (403, 404)
            assert restore(app, second, status="*").status_int in (403, 404)
            assert delete(app, second, status="*").status_int in (403, 404)
            put_collection(app)
        assert len(stored_files(app)) == 2

    def test_in_batches(self, app: Any) -> None:
        first, second = attach_all(app, b"one", b"two")
        app.delete(RECORD, headers=ALICE)
        assert batch(
            app,
            ("POST", f"{VERSIONS}/{first}/restore"),
            ("PATCH", RECORD, {"data": {"title": "x"}}),
        ) == [201, 200]
        assert [each["id"] for each in versions(app)] == [first, second]
        assert batch(
            app,
            ("DELETE", RECORD),
            ("POST", f"{VERSIONS}/{second}/restore"),
        ) == [200, 404]
        assert batch(
            app,
            ("POST", f"{VERSIONS}/{second}/restore"),
            ("DELETE", RECORD),
        ) == [201, 200]
        assert {each["id"] for each in versions(app)} == {first, second}
        assert batch(
            app,
            ("PUT", RECORD, {"data": {}}),
            ("POST", f"{VERSIONS}/{second}/restore"),
        ) == [201, 404]

    def test_and_a_newer_file_in_the_same_batch(self, app: Any) -> None:
        first, second = attach_all(app, b"one", b"two")
        app.delete(RECORD, headers=ALICE)
        upload = ("PUT", f"{URL}?filename=third.json", {"third": 1})
        assert batch(app, ("POST", f"{VERSIONS}/{first}/restore"), upload) == [201, 200]
        assert read(app) == b'{"third":1}'
        assert [each["id"] for each in versions(app)][1:] == [second, first]


class TestLimits:
    def test_of_the_number_are_for_each_life(self, build: Build) -> None:
        app = build(max_versions="2", **KEEPING)
        attach_all(app, b"1", b"2", b"3", b"4")
        assert names(app) == ["4.txt", "3.txt", "2.txt"]
        app.delete(RECORD, headers=ALICE)
        assert names(app) == ["4.txt", "3.txt"]
        attach_all(app, b"5", b"6", b"7", b"8")
        assert names(app) == ["8.txt", "7.txt", "6.txt"]
        app.delete(URL, headers=ALICE)
        assert names(app) == ["8.txt", "7.txt"]
        assert len(stored_files(app)) == 4

    def test_of_the_number_spare_what_is_restored(self, build: Build) -> None:
        app = build(max_versions="2", **KEEPING)
        attach_all(app, b"1", b"2", b"3")
        oldest = versions(app)[-1]["id"]
        restore(app, oldest)
        assert names(app) == ["1.txt", "3.txt", "2.txt"]
        restore(app, versions(app)[-1]["id"])
        assert names(app) == ["2.txt", "1.txt", "3.txt"]

    def test_of_the_number_hold_in_a_batch(self, build: Build) -> None:
        app = build(max_versions="2", **KEEPING)
        attach_all(app, b"1", b"2")
        uploads = [("PUT", f"{URL}?filename={number}.json", {}) for number in range(3, 7)]
        batch(app, *uploads)
        assert len(versions(app)) == 3
        assert versions(app)[0]["filename"] == "6.json"
        assert len(stored_files(app)) == 3

    def test_for_one_collection(self, build: Build) -> None:
        app = build(**KEEPING, **{"resources.b.c.max_versions": "1"})
        attach_all(app, b"1", b"2", b"3")
        assert names(app) == ["3.txt", "2.txt"]


GRANTS = {
    "bucket": BUCKET,
    "collection": COLLECTION,
    "record": RECORD,
}


def grant(app: Any, where: str, permission: str) -> None:
    body = {"permissions": {permission: [userid(app, BOB)]}}
    app.patch_json(GRANTS[where], body, headers=ALICE)


class TestPermissions:
    """Which permission each endpoint needs, on which object."""

    def statuses(self, app: Any, version: str, headers: Headers = BOB) -> list[int]:
        """The statuses of listing, reading, restoring and deleting; nothing is changed."""
        url = f"{VERSIONS}/{version}"
        wrong = {**headers, "If-Match": '"1"'}
        return [
            app.get(VERSIONS, headers=headers, status="*").status_int,
            app.get(url, headers=headers, status="*").status_int,
            app.post(f"{url}/restore", headers=wrong, status="*").status_int,
            app.delete(url, headers=wrong, status="*").status_int,
        ]

    def test_of_strangers(self, app: Any) -> None:
        first, _ = attach_all(app, b"one", b"two")
        assert self.statuses(app, first) == [403] * 4
        assert self.statuses(app, first, ANONYMOUS) == [401] * 4

    @pytest.mark.parametrize("where", GRANTS)
    def test_of_readers(self, app: Any, where: str) -> None:
        first, second = attach_all(app, b"one", b"two")
        grant(app, where, "read")
        assert names(app, headers=BOB) == ["two.txt"]
        assert self.statuses(app, first) == [200, 404, 403, 403]
        assert self.statuses(app, second) == [200, 200, 403, 403]

    @pytest.mark.parametrize("where", GRANTS)
    def test_of_readers_who_may_read_all(self, build: Build, where: str) -> None:
        app = build(versions_permission="read", **KEEPING)
        first, _ = attach_all(app, b"one", b"two")
        grant(app, where, "read")
        assert names(app, headers=BOB) == ["two.txt", "one.txt"]
        assert self.statuses(app, first) == [200, 200, 403, 403]

    @pytest.mark.parametrize("where", GRANTS)
    def test_of_writers(self, app: Any, where: str) -> None:
        first, _ = attach_all(app, b"one", b"two")
        grant(app, where, "write")
        assert names(app, headers=BOB) == ["two.txt", "one.txt"]
        assert self.statuses(app, first) == [200, 200, 412, 412]
        restore(app, first, headers=BOB)
        delete(app, versions(app)[1]["id"], headers=BOB)

    def test_of_those_who_may_create_records(self, app: Any) -> None:
        first, _ = attach_all(app, b"one", b"two")
        grant(app, "collection", "record:create")
        assert self.statuses(app, first) == [403] * 4
        app.delete(RECORD, headers=ALICE)
        assert self.statuses(app, first) == [403] * 4

    @pytest.mark.parametrize("where", GRANTS)
    @pytest.mark.parametrize("permission", ["read", "write"])
    def test_on_a_deleted_record(self, build: Build, where: str, permission: str) -> None:
        app = build(versions_permission="read", **KEEPING)
        first, _ = attach_all(app, b"one", b"two")
        grant(app, where, permission)
        app.delete(RECORD, headers=ALICE)
        if where == "record":
            assert self.statuses(app, first) == [403] * 4
        elif permission == "read":
            assert self.statuses(app, first) == [404, 404, 403, 403]
        else:
            assert self.statuses(app, first) == [200, 200, 412, 412]
            restore(app, first, headers=BOB, status=201)
            assert app.get(RECORD, headers=BOB).json["permissions"]["write"] == [userid(app, BOB)]

    def test_of_the_namesake_of_a_deleted_record(self, app: Any) -> None:
        first, _ = attach_all(app, b"one", b"two")
        grant(app, "collection", "record:create")
        app.delete(RECORD, headers=ALICE)
        attach(app, content=b"of bob", headers=BOB)
        assert names(app, headers=BOB) == ["notes.txt"]
        assert self.statuses(app, first) == [200, 404, 412, 412]
        restore(app, first, headers=BOB, status=404)
        delete(app, first, headers=BOB, status=404)

    @pytest.mark.parametrize("rule", ["write", "read"])
    def test_hold_for_locations(self, build: Build, rule: str) -> None:
        app = build(versions_permission=rule, **KEEPING)
        attach_all(app, b"one")
        old = attachment_of(app)["location"]
        attach_all(app, b"two")
        grant(app, "record", "read")
        status = 200 if rule == "read" else 404
        app.get(old, headers=BOB, status=status)
        app.get(old, headers=ALICE, status=200)
        app.get(attachment_of(app)["location"], headers=BOB, status=200)
        grant(app, "record", "write")
        app.get(old, headers=BOB, status=200)

    @pytest.mark.parametrize("rule", ["write", "read"])
    def test_hold_for_locations_that_other_records_have(self, build: Build, rule: str) -> None:
        """Links to a file work for readers of any record whose current file it is."""
        app = build(versions_permission=rule, **KEEPING)
        attach_all(app, b"one")
        location = attachment_of(app)["location"]
        app.post_json(f"{OTHER}/attachment", {"copy_from": RECORD}, headers=ALICE)
        attach_all(app, b"two")
        app.get(location, headers=BOB, status=404)
        body = {"permissions": {"read": [userid(app, BOB)]}}
        app.patch_json(OTHER, body, headers=ALICE)
        assert read(app, location, BOB) == b"one"
        attach_all(app, b"three", record=OTHER)
        app.get(location, headers=BOB, status=200 if rule == "read" else 404)

    def test_hold_for_no_location_of_a_public_file(self, build: Build) -> None:
        app = build(public="true", **KEEPING)
        attach_all(app, b"one")
        location = attachment_of(app)["location"]
        attach_all(app, b"two")
        assert read(app, location, ANONYMOUS) == b"one"
        app.get(VERSIONS, headers=ANONYMOUS, status=401)

    def test_of_a_bucket_s_own_setting(self, build: Build) -> None:
        app = build(**KEEPING, **{"resources.b.c.versions_permission": "read"})
        attach_all(app, b"one", b"two")
        grant(app, "record", "read")
        assert names(app, headers=BOB) == ["two.txt", "one.txt"]

    def test_in_a_batch(self, app: Any) -> None:
        first, _ = attach_all(app, b"one", b"two")
        parts = [
            ("GET", VERSIONS),
            ("HEAD", f"{VERSIONS}/{first}"),
            ("POST", f"{VERSIONS}/{first}/restore"),
            ("DELETE", f"{VERSIONS}/{first}"),
        ]
        assert batch(app, *parts, headers=BOB) == [403] * 4
        grant(app, "record", "read")
        assert batch(app, *parts, headers=BOB) == [200, 404, 403, 403]
        grant(app, "record", "write")
        assert batch(app, *parts, headers=BOB) == [200, 200, 200, 409]

    def test_where_the_collection_does_not_exist(self, app: Any) -> None:
        url = f"{BUCKET}/collections/none/records/r/attachment/versions"
        for headers, status in ((ALICE, 404), (BOB, 403), (ANONYMOUS, 401)):
            app.get(url, headers=headers, status=status)
            app.post(f"{url}/x/restore", headers=headers, status=status)
            app.delete(f"{url}/x", headers=headers, status=status)

    @ON_POSTGRESQL
    def test_of_a_readonly_server(self, build: Build) -> None:
        first, _ = attach_all(build(**KEEPING), b"one", b"two")
        app = build({"readonly": "true"}, **KEEPING)
        assert app.get(f"{VERSIONS}/{first}", headers=ALICE).body == b"one"
        assert restore(app, first, status="*").status_int in (404, 405)
        assert delete(app, first, status="*").status_int in (404, 405)


@ON_DATABASES
class TestDefaultBucket:
    @pytest.mark.parametrize("included", ["", "kinto_attachment"])
    def test_has_versions(self, build: Build, included: str) -> None:
        app = build({"included_first": included} if included else {}, **KEEPING)
        first, second = attach_all(app, b"one", b"two", record=DEFAULT)
        assert names(app, DEFAULT) == ["two.txt", "one.txt"]
        restore(app, first, DEFAULT)
        assert read(app, f"{DEFAULT}/attachment") == b"one"
        assert read(app, f"{DEFAULT}/attachment/versions/{second}") == b"two"
        delete(app, second, DEFAULT, status=204)
        app.delete(DEFAULT, headers=ALICE)
        restore(app, first, DEFAULT, status=201)
        for path in (f"{DEFAULT}/attachment/versions", f"{DEFAULT}/attachment/versions/{first}"):
            app.get(path, headers=ANONYMOUS, status=401)
            app.get(path, headers=BOB, status=404)

    def test_makes_no_collection_for_versions(self, build: Build) -> None:
        app = build(**KEEPING)
        url = f"{DEFAULT}/attachment/versions"
        app.get(url, headers=ALICE, status=404)
        app.post(f"{url}/x/restore", headers=ALICE, status=404)
        app.delete(f"{url}/x", headers=ALICE, status=404)
        assert app.get("/buckets", headers=ALICE).json["data"] == [
            app.get(BUCKET, headers=ALICE).json["data"]
        ]

    def test_in_a_batch(self, build: Build) -> None:
        app = build(**KEEPING)
        first, _ = attach_all(app, b"one", b"two", record=DEFAULT)
        url = f"{DEFAULT}/attachment/versions"
        assert batch(app, ("GET", url), ("POST", f"{url}/{first}/restore")) == [200, 200]
        assert read(app, f"{DEFAULT}/attachment") == b"one"


class TestAnswers:
    def test_of_uploads_name_the_version(self, app: Any) -> None:
        first = attach(app)
        uploads = (
            lambda: first,
            lambda: put_raw(app, content=b"raw"),
            lambda: restore(app, first.headers["Attachment-Version"]),
        )
        for upload in uploads:
            answer = upload()
            assert answer.headers["Attachment-Version"] == versions(app)[0]["id"]
        new = post_form_to(app, f"{COLLECTION}/attachments", Part("attachment", b"new", "new.txt"))
        record = f"{COLLECTION}/records/{new.json['data']['id']}"
        assert new.headers["Attachment-Version"] == versions(app, record)[0]["id"]

    def test_are_the_same_where_nothing_is_kept(self, build: Build) -> None:
        app = build()
        (first,) = attach_all(app, b"one")
        assert [each["id"] for each in versions(app)] == [first]
        (second,) = attach_all(app, b"two")
        assert [each["id"] for each in versions(app)] == [second]
        assert len(stored_files(app)) == 1

    def test_capability(self, app: Any) -> None:
        assert app.get("/").json["capabilities"]["attachments"]["versions"] is True
