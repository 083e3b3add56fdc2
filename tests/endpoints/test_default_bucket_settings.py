"""``resources.default``: settings for all default buckets, under either of their names."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from kinto_attachment.files import collection_settings
from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    BUCKET,
    CONTENT,
    DEFAULT,
    RECORD,
    SETTINGS,
    Headers,
    attach,
    attachment_of,
    clear,
    key_of,
    put,
    put_raw,
    stored_files,
    userid,
)
from tests.support.backends import ON_DATABASES, ON_MEMORY, ON_POSTGRESQL, Build

LIMITED = {"resources.default.max_size": 10}
LONG = b"more than ten bytes"
UPLOADS = pytest.mark.parametrize("upload", [attach, put_raw])


def real(app: Any, path: str = DEFAULT, headers: Headers = ALICE) -> str:
    """The path with the id of the default bucket."""
    bucket = app.get("/", headers=headers).json["user"]["bucket"]
    return path.replace("/default", f"/{bucket}", 1)


def give_to_bob(app: Any) -> str:
    """Let Bob write Alice's default bucket; returns its URI."""
    put(app, "/buckets/default", permissions={"write": [userid(app, BOB)]})
    put(app, "/buckets/default/collections/c")
    return real(app, "/buckets/default")


def shut_alice_out(app: Any, bucket: str) -> None:
    """Remove Alice's permissions, which every user who may write a bucket can do."""
    put(app, bucket, headers=BOB, permissions={"write": []})
    assert app.get(bucket, headers=BOB).json["permissions"] == {"write": [userid(app, BOB)]}
    app.get(bucket, headers=ALICE, status=403)


@ON_DATABASES
@UPLOADS
class TestHold:
    def test_under_either_name(self, build: Build, upload: Any) -> None:
        app = build(**LIMITED)
        upload(app, DEFAULT, content=b"short", status=201)
        upload(app, DEFAULT, content=LONG, status=413)
        upload(app, real(app), content=b"short", status=200)
        upload(app, real(app), content=LONG, status=413)

    def test_for_the_first_file_ever(self, build: Build, upload: Any) -> None:
        upload(build(**LIMITED), DEFAULT, content=LONG, status=413)

    def test_for_those_who_were_given_it(self, build: Build, upload: Any) -> None:
        app = build(**LIMITED)
        give_to_bob(app)
        upload(app, real(app), content=LONG, headers=BOB, status=413)
        upload(app, real(app), content=b"short", headers=BOB, status=201)

    def test_for_groups_and_everybody(self, build: Build, upload: Any) -> None:
        app = build(**LIMITED)
        bucket = real(app, "/buckets/default")
        upload(app, DEFAULT, content=b"short")
        group = f"{bucket}/groups/friends"
        put(app, group, data={"members": [userid(app, BOB)]})
        for writer, headers in ((group, BOB), ("system.Everyone", ANONYMOUS)):
            app.patch_json(bucket, {"permissions": {"write": [writer]}}, headers=ALICE)
            upload(app, real(app), content=LONG, headers=headers, status=413)
            upload(app, real(app), content=b"short", headers=headers, status=200)

    def test_for_those_who_were_given_a_record(self, build: Build, upload: Any) -> None:
        app = build(**LIMITED)
        put(app, DEFAULT, permissions={"write": [userid(app, BOB)]})
        upload(app, real(app), content=LONG, headers=BOB, status=413)

    def test_where_the_owner_was_shut_out(self, build: Build, upload: Any) -> None:
        app = build(**LIMITED)
        shut_alice_out(app, give_to_bob(app))
        upload(app, real(app), content=LONG, headers=BOB, status=413)
        upload(app, real(app), content=b"short", headers=BOB, status=201)

    @pytest.mark.one_way  # Kinto chooses a short id that looks like a word.
    def test_in_no_other_bucket(self, build: Build, upload: Any) -> None:
        app = build(**LIMITED)
        upload(app, RECORD, content=LONG)
        random = app.post_json("/buckets", {}, headers=ALICE).json["data"]["id"]
        put(app, f"/buckets/{random}/collections/c")
        upload(app, RECORD.replace(BUCKET, f"/buckets/{random}"), content=LONG)
        app.delete("/buckets", headers=ALICE)
        assert not stored_files(app)

    def test_not_in_what_somebody_else_made_under_the_id(self, build: Build, upload: Any) -> None:
        app = build(**LIMITED)
        put(app, real(app, "/buckets/default"), headers=BOB)
        put(app, real(app, "/buckets/default/collections/c"), headers=BOB)
        upload(app, real(app), content=LONG, headers=BOB)

    def test_in_a_batch(self, build: Build, upload: Any) -> None:
        app = build(**LIMITED)
        put(app, "/buckets/default", permissions={"write": [userid(app, BOB)]})
        for record, headers in ((DEFAULT, ALICE), (real(app), BOB)):
            requests = [
                {"method": "PUT", "path": f"/v1{record}/attachment?filename=a.json", "body": body}
                for body in ({"n": "more than ten bytes"}, {"n": 1})
            ]
            answer = app.post_json("/batch", {"requests": requests}, headers=headers)
            statuses = [part["status"] for part in answer.json["responses"]]
            assert statuses in ([413, 201], [413, 200])
        upload(app, real(app), content=LONG, headers=BOB, status=413)


@ON_POSTGRESQL
@UPLOADS
def test_hold_in_buckets_from_before(build: Build, upload: Any) -> None:
    """In those created when no setting named ``default``, after they were written to."""
    before = build()
    bucket = give_to_bob(before)
    upload(before, DEFAULT, content=LONG)
    app = build(**LIMITED)
    upload(app, real(app), content=LONG, headers=BOB, status=413)
    upload(app, real(app), content=b"short", headers=BOB, status=200)
    shut_alice_out(app, bucket)
    upload(app, real(app), content=LONG, headers=BOB, status=413)


@ON_MEMORY
class TestOptions:
    """Each option that can be set for a bucket."""

    def test_the_narrowest_wins(self, build: Build) -> None:
        bucket = real(build(), "/default").strip("/")
        app = build(
            **{
                "max_size": 1,
                "resources.default.max_size": 2,
                f"resources.{bucket}.max_size": 3,
                "resources.default.c.max_size": 4,
                f"resources.{bucket}.d.max_size": 5,
                "resources.default.d.max_size": 1,
            }
        )
        in_ = "/buckets/default/collections/{}/records/r"
        for headers, collection, limit in (
            (ALICE, "c", 4), (ALICE, "d", 5), (ALICE, "e", 3),
            (BOB, "c", 4), (BOB, "d", 1), (BOB, "e", 2),
        ):  # fmt: skip
            record = in_.format(collection)
            attach(app, record, content=b"x" * (limit + 1), headers=headers, status=413)
            attach(app, record, content=b"x" * limit, headers=headers, status=201)
        attach(app, content=b"x", status=201)
        attach(app, content=b"xx", status=413)

    def test_names_and_types(self, build: Build) -> None:
        app = build(
            **{
                "resources.default.randomize": "false",
                "resources.default.folder": "own/{collection_id}",
                "resources.default.extensions": "exe",
                "resources.default.mimetypes": ".exe:application/x-own",
                "resources.default.inline_types": "application/x-own",
            }
        )
        give_to_bob(app)
        attach(app, DEFAULT, filename="a.txt", status=400)
        attach(app, filename="a.exe", status=400)
        for headers, record in ((ALICE, DEFAULT), (BOB, real(app))):
            attachment = attach(app, record, filename="a.exe", headers=headers).json
            assert key_of(attachment) in ("own/c/a.exe", "own/c/a-1.exe")
            assert attachment["mimetype"] == "application/x-own"
            for url in (f"{real(app)}/attachment", attachment["location"]):
                answer = app.head(url, headers=BOB)
                assert answer.headers["Content-Disposition"].startswith("inline")

    def test_gzipped(self, build: Build) -> None:
        app = build(**{"resources.default.c.gzipped": "true"})
        give_to_bob(app)
        for headers, record in ((ALICE, DEFAULT), (BOB, real(app))):
            assert attach(app, record, headers=headers).json["original"]["size"] == len(CONTENT)


KEEPING = {"resources.default.keep_old_files": "true"}


@ON_DATABASES
class TestKeepOldFiles:
    @pytest.fixture
    def app(self, build: Build) -> Any:
        app = build(**KEEPING)
        give_to_bob(app)
        attach(app, DEFAULT)
        assert len(stored_files(app)) == 1
        return app

    @pytest.mark.parametrize("who", [ALICE, BOB])
    def test_on_replacement(self, app: Any, who: Headers) -> None:
        attach(app, real(app), content=b"new", headers=who, status=200)
        app.delete(f"{real(app)}/attachment", headers=who)
        assert attachment_of(app, DEFAULT) is None
        assert len(stored_files(app)) == 2

    @pytest.mark.parametrize("who", [ALICE, BOB])
    @pytest.mark.parametrize(
        "path",
        [
            DEFAULT,
            "/buckets/default/collections/c/records",
            "/buckets/default/collections/c",
            "/buckets/default/collections",
            "/buckets/default",
        ],
    )
    def test_on_deletion(self, app: Any, who: Headers, path: str) -> None:
        app.delete(real(app, path), headers=who)
        assert len(stored_files(app)) == 1

    def test_of_a_bucket_by_who_shut_its_owner_out(self, app: Any) -> None:
        bucket = real(app, "/buckets/default")
        shut_alice_out(app, bucket)
        app.delete(bucket, headers=BOB)
        assert len(stored_files(app)) == 1

    def test_of_all_buckets(self, app: Any) -> None:
        app.delete("/buckets", headers=BOB)
        app.get(real(app, "/buckets/default"), headers=ALICE, status=403)
        assert len(stored_files(app)) == 1

    def test_a_bucket_made_anew_by_another_user_is_none(self, app: Any) -> None:
        bucket = real(app, "/buckets/default")
        app.delete(bucket, headers=ALICE)
        kept = stored_files(app)
        put(app, bucket, headers=BOB)
        put(app, f"{bucket}/collections/c", headers=BOB)
        attach(app, real(app), headers=BOB)
        app.delete(bucket, headers=BOB)
        assert stored_files(app) == kept  # The new bucket's file is deleted.


@ON_POSTGRESQL
@pytest.mark.parametrize("who", [ALICE, BOB])
def test_old_files_are_kept_of_buckets_from_before(build: Build, who: Headers) -> None:
    before = build()
    give_to_bob(before)
    attach(before, DEFAULT)
    app = build(**KEEPING)
    app.delete(real(app, "/buckets/default"), headers=who)
    assert len(stored_files(app)) == 1


@ON_MEMORY
def test_without_the_plugin_default_is_a_name(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    includes = SETTINGS["includes"].replace("kinto.plugins.default_bucket", "")
    monkeypatch.setitem(SETTINGS, "includes", includes)
    app = build({"project_name": "without the default bucket"}, **LIMITED)
    put(app, "/buckets/default")
    put(app, "/buckets/default/collections/c")
    attach(app, DEFAULT, content=LONG, status=413)
    attach(app, DEFAULT, content=b"short", status=201)
    location = attachment_of(app, DEFAULT)["location"]
    assert app.get(location, headers=ALICE).body == b"short"
    attach(app, content=LONG, status=201)


@ON_MEMORY
@pytest.mark.parametrize(
    ("options", "expected"), [({}, 0), ({"resources.b.max_size": 100}, 0), (LIMITED, 1)]
)
def test_is_looked_up_where_it_is_set_only(
    build: Build, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], expected: int
) -> None:
    app = build(**options)
    bucket = give_to_bob(app)
    permission = app.app.registry.permission
    asked: list[str] = []
    get = permission.get_object_permission_principals

    def watched(object_id: str, permission: str) -> Any:
        if (
            sys._getframe(1).f_globals["__name__"] == collection_settings.__name__
        ):  # Kinto asks as well.
            asked.append(object_id)
        return get(object_id, permission)

    monkeypatch.setattr(permission, "get_object_permission_principals", watched)
    app.app.registry.storage.delete_all("attachment-default-bucket", "*")  # As if from before.
    attach(app, f"{bucket}/collections/c/records/r", content=b"short", headers=BOB)
    attach(app, RECORD, content=b"short")
    assert asked == [bucket] * expected
    clear(app)
