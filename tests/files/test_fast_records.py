"""Records written without a sub-request: only the time they take is different."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kinto.core.events import ResourceChanged
from kinto.core.storage.memory import Storage as MemoryStorage
from pyramid.httpexceptions import HTTPConflict, HTTPForbidden
from pyramid.interfaces import IRoutesMapper

from kinto_attachment import AttachmentAdded
from kinto_attachment.files import fast_records
from kinto_attachment.index import tested_versions
from kinto_attachment.index.outbox import Outbox
from kinto_attachment.index.overviews import SeparateOverviews
from kinto_attachment.index.replacements import SeparateReplacements
from tests.support.application import (
    ALICE,
    BOB,
    BUCKET,
    COLLECTION,
    CONTENT,
    OTHER,
    RECORD,
    Part,
    attach,
    clear,
    form,
    on_event,
    outbox,
    put,
    put_raw,
    send,
    stored_content,
    stored_files,
    userid,
)
from tests.support.backends import (
    ON_DATABASES,
    ON_MEMORY,
    ON_OBJECT_STORES,
    ON_POSTGRESQL,
    Build,
)
from tests.support.interruptions import Meanwhile, failing_deletes
from tests.support.observed import subrequests
from tests.support.statements import before_statement

pytestmark = ON_DATABASES

URL = f"{RECORD}/attachment"
GROUP = f"{BUCKET}/groups/editors"
SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "attachment": {"type": "object"}},
}

Action = Callable[[Any], list[Any]]


def upload(app: Any, **options: Any) -> Any:
    return attach(app, **{"status": "*", "content": b"new", **options})


def new(app: Any, **options: Any) -> list[Any]:
    """Upload to a record that does not exist, and then to another one."""
    return [upload(app, **options), upload(app, record=OTHER)]


def replaced(app: Any, **options: Any) -> list[Any]:
    first = attach(app, data={"title": "before"}, permissions={"read": ["system.Everyone"]})
    return [first, upload(app, **options), upload(app, filename="again.txt")]


def both(**options: Any) -> dict[str, Action]:
    """The same action for a record that does not exist, and for one that does."""
    return {
        "new": lambda app: new(app, **options),
        "replaced": lambda app: replaced(app, **options),
    }


def raw(app: Any) -> list[Any]:
    return [put_raw(app), put_raw(app, content=b"new"), put_raw(app, content=b"", status="*")]


def of_plain_record(app: Any) -> list[Any]:
    put(app, RECORD, data={"title": "before", "nested": {"a": [1, None, 2.5]}})
    return [upload(app, data={"nested": {"b": 1}}), upload(app)]


def after_deletion(app: Any) -> list[Any]:
    attach(app)
    app.delete(RECORD, headers=ALICE)
    return [upload(app), app.delete(URL, headers=ALICE), upload(app)]


def with_schema(data: Any) -> Action:
    def action(app: Any) -> list[Any]:
        attach(app, data={"title": "before"})
        put(app, COLLECTION, data={"schema": SCHEMA})
        return [upload(app, data=data), upload(app, record=OTHER, data=data)]

    return action


def if_match(value: str) -> Action:
    def action(app: Any) -> list[Any]:
        etag = attach(app, data={"title": "before"}).headers["ETag"]
        headers = {**ALICE, "If-Match": etag if value == "etag" else value}
        return [upload(app, headers=headers), upload(app, record=OTHER, headers=headers)]

    return action


def if_none_match(value: str) -> Action:
    def action(app: Any) -> list[Any]:
        headers = {**ALICE, "If-None-Match": value}
        first = upload(app, headers=headers)
        return [first, upload(app, headers=headers), put_raw(app, headers=headers, status="*")]

    return action


def by_bob(permission: str, uri: str, *, anonymous: bool = False) -> Action:
    def action(app: Any) -> list[Any]:
        attach(app, record=RECORD)
        who = "system.Everyone" if anonymous else userid(app, BOB)
        app.patch_json(uri, {"permissions": {permission: [who]}}, headers=ALICE)
        headers = {} if anonymous else BOB
        return [
            upload(app, headers=headers),
            upload(app, record=OTHER, headers=headers, permissions={"write": ["x"]}),
        ]

    return action


def meanwhile(
    prepare: Callable[[Any], object], act: Callable[[Any], object], user: Any = ALICE
) -> Action:
    """Call a function while the body arrives."""

    def action(app: Any) -> list[Any]:
        prepare(app)
        body, content_type = form(
            Part("attachment", CONTENT, "notes.txt"), Part("data", json.dumps({"title": "mine"}))
        )
        headers = {**user, "Content-Type": content_type}
        watched = Meanwhile(body, lambda: act(app))
        return [
            send(app, "POST", URL, watched, length=len(body), headers=headers, status="*"),
            app.get(RECORD, headers=ALICE, status="*"),
        ]

    return action


def nothing(app: Any) -> None:
    pass


def grant_group(app: Any) -> None:
    put(app, GROUP, data={"members": [userid(app, BOB)]})
    app.patch_json(COLLECTION, {"permissions": {"write": [GROUP]}}, headers=ALICE)


def withdraw_group(app: Any) -> None:
    put(app, GROUP, data={"members": []})


def lock(app: Any) -> None:
    app.patch_json(COLLECTION, {"data": {"attachment": {"locked": True}}}, headers=ALICE)


def patch(app: Any) -> None:
    app.patch_json(RECORD, {"data": {"title": "theirs", "more": 1}}, headers=ALICE)


def delete(app: Any) -> None:
    app.delete(RECORD, headers=ALICE)


def put_schema(app: Any) -> None:
    put(app, COLLECTION, data={"schema": {"type": "object", "required": ["name"]}})


def listener(error: Exception | None, times: int = 1) -> Action:
    """Another plugin fails, or changes the response."""

    def action(app: Any) -> list[Any]:
        attach(app, data={"title": "before"})
        left = itertools.count()

        def act(event: Any) -> None:
            if error is not None and next(left) < times:
                raise error
            for impacted in event.impacted_objects:
                impacted["new"]["seen"] = True

        on_event(app, ResourceChanged, act)
        answers = [upload(app), upload(app, record=OTHER), app.get(RECORD, headers=ALICE)]
        if error is not None:
            clear(app)  # A memory backend does not roll back.
        return answers

    return action


CASES: dict[str, Action] = {
    **{
        f"{name}, {what}": action
        for name, options in {
            "plain": {},
            "data": {"data": {"title": "ü", "number": 1.5, "nothing": None, "id": "r"}},
            "another id": {"data": {"id": "other-id"}},
            "later": {"data": {"last_modified": 1999999999999}},
            "earlier": {"data": {"last_modified": 1700000000000}},
            "bad time": {"data": {"last_modified": "now"}},
            "data that are no object": {"data": []},
            "broken data": {"data": "{"},
            "metadata": {"data": {"attachment": {"location": "x"}}},
            "large numbers": {"data": {"a": 2**70, "b": -0.0, "c": 1e300}},
            "odd text": {"data": '{"a": "\\ud800", "b\\u0000": "\\u0000"}'},
            "permissions": {"permissions": {"read": ["system.Everyone"], "write": ["b", "a"]}},
            "no permissions": {"permissions": {"read": [], "write": []}},
            "null permissions": {"permissions": {"read": None}},
            "unknown permissions": {"permissions": {"fly": ["a"]}},
            "permissions of other types": {"permissions": {"read": "a"}},
            "both": {"data": {"title": "x"}, "permissions": {"write": ["a"]}},
            "headers": {
                "headers": {
                    **ALICE,
                    "Response-Behavior": "diff",
                    "Accept": "text/html",
                    "Accept-Language": "de",
                    "Content-MD5": "x",
                    "X-Other": "y",
                }
            },
            "an origin": {"headers": {**ALICE, "Origin": "http://example.org"}},
            "anonymous": {"headers": {}},
        }.items()
        for what, action in both(**options).items()
    },
    "raw": raw,
    "plain record": of_plain_record,
    "after deletion": after_deletion,
    "schema": with_schema({"title": "x"}),
    "schema failed": with_schema({"title": 1}),
    **{f"If-Match {value}": if_match(value) for value in ("etag", "*", '"1"', "x", "")},
    **{f"If-None-Match {value}": if_none_match(value) for value in ("*", '"1"', "x")},
    **{
        f"{permission} on {uri}": by_bob(permission, uri)
        for permission, uri in (
            ("write", RECORD),
            ("read", RECORD),
            ("record:create", COLLECTION),
            ("write", COLLECTION),
            ("write", BUCKET),
        )
    },
    "everybody": by_bob("write", COLLECTION, anonymous=True),
    "appeared": meanwhile(nothing, lambda app: put(app, RECORD, data={"title": "theirs"})),
    "appeared with a file": meanwhile(nothing, attach),
    "vanished": meanwhile(attach, delete),
    "patched": meanwhile(attach, patch),
    "replaced meanwhile": meanwhile(attach, lambda app: attach(app, content=b"theirs")),
    "withdrawn": meanwhile(grant_group, withdraw_group, BOB),
    "withdrawn from a record": meanwhile(
        lambda app: (attach(app), grant_group(app)), withdraw_group, BOB
    ),
    "granted": meanwhile(grant_group, nothing, BOB),
    "locked meanwhile": meanwhile(attach, lock),
    "schema meanwhile": meanwhile(attach, put_schema),
    "collection deleted": meanwhile(attach, lambda app: app.delete(COLLECTION, headers=ALICE)),
    "bucket deleted": meanwhile(nothing, lambda app: app.delete(BUCKET, headers=ALICE)),
    "listener": listener(None),
    "listener that refuses": listener(HTTPForbidden()),
    "listener that conflicts": listener(HTTPConflict()),
}


@pytest.mark.both_ways
@pytest.mark.parametrize("case", list(CASES))
def test_are_as_by_a_sub_request(app: Any, case: str) -> None:
    assert CASES[case](app)


SETTINGS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "without explicit permissions": (
        {
            "explicit_permissions": "false",
            **{
                f"{what}_principals": "system.Authenticated"
                for what in ("bucket_create", "collection_create", "record_create", "record_write")
            },
        },
        {},
    ),
    "behind a name, backoff, origins": (
        {
            "http_scheme": "https",
            "http_host": "files.example:444",
            "backoff": "10",
            "cors_origins": "http://example.org",
        },
        {},
    ),
    "creators by setting": ({"record_create_principals": "system.Everyone"}, {}),
    "writers by setting": ({"record_write_principals": "system.Authenticated"}, {}),
    "versions": ({}, {"keep_old_files": "true"}),
    "lingering": ({}, {"linger": "1h"}),
    "names, compressed, quota": (
        {},
        {"randomize": "false", "gzipped": "true", "quota_bytes": "1G"},
    ),
    "quota exceeded": ({}, {"quota_bytes": "4"}),
    "files exceeded": ({}, {"quota_files": "1"}),
    "held": ({}, {"hold": "1h"}),
    "locked": ({}, {"locked": "true"}),
    "omission": ({}, {"delete_on_omission": "false", "client_metadata": "ignore"}),
}


def some_uploads(app: Any) -> list[Any]:
    bob = {**BOB, "Origin": "http://example.org"}
    return [
        upload(app),
        upload(app, filename="b.txt", data={"title": "x"}),
        put_raw(app, content=b"raw", status="*"),
        upload(app, headers=bob),
        upload(app, record=OTHER, headers=bob),
        app.delete(URL, headers=ALICE, status="*"),
    ]


@ON_MEMORY
@pytest.mark.both_ways
@pytest.mark.parametrize("case", list(SETTINGS))
def test_are_as_by_a_sub_request_with_settings(build: Build, case: str) -> None:
    kinto, own = SETTINGS[case]
    app = build(kinto, **own)
    assert some_uploads(app)
    clear(app)  # Lingering files wait for gc.


NAME = {"data": {"filename": "b.txt"}}
COPY = {"method": "POST", "path": f"/v1{URL}", "body": {"copy_from": OTHER}}
SUB_REQUESTS: dict[str, tuple[Action, list[str]]] = {
    "a new record": (new, []),
    "a replaced file": (replaced, []),
    "raw bytes": (raw, []),
    "a deletion": (lambda app: [attach(app), app.delete(URL, headers=ALICE)], ["PATCH"]),
    "a new name": (
        lambda app: [
            attach(app),
            app.patch_json(URL, {"data": {"filename": "b.txt"}}, headers=ALICE),
        ],
        ["PATCH"],
    ),
    "a batch": (
        lambda app: [app.post_json("/batch", {"requests": [COPY]}, headers=ALICE, status="*")],
        ["POST"],
    ),
    "a record that appeared": (
        meanwhile(nothing, lambda app: put(app, RECORD)),
        ["PUT", "PATCH"],
    ),
}


@pytest.mark.one_way
@ON_MEMORY
@pytest.mark.parametrize("case", list(SUB_REQUESTS))
def test_make_a_sub_request_only_where_one_is_needed(app: Any, case: str) -> None:
    action, expected = SUB_REQUESTS[case]
    with subrequests(app) as made:
        action(app)
    assert [each.split()[0] for each in made] == expected


@pytest.mark.one_way
@ON_POSTGRESQL
def test_kinto_has_the_timestamp_of_the_collection_s_records_stored(app: Any) -> None:
    """Otherwise, two requests that both read it while it is missing would deadlock."""
    with subrequests(app) as made:
        attach(app)
        attach(app)
        attach(app, OTHER)
    assert made == [f"PUT /v1{RECORD}"]


@ON_MEMORY
def test_can_be_switched_off(build: Build) -> None:
    app = build(fast_records="false")
    with subrequests(app) as made:
        attach(app)
    assert made == [f"PUT /v1{RECORD}"]


class OtherBackend(MemoryStorage):
    pass


REPLACED = {
    "the version": lambda patch, _: patch.setattr(tested_versions, "TESTED", ("1.0",)),
    "the storage": lambda patch, app: patch.setattr(app.storage, "__class__", OtherBackend),
    "the policy": lambda patch, _: patch.setattr(fast_records, "AuthorizationPolicy", object),
    "the class": lambda patch, _: patch.setattr(fast_records.kinto_records, "Record", object),
    "the languages": lambda patch, app: patch.setitem(
        app.settings, "available_languages", "en fr"
    ),
    "the views": lambda patch, _: patch.setattr(
        fast_records, "DERIVERS", fast_records.DERIVERS - {"secured_view"}
    ),
    "the methods": lambda patch, app: patch.setattr(
        app.cornice_services[app.queryUtility(IRoutesMapper).get_route("record-object").pattern],
        "definitions",
        [],
    ),
}


@ON_MEMORY
@pytest.mark.parametrize("what", list(REPLACED))
@pytest.mark.one_way
def test_are_not_written_by_a_kinto_that_is_not_as_it_was_tested(
    app: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    registry = app.app.registry
    assert fast_records.FastRecords.find(registry) is not None
    REPLACED[what](monkeypatch, registry)
    assert fast_records.FastRecords.find(registry) is None


@ON_POSTGRESQL
def test_can_be_switched_off_with_the_statements_of_its_own(build: Build) -> None:
    registry = build(fast_records="false").app.registry
    links = registry.attachment_links
    assert type(registry.attachment_overviews) is SeparateOverviews
    assert type(links.replacements) is SeparateReplacements
    assert type(links.outbox) is Outbox


@ON_MEMORY
@pytest.mark.parametrize("fast", ["true", "false"])
def test_a_permission_that_is_withdrawn_is_logged_once(
    build: Build, fast: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = build(fast_records=fast)
    with caplog.at_level(logging.INFO, "kinto.core.authorization"):
        (response, _) = meanwhile(grant_group, withdraw_group, BOB)(app)
    assert response.status_code == 403
    assert len([each for each in caplog.messages if "not granted" in each]) == 1


@ON_POSTGRESQL
@pytest.mark.parametrize("theirs", [put, attach])
def test_a_record_that_appears_at_the_last_moment_is_changed(app: Any, theirs: Any) -> None:
    attach(app, OTHER)
    with before_statement(
        app, "INSERT INTO objects", lambda: theirs(app, RECORD, data={"title": "theirs"})
    ):
        response = attach(app, content=b"mine", status=200)
    record = app.get(RECORD, headers=ALICE).json["data"]
    assert (record["title"], record["attachment"]) == ("theirs", response.json)
    assert [stored_content(app, key) for key in stored_files(app)].count(b"mine") == 1
    assert len(stored_files(app)) == 2
    assert outbox(app) == []


def fails(app: Any, *, status: int, **options: Any) -> list[Any]:
    attach(app, data={"title": "before"})
    return [upload(app, record=each, status=status, **options) for each in (RECORD, OTHER)]


def schema_fails(app: Any) -> list[Any]:
    attach(app)
    put_schema(app)
    return [
        upload(app, status=400),
        upload(app, record=OTHER, status=400),
        upload(app, data={"name": "y"}, status=200),
    ]


def conflicting(app: Any) -> list[Any]:
    """Another request writes the record at the last moment."""
    theirs = {"title": "theirs"}
    with before_statement(app, "INSERT INTO objects", lambda: put(app, RECORD, data=theirs)):
        return [upload(app, status=200), app.get(RECORD, headers=ALICE)]


FAIL = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'no' USING ERRCODE = '{code}';
END $$;
CREATE CONSTRAINT TRIGGER fail AFTER INSERT OR UPDATE ON {table}
    DEFERRABLE INITIALLY {when} FOR EACH ROW WHEN ({which}) EXECUTE FUNCTION fail()
"""


@contextlib.contextmanager
def failing(app: Any, **how: str) -> Iterator[None]:
    """Make the database fail when a record or permission is written, or on commit."""
    engine = app.app.registry.storage.client.session_factory.session_factory.kw["bind"]
    with engine.begin() as connection:
        connection.exec_driver_sql(FAIL.format(**how))
    try:
        yield
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP FUNCTION fail CASCADE")


RECORDS = {"table": "objects", "which": "NEW.resource_name = 'record'"}
RIGHTS = {"table": "access_control_entries", "which": "TRUE"}


def database_fails(what: dict[str, str], code: str, when: str) -> Action:
    def action(app: Any) -> list[Any]:
        first = attach(app, data={"title": "before"})
        with failing(app, **what, code=code, when=when):
            answers = [upload(app, permissions={"read": ["x"]}), upload(app, record=OTHER)]
        assert {each.status_code for each in answers} <= {409, 500, 503}
        return [first, *answers, app.get(RECORD, headers=ALICE), upload(app)]

    return action


def storage_fails_too(app: Any) -> list[Any]:
    """The file of a failed request cannot be removed: it is left to gc."""
    attach(app, data={"title": "before"})
    on_event(app, ResourceChanged, raise_error)
    with failing_deletes(app):
        answers = [upload(app, status=500), upload(app, record=OTHER, status=500)]
    assert len(stored_files(app)) == 3
    clear(app)
    return answers


def raise_error(_: Any) -> None:
    raise RuntimeError("no")


def subscriber_fails(app: Any) -> list[Any]:
    """It fails after the commit, which is final."""
    on_event(app, AttachmentAdded, raise_error)
    return [upload(app, status=201), upload(app, status=200)]


FAILURES: dict[str, tuple[dict[str, str], Action]] = {
    "412": ({}, lambda app: fails(app, status=412, headers={**ALICE, "If-Match": '"1"'})),
    "schema": ({}, schema_fails),
    "quota": (
        {"quota_files": "1"},
        lambda app: [upload(app), upload(app, record=OTHER, status=507)],
    ),
    "quota, replaced": (
        {"quota_bytes": "4"},
        lambda app: [upload(app), upload(app, content=b"longer", status=507)],
    ),
    "conflict": ({}, conflicting),
    "a deadlock": ({}, database_fails(RECORDS, "40P01", "IMMEDIATE")),
    "permissions": ({}, database_fails(RIGHTS, "XX000", "IMMEDIATE")),
    "a commit that conflicts": ({}, database_fails(RECORDS, "40001", "DEFERRED")),
    "a commit that collides": ({}, database_fails(RECORDS, "23505", "DEFERRED")),
    "a commit that breaks": ({}, database_fails(RIGHTS, "XX000", "DEFERRED")),
    "the storage": ({}, storage_fails_too),
    "a subscriber": ({}, subscriber_fails),
}


@ON_POSTGRESQL
@pytest.mark.both_ways
@pytest.mark.parametrize("case", list(FAILURES))
def test_a_transaction_that_fails_leaves_the_same(build: Build, case: str) -> None:
    own, action = FAILURES[case]
    assert action(build(**own))


@pytest.mark.one_way
@ON_OBJECT_STORES
def test_files_of_object_stores_are_attached_and_replaced(app: Any) -> None:
    with subrequests(app) as made:
        attach(app, content=b"old")
        response = attach(app, content=b"new", status=200)
        put_raw(app, OTHER, content=b"raw")
    assert made == []
    assert app.get(RECORD, headers=ALICE).json["data"]["attachment"] == response.json
    assert sorted(stored_content(app, key) for key in stored_files(app)) == [b"new", b"raw"]


@ON_POSTGRESQL
def test_writers_stay_writers(app: Any) -> None:
    """Kinto makes each user who writes a record its writer, unless the user already is."""
    attach(app)
    for permissions in ({"write": []}, {"read": ["system.Everyone"]}, {"write": ["a"]}):
        attach(app, permissions=permissions, status=200)
        found = app.get(RECORD, headers=ALICE).json["permissions"]
        assert userid(app, ALICE) in found["write"]
