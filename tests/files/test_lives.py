"""Kept files belong to the life of a record, not to its name: namesakes cannot read them.

The tests combine the ways in which a life ends with the namesakes that others then create.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import transaction

from kinto_attachment.maintenance.gc import gc
from tests.support import lingering, sampling
from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    BUCKET,
    COLLECTION,
    OTHER,
    RECORD,
    attach,
    links_of,
    put,
    put_collection,
    put_raw,
    read,
    stored_files,
)
from tests.support.backends import ON_DATABASES, Build

pytestmark = ON_DATABASES

EVERYONE = {"read": ["system.Everyone"]}
# Bob may create the same objects as alice. A record's permissions are deleted with it.
OPEN = {"record:create": ["system.Authenticated"]}
OPEN_BUCKET = {"collection:create": ["system.Authenticated"]}


def delete(*paths: str) -> Callable[[Any], None]:
    def ending(app: Any) -> None:
        for path in paths:
            app.delete(path, headers=ALICE)

    return ending


def batch(*parts: tuple[str, str, Any]) -> Callable[[Any], None]:
    def ending(app: Any) -> None:
        requests = [
            {"method": method, "path": f"/v1{path}", **({"body": body} if body else {})}
            for method, path, body in parts
        ]
        answer = app.post_json("/batch", {"requests": requests}, headers=ALICE)
        assert all(part["status"] < 300 for part in answer.json["responses"])

    return ending


def plugin(*uris: str) -> Callable[[Any], None]:
    def ending(app: Any) -> None:
        assert app.post_json("/withdraw", {"uris": uris}).json == {"deleted": len(uris)}

    return ending


URL = f"{RECORD}/attachment"
UPLOAD = ("PUT", f"{URL}?filename=third.json", {"third": "secret"})
ENDINGS = {
    "record": delete(RECORD),
    "records": delete(f"{COLLECTION}/records"),
    "attachment, then record": delete(URL, RECORD),
    "collection": delete(COLLECTION),
    "collections": delete(f"{BUCKET}/collections"),
    "record, then collection": delete(RECORD, COLLECTION),
    "bucket": delete(BUCKET),
    "buckets": delete("/buckets"),
    "record, then bucket": delete(RECORD, BUCKET),
    "batch: record": batch(("DELETE", RECORD, None)),
    "batch: upload, record": batch(UPLOAD, ("DELETE", RECORD, None)),
    "batch: attachment, record": batch(("DELETE", URL, None), ("DELETE", RECORD, None)),
    "batch: collection": batch(UPLOAD, ("DELETE", COLLECTION, None)),
    "batch: record, collection": batch(("DELETE", RECORD, None), ("DELETE", COLLECTION, None)),
    "batch: bucket": batch(UPLOAD, ("DELETE", BUCKET, None)),
    "plugin: record": plugin(RECORD),
    "plugin: collection": plugin(COLLECTION),
    "plugin: bucket": plugin(BUCKET),
}


def record_only(app: Any) -> bytes | None:
    put(app, RECORD, BOB, data={}, permissions=EVERYONE)
    return None


def record_of_a_list(app: Any) -> bytes | None:
    body = {"data": {"id": "r"}, "permissions": EVERYONE}
    app.post_json(f"{COLLECTION}/records", body, headers=BOB, status=201)
    return None


def upload(app: Any) -> bytes | None:
    attach(app, content=b"of bob", headers=BOB, permissions=EVERYONE, status=201)
    return b"of bob"


def raw_upload_and_replacement(app: Any) -> bytes | None:
    put_raw(app, content=b"of bob", headers=BOB, status=201)
    attach(app, content=b"newer", headers=BOB, permissions=EVERYONE, status=200)
    return b"newer"


def upload_and_removal(app: Any) -> bytes | None:
    upload(app)
    app.delete(URL, headers=BOB, status=204)
    return None


NAMESAKES = (
    record_only,
    record_of_a_list,
    upload,
    raw_upload_and_replacement,
    upload_and_removal,
)


@pytest.fixture(params=["keep_old_files", "linger"])
def rule(request: pytest.FixtureRequest) -> dict[str, str]:
    """A setting with which files outlive their record."""
    return {request.param: {"keep_old_files": "true", "linger": "1h"}[request.param]}


@pytest.fixture
def app(build: Build, rule: dict[str, str]) -> Any:
    app = build({"includes": "tests.support.publishing"}, **rule)
    make_parents(app, ALICE)
    yield app
    lingering.end(app)


def make_parents(app: Any, headers: dict[str, str]) -> None:
    """Create bucket and collection; existing ones keep their owners."""
    for uri, permissions in ((BUCKET, OPEN_BUCKET), (COLLECTION, OPEN)):
        there = app.get(uri, headers=ALICE, status="*")
        if there.status_int != 200 or headers is ALICE:
            put(app, uri, headers, data={}, permissions=permissions)


def assert_unreadable(app: Any, keys: set[str], content: bytes | None) -> None:
    """Check that nobody can read these files, and the record's file is ``content`` or none."""
    for key in keys:
        path = f"/attachments/{key}"
        app.get(path, headers=BOB, status=404)
        app.get(path, headers=ALICE, status=404)
        app.head(path, headers=ANONYMOUS, status=401)
    if content is None:
        app.get(URL, headers=BOB, status=404)
        app.head(URL, headers=BOB, status=404)
    else:
        assert read(app, headers=BOB) == content


def collect(app: Any) -> None:
    report = gc(
        app.app.registry, grace=timedelta(seconds=-1), orphan_age=timedelta(0), pause=timedelta(0)
    )
    assert not report.errors + report.unlinked + report.dangling


def some_namesakes(name: str) -> tuple[Callable[[Any], bytes | None], ...]:
    """Two or three namesakes, chosen by the ``name`` of the case; all in tests-all."""
    one_in = sampling.one_in(2)
    return NAMESAKES[sampling.start(name, one_in) :: one_in]


@sampling.sampled(3, "backends", "rule", "end")
@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)
def test_namesakes_see_nothing_of_what_was_there(
    app: Any, end: Callable[[Any], None], request: pytest.FixtureRequest
) -> None:
    for content in (b"secret", b"newer secret"):
        attach(app, content=content)
    end(app)
    keys = stored_files(app)
    assert len(keys) >= 2
    namesakes = some_namesakes(request.node.name)
    for namesake in namesakes:
        before = stored_files(app)
        make_parents(app, BOB)
        content = namesake(app)
        is_last = namesake is namesakes[-1]
        # The last one does not see the files of the earlier ones, either.
        assert_unreadable(app, before if is_last else keys, content)
        if is_last:
            collect(app)
        assert before <= stored_files(app)
        app.delete(RECORD, headers=BOB)


@pytest.mark.parametrize(
    "end", [RECORD, COLLECTION, BUCKET], ids=["record", "collection", "bucket"]
)
def test_public_files_of_an_ended_life_are_served_to_nobody(build: Build, end: str) -> None:
    app = build(keep_old_files="true", public="true")
    make_parents(app, ALICE)
    for content in (b"first", b"second"):
        attach(app, content=content)
    for key in stored_files(app):
        assert app.get(f"/attachments/{key}", headers=ANONYMOUS).status_int == 200
    app.delete(end, headers=ALICE)
    for key in stored_files(app):
        for headers in (ALICE, ANONYMOUS):
            app.get(f"/attachments/{key}", headers=headers, status=404)
    make_parents(app, BOB)
    put(app, RECORD, BOB, permissions=EVERYONE)
    for key in stored_files(app):
        app.get(f"/attachments/{key}", headers=ANONYMOUS, status=404)


def test_a_default_bucket_of_that_id_shows_nothing(build: Build) -> None:
    """Users may create a bucket with the id of another user's default bucket."""
    app = build(keep_old_files="true")
    record = "/buckets/default/collections/c/records/r"
    for content in (b"first", b"second"):
        attach(app, record, content=content)
    bucket = app.get("/buckets/default", headers=ALICE).json["data"]["id"]
    app.delete("/buckets/default", headers=ALICE)
    keys = stored_files(app)
    assert len(keys) == 2
    put_collection(app, f"/buckets/{bucket}/collections/c", headers=BOB)
    put(app, record.replace("default", bucket), BOB, permissions=EVERYONE)
    for key in keys:
        app.get(f"/attachments/{key}", headers=BOB, status=404)
        app.get(f"/attachments/{key}", headers=ALICE, status=404)


def test_a_flush_leaves_nothing(build: Build) -> None:
    app = build(keep_old_files="true")
    for content in (b"first", b"second"):
        attach(app, content=content)
    app.delete(RECORD, headers=ALICE)
    app.post("/__flush__", headers=ALICE, status=202)
    assert not stored_files(app)


def test_the_file_of_a_record_that_is_made_again_in_one_batch_stays(build: Build) -> None:
    """Kinto groups its events by action, and the deletion comes last."""
    app = build()
    attach(app)
    batch(
        ("PUT", OTHER, {"data": {}}),
        ("DELETE", RECORD, None),
        ("PUT", f"{URL}?filename=new.json", {"new": 1}),
    )(app)
    assert read(app) == b'{"new":1}'
    (link,) = links_of(app)
    assert {link.key} == stored_files(app)


def test_a_record_that_is_made_again_in_one_batch_begins_a_new_life(app: Any) -> None:
    for content in (b"first", b"second"):
        attach(app, content=content)
    keys = stored_files(app)
    batch(
        ("PUT", OTHER, {"data": {}}),  # Kinto reorders events: the creations come first.
        ("DELETE", RECORD, None),
        ("PUT", f"{URL}?filename=new.json", {"new": 1}),
        ("PATCH", RECORD, {"permissions": EVERYONE}),
    )(app)
    assert read(app, headers=ANONYMOUS) == b'{"new":1}'
    for key in keys:
        app.get(f"/attachments/{key}", headers=ALICE, status=404)
        app.get(f"/attachments/{key}", headers=ANONYMOUS, status=401)
    with transaction.manager:
        links = app.app.registry.attachment_links.of_record(RECORD)
    assert {link.key for link in links if not link.ended} == stored_files(app) - keys


def test_files_of_a_living_record_stay_readable(build: Build) -> None:
    app = build(keep_old_files="true")
    for content in (b"first", b"second"):
        attach(app, content=content)
    first_keys = stored_files(app)
    app.delete(URL, headers=ALICE)
    put(app, RECORD, data={"title": "without"})
    attach(app, content=b"third")
    for key in first_keys:
        assert app.get(f"/attachments/{key}", headers=ALICE).status_int == 200
    with transaction.manager:
        links = app.app.registry.attachment_links.of_record(RECORD)
    assert len({link.life for link in links}) == 1
    by_age = sorted(links, key=lambda link: link.attached)
    assert [link.state for link in by_age] == ["kept", "kept", "current"]


def test_lives_of_one_record_stay_apart(build: Build) -> None:
    app = build(keep_old_files="true")
    for _ in range(3):
        attach(app)
        attach(app)
        app.delete(RECORD, headers=ALICE)
    app.delete(COLLECTION, headers=ALICE)
    put_collection(app)
    attach(app)
    with transaction.manager:
        links = app.app.registry.attachment_links.of_record(RECORD)
    lives = Counter((link.life, link.ended) for link in links)
    assert sorted(lives.values()) == [1, 2, 2, 2]
    assert Counter(ended for _, ended in lives) == {"collection": 3, "": 1}


@pytest.mark.parametrize("end", [RECORD, COLLECTION])
def test_what_was_kept_before_is_not_deleted_with_a_namesake(build: Build, end: str) -> None:
    """Even if the setting no longer keeps old files."""
    keeping = build(keep_old_files="true")
    attach(keeping)
    keys = stored_files(keeping)
    keeping.delete(end, headers=ALICE)
    app = build()
    put_collection(app)
    attach(app, content=b"new")
    app.delete(end, headers=ALICE)
    assert stored_files(app) == keys
