"""Records that clients write with an ``attachment`` that is not the stored one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from kinto.core.events import ResourceChanged
from kinto.core.utils import build_request
from pyramid.security import NO_PERMISSION_REQUIRED

from kinto_attachment import allow_metadata_changes
from tests.support.application import (
    ALICE,
    BOB,
    BUCKET,
    COLLECTION,
    CONTENT,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    error,
    key_of,
    put,
    put_collection,
    read,
    seen,
    stored_files,
    userid,
)
from tests.support.backends import ON_DATABASES, ON_MEMORY, ON_POSTGRESQL, Build
from tests.support.interruptions import overtaken
from tests.support.statements import counted

pytestmark = ON_MEMORY

URL = f"{RECORD}/attachment"
RECORDS = f"{COLLECTION}/records"
DEFAULTS = "/buckets/default/collections/c/records"
MESSAGE = "attachment in body: Attachment metadata cannot be modified."
OFFLINE = {"client_metadata": "ignore", "delete_on_omission": "false"}
FORGED = {
    "filename": "notes.txt",
    "hash": "0" * 64,
    "location": "http://localhost/v1/attachments/secret.txt",
    "mimetype": "text/plain",
    "size": 1,
}
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


def batch(app: Any, *parts: dict[str, Any]) -> list[Any]:
    answer = app.post_json("/batch", {"requests": list(parts)}, headers=ALICE, status=200)
    return list(answer.json["responses"])


def part(method: str, path: str, data: Any = None, **more: Any) -> dict[str, Any]:
    body = {} if data is None else {"body": {"data": data}}
    return {"method": method, "path": f"/v1{path}", **body, **more}


def statuses(answers: list[Any]) -> list[int]:
    return [answer["status"] for answer in answers]


def send(app: Any, method: str, path: str, body: Any, kind: str, status: Any = None) -> Any:
    """A write with a media type; a batch only takes JSON."""
    headers = {**ALICE, "Content-Type": kind}
    return app._gen_request(method, path, params=json.dumps(body), headers=headers, status=status)


def is_refused(answer: Any, uri: str) -> None:
    assert answer["code"] == 400
    assert (answer["errno"], answer["message"]) == (107, MESSAGE)
    assert [each["uri"] for each in answer["details"]] == [uri]


@ON_DATABASES
class TestPartsOfABatch:
    """A part with a stale or forged attachment is refused, and the others are written."""

    @pytest.mark.parametrize(
        ("method", "path", "data", "uri"),
        [
            ("PUT", RECORD, {"attachment": FORGED}, RECORD),
            ("PUT", OTHER, {"attachment": FORGED}, OTHER),
            ("PATCH", RECORD, {"attachment": FORGED}, RECORD),
            ("PATCH", RECORD, {"attachment": {}, "title": "B"}, RECORD),
            ("POST", RECORDS, {"attachment": FORGED}, RECORDS),
            ("POST", RECORDS, {"attachment": FORGED, "id": "other"}, OTHER),
        ],
    )
    def test_names_the_record(self, app: Any, method: str, path: str, data: Any, uri: str) -> None:
        attachment = attach(app, data={"title": "A"}).json
        before = app.get(RECORDS, headers=ALICE).json["data"]
        first, third = f"{RECORDS}/first", f"{RECORDS}/third"
        answers = batch(
            app,
            part("PUT", first, {"n": 1}),
            part(method, path, data),
            part("PUT", third, {"n": 3}),
        )
        assert statuses(answers) == [201, 400, 201]
        is_refused(answers[1]["body"], uri)
        after = app.get(f"{RECORDS}?_sort=n", headers=ALICE).json["data"]
        assert [record for record in after if "n" not in record] == before
        assert [record["n"] for record in after if "n" in record] == [1, 3]
        assert attachment_of(app) == attachment
        assert read(app) == CONTENT

    def test_in_the_default_bucket(self, app: Any) -> None:
        bucket = app.get("/", headers=ALICE).json["user"]["bucket"]
        answers = batch(
            app,
            part("PUT", f"{DEFAULTS}/a", {"n": 1}),
            part("PUT", f"{DEFAULTS}/b", {"attachment": FORGED}),
            part("POST", DEFAULTS, {"id": "c", "attachment": FORGED}),
            part("PUT", f"{DEFAULTS}/d", {"n": 4}),
        )
        assert statuses(answers) == [201, 400, 400, 201]
        records = f"/buckets/{bucket}/collections/c/records"
        is_refused(answers[1]["body"], f"{records}/b")
        is_refused(answers[2]["body"], f"{records}/c")
        found = app.get(DEFAULTS, headers=ALICE).json["data"]
        assert {record["id"] for record in found} == {"a", "d"}

    def test_of_25_that_come_and_go(self, app: Any) -> None:
        """Uploads, writes, deletions and stale copies, each compared with the previous state."""
        for number in range(5):
            attach(app, f"{RECORDS}/stale-{number}", content=b"%d" % number)
        copies = {n: attachment_of(app, f"{RECORDS}/stale-{n}") for n in range(5)}
        parts, expected = [], []
        for number, copy in copies.items():
            record = f"{RECORDS}/stale-{number}"
            parts += [
                part("PUT", record, {"attachment": copy, "n": number}),
                part("PUT", f"{record}/attachment?filename=new.json", None, body={"n": number}),
                part("PUT", record, {"attachment": copy, "n": -1}),
                part("PUT", f"{RECORDS}/new-{number}", {"n": number}),
                part("PATCH", record, {"attachment": copies[(number + 1) % 5]}),
            ]
            expected += [200, 200, 400, 201, 400]
        assert statuses(batch(app, *parts)) == expected
        for number in range(5):
            record = f"{RECORDS}/stale-{number}"
            assert app.get(record, headers=ALICE).json["data"]["n"] == number
            assert read(app, f"{record}/attachment") == b'{"n":%d}' % number
        assert len(stored_files(app)) == 5

    def test_a_precondition_comes_first(self, app: Any) -> None:
        """It has to: clients resolve conflicts when they get a 412."""
        attach(app)
        answers = batch(
            app,
            part("PUT", RECORD, {"attachment": FORGED}, headers={"If-Match": '"1"'}),
            part("PUT", RECORD, {"attachment": FORGED}, headers={"If-None-Match": "*"}),
            part("PATCH", RECORD, {"attachment": FORGED}, headers={"If-Match": '"1"'}),
            part("PUT", OTHER, {"attachment": FORGED}, headers={"If-Match": '"1"'}),
        )
        assert statuses(answers) == [412] * 4
        assert answers[0]["body"]["details"]["existing"]["attachment"] == attachment_of(app)
        etag = app.get(RECORD, headers=ALICE).headers["ETag"]
        for header in (etag, "*", "nonsense"):
            put_forged = part("PUT", RECORD, {"attachment": FORGED}, headers={"If-Match": header})
            assert statuses(batch(app, put_forged)) == [400]

    def test_a_record_that_exists_is_answered_and_not_written(self, app: Any) -> None:
        attachment = attach(app).json
        (answer,) = batch(app, part("POST", RECORDS, {"id": "r", "attachment": FORGED}))
        assert answer["status"] == 200
        assert answer["body"]["data"]["attachment"] == attachment

    def test_who_may_not_write_hears_nothing_of_it(self, app: Any) -> None:
        attach(app)
        for method, path in (("PUT", RECORD), ("PATCH", RECORD), ("POST", RECORDS)):
            body = {"requests": [part(method, path, {"attachment": FORGED})]}
            (answer,) = app.post_json("/batch", body, headers=BOB).json["responses"]
            assert answer["status"] == 403

    @pytest.mark.parametrize("headers", [ALICE, BOB, {}])
    def test_of_another_media_type_says_nothing_of_it(self, app: Any, headers: Any) -> None:
        """Kinto answers 415 to everybody, whether the attachment is the stored one or not."""
        stored = attach(app).json
        for method, path in (("PUT", RECORD), ("PATCH", RECORD), ("POST", RECORDS)):
            for attachment in (stored, FORGED):
                app._gen_request(
                    method,
                    path,
                    params=json.dumps({"data": {"attachment": attachment}}),
                    headers={**headers, "Content-Type": "text/plain"},
                    status=415,
                )

    @pytest.mark.parametrize(
        "record_id", ["%00", "a%2Fb", "..", "%2e%2e%2fother", "ид", "a b", "*", "'--"]
    )
    def test_hostile_ids(self, build: Build, record_id: str) -> None:
        for app in (build(), build(**OFFLINE)):
            attach(app)
            answers = batch(
                app,
                part("POST", RECORDS, {"attachment": FORGED, "id": record_id}),
                part("PUT", f"{RECORDS}/next", {"n": 1}),
            )
            assert answers[0]["status"] == 400
            assert answers[1]["status"] in (200, 201)
            assert read(app) == CONTENT


PATCHES = [
    (MERGE_PATCH, {"data": {"attachment": {"size": 1}}}),
    (MERGE_PATCH, {"data": {"attachment": {"hash": None}}}),
    (MERGE_PATCH, {"data": {"attachment": "text"}}),
    (MERGE_PATCH, {"data": {"attachment": {"original": {"size": 1}}}}),
    (JSON_PATCH, [{"op": "replace", "path": "/data/attachment/size", "value": 1}]),
    (JSON_PATCH, [{"op": "remove", "path": "/data/attachment/hash"}]),
    (JSON_PATCH, [{"op": "replace", "path": "/data/attachment", "value": FORGED}]),
    (JSON_PATCH, [{"op": "add", "path": "/data", "value": {"attachment": FORGED}}]),
    (JSON_PATCH, [{"op": "copy", "from": "/data/other", "path": "/data/attachment"}]),
    (JSON_PATCH, [{"op": "move", "from": "/data/other", "path": "/data/attachment/size"}]),
    (JSON_PATCH, [{"op": "copy", "from": "/permissions/read", "path": "/data/attachment"}]),
]


class TestPatches:
    """Patches of RFC 7396 and RFC 6902, whose results are computed first."""

    @pytest.mark.parametrize(("kind", "body"), PATCHES)
    def test_are_refused_before_kinto_writes(self, app: Any, kind: str, body: Any) -> None:
        attachment = attach(app, data={"other": FORGED}).json
        answer = send(app, "PATCH", RECORD, body, kind, status=400)
        is_refused(answer.json, RECORD)
        assert attachment_of(app) == attachment
        assert not [
            event for event in seen(app, ResourceChanged) if event.payload["action"] == "update"
        ]

    @pytest.mark.parametrize(("kind", "body"), PATCHES)
    def test_are_ignored(self, build: Build, kind: str, body: Any) -> None:
        app = build(**OFFLINE)
        attachment = attach(app, data={"other": FORGED}).json
        data = send(app, "PATCH", RECORD, body, kind, status=200).json["data"]
        assert data["attachment"] == attachment == attachment_of(app)
        assert read(app) == CONTENT

    @pytest.mark.parametrize(("kind", "body"), PATCHES)
    def test_are_ignored_where_there_is_no_file(self, build: Build, kind: str, body: Any) -> None:
        """Kinto refuses patches that cannot be applied; nothing is stored."""
        app = build(**OFFLINE)
        put(app, RECORD, data={"other": FORGED})
        answer = send(app, "PATCH", RECORD, body, kind, status="*")
        assert answer.status_code in (200, 400)
        assert "attachment" not in app.get(RECORD, headers=ALICE).json["data"]

    @pytest.mark.parametrize("charset", ["UTF-8", "latin-1", "utf-16", "utf-7"])
    def test_of_any_charset_are_ignored(self, build: Build, charset: str) -> None:
        app = build(**OFFLINE)
        attachment = attach(app).json
        body = json.dumps({"data": {"attachment": FORGED, "title": "\u65e5\u672c"}})
        for kind in ("application/json", MERGE_PATCH):
            headers = {**ALICE, "Content-Type": f"{kind}; charset={charset}"}
            answer = app.patch(RECORD, body.encode(charset), headers=headers, status=200)
            data = answer.json["data"]
            assert (data["attachment"], data["title"]) == (attachment, "\u65e5\u672c")

    def test_of_no_charset_for_json_are_refused(self, build: Build) -> None:
        app = build(**OFFLINE)
        attachment = attach(app).json
        headers = {**ALICE, "Content-Type": "application/json; charset=idna"}
        body = json.dumps({"data": {"attachment": FORGED}})
        answer = app.patch(RECORD, body, headers=headers, status="*")
        assert answer.status_code == 200, "as if it had none"
        answer = app.put(RECORD, body, headers=headers, status=400)
        errno, message = error(answer)
        assert (errno, "idna" in message) == (107, True)
        assert attachment_of(app) == attachment

    @pytest.mark.parametrize("attachment", [{"a": 1}, {"a": {"b": 1}}, FORGED])
    def test_that_merge_an_object_into_null(self, build: Build, attachment: Any) -> None:
        body = {"data": {"attachment": attachment}}
        app = build()
        put(app, RECORD, data={"attachment": None})
        is_refused(send(app, "PATCH", RECORD, body, MERGE_PATCH, status=400).json, RECORD)
        app = build(client_metadata="ignore")
        put(app, OTHER, data={"attachment": None})
        send(app, "PATCH", OTHER, body, MERGE_PATCH, status=200)
        assert attachment_of(app, OTHER) is None

    @pytest.mark.parametrize(
        "body", [[], {}, "text", 1, None, {"data": []}, {"data": "attachment"}, [1], [{}]]
    )
    @pytest.mark.parametrize("kind", [MERGE_PATCH, JSON_PATCH, "application/json"])
    def test_that_are_none(self, app: Any, kind: str, body: Any) -> None:
        """They are answered as by Kinto, and so are bodies that are not JSON."""
        attachment = attach(app).json
        answer = send(app, "PATCH", RECORD, body, kind, status="*")
        assert answer.status_code == (200 if (kind, body) == (JSON_PATCH, []) else 400)
        error_or_record = answer.json
        assert "Attachment metadata" not in str(error_or_record)
        app._gen_request(
            "PATCH", RECORD, params="{", headers={**ALICE, "Content-Type": kind}, status=400
        )
        assert attachment_of(app) == attachment


class TestIgnored:
    """``client_metadata = ignore``: the stored attachment stays."""

    @pytest.mark.parametrize("attachment", [FORGED, {}, [], "text", 0, False, {"filename": "a"}])
    def test_where_there_is_a_file(self, build: Build, attachment: Any) -> None:
        app = build(client_metadata="ignore")
        stored = attach(app).json
        for write in (app.put_json, app.patch_json):
            body = {"data": {"attachment": attachment, "title": "B"}}
            data = write(RECORD, body, headers=ALICE, status=200).json["data"]
            assert (data["attachment"], data["title"]) == (stored, "B")
            assert app.get(RECORD, headers=ALICE).json["data"] == data
        assert read(app) == CONTENT

    @ON_DATABASES
    def test_where_there_is_none(self, build: Build) -> None:
        app = build(client_metadata="ignore")
        body = {"data": {"attachment": FORGED, "title": "A"}}
        for answer in (
            app.put_json(RECORD, body, headers=ALICE, status=201),
            app.put_json(RECORD, body, headers=ALICE, status=200),
            app.patch_json(RECORD, body, headers=ALICE, status=200),
            app.post_json(RECORDS, body, headers=ALICE, status=201),
        ):
            assert answer.json["data"]["title"] == "A"
            assert "attachment" not in answer.json["data"]
        for record in app.get(RECORDS, headers=ALICE).json["data"]:
            assert "attachment" not in record

    def test_where_it_was_removed(self, build: Build) -> None:
        app = build(client_metadata="ignore")
        stale = attach(app).json
        app.delete(URL, headers=ALICE)
        data = put(app, RECORD, data={"attachment": stale, "title": "B"})["data"]
        assert data.get("attachment") is None
        assert attachment_of(app) is None

    def test_history_and_events_have_what_was_stored(self, build: Build) -> None:
        app = build(client_metadata="ignore")
        stored = attach(app).json
        put(app, RECORD, data={"attachment": FORGED, "title": "B"})
        history = app.get(f"{BUCKET}/history?resource_name=record", headers=ALICE).json["data"]
        assert [entry["target"]["data"]["attachment"] for entry in history] == [stored] * 2
        (event,) = (
            event
            for event in seen(app, ResourceChanged)
            if (event.payload["resource_name"], event.payload["action"]) == ("record", "update")
        )
        assert [each["new"]["attachment"] for each in event.impacted_objects] == [stored]

    def test_null_still_deletes(self, build: Build) -> None:
        app = build(client_metadata="ignore")
        attach(app)
        assert put(app, RECORD, data={"attachment": None})["data"]["attachment"] is None
        assert not stored_files(app)

    def test_omission_still_deletes(self, build: Build) -> None:
        app = build(client_metadata="ignore")
        attach(app)
        put(app, RECORD, data={"title": "B"})
        assert not stored_files(app)

    def test_a_precondition_still_fails(self, build: Build) -> None:
        app = build(client_metadata="ignore")
        attach(app)
        headers = {**ALICE, "If-Match": '"1"'}
        app.put_json(RECORD, {"data": {"attachment": FORGED}}, headers=headers, status=412)


class TestOmission:
    """``delete_on_omission = false``: a PUT without ``attachment`` keeps the file."""

    @ON_DATABASES
    def test_keeps_the_file(self, build: Build) -> None:
        app = build(delete_on_omission="false")
        stored = attach(app, data={"title": "A", "other": 1}).json
        data = put(app, RECORD, data={"title": "B"})["data"]
        assert data == app.get(RECORD, headers=ALICE).json["data"]
        assert (data["attachment"], data["title"], "other" in data) == (stored, "B", False)
        assert read(app) == CONTENT
        history = app.get(f"{BUCKET}/history?resource_name=record", headers=ALICE).json["data"]
        assert history[0]["target"]["data"] == data

    def test_keeps_it_with_permissions_alone(self, build: Build) -> None:
        app = build(delete_on_omission="false")
        stored = attach(app).json
        put(app, RECORD, permissions={"read": ["system.Everyone"]})
        assert attachment_of(app) == stored

    def test_keeps_it_in_a_batch_and_in_the_default_bucket(self, build: Build) -> None:
        app = build(delete_on_omission="false")
        record = f"{DEFAULTS}/r"
        stored = attach(app, record).json
        answers = batch(app, part("PUT", record, {"n": 1}), part("PUT", record, {"n": 2}))
        assert [answer["body"]["data"]["attachment"] for answer in answers] == [stored] * 2
        assert read(app, f"{record}/attachment") == CONTENT

    def test_keeps_it_from_a_json_patch_of_the_whole(self, build: Build) -> None:
        app = build(delete_on_omission="false")
        stored = attach(app).json
        patch = [{"op": "replace", "path": "/data", "value": {"title": "B"}}]
        data = send(app, "PATCH", RECORD, patch, JSON_PATCH).json["data"]
        assert (data["attachment"], data["title"]) == (stored, "B")

    @pytest.mark.parametrize("options", [OFFLINE, {"delete_on_omission": "false"}])
    @pytest.mark.parametrize(
        ("method", "kind", "body"),
        [
            ("PUT", "application/json", {"data": {"attachment": None, "title": "B"}}),
            ("PATCH", "application/json", {"data": {"attachment": None}}),
            ("PATCH", MERGE_PATCH, {"data": {"attachment": None}}),
            ("PATCH", JSON_PATCH, [{"op": "remove", "path": "/data/attachment"}]),
            (
                "PATCH",
                JSON_PATCH,
                [{"op": "replace", "path": "/data/attachment", "value": None}],
            ),
            (
                "PATCH",
                JSON_PATCH,
                [{"op": "move", "from": "/data/attachment", "path": "/data/old"}],
            ),
        ],
    )
    def test_what_removes_the_file(
        self, build: Build, options: Any, method: str, kind: str, body: Any
    ) -> None:
        app = build(**options)
        attach(app)
        data = send(app, method, RECORD, body, kind, status=200).json["data"]
        assert data.get("attachment") is None
        assert attachment_of(app) is None
        assert not stored_files(app)

    @pytest.mark.parametrize(
        "remove",
        [
            lambda app: app.delete(URL, headers=ALICE, status=204),
            lambda app: put(app, RECORD, data={"attachment": None, "title": "A"}),
            lambda app: batch(app, part("PUT", RECORD, {"attachment": None, "title": "A"})),
            lambda app: batch(app, part("DELETE", URL)),
        ],
        ids=["DELETE", "null", "null in a batch", "DELETE in a batch"],
    )
    def test_leaves_no_null_that_a_stale_copy_could_bring_back(
        self, build: Build, remove: Callable[[Any], object]
    ) -> None:
        app = build(**OFFLINE)
        attach(app, data={"title": "A"}, permissions={"read": [userid(app, BOB)]})
        permissions = app.get(RECORD, headers=ALICE).json["permissions"]
        remove(app)
        answer = app.get(RECORD, headers=ALICE).json
        copy = answer["data"]
        assert (copy["title"], "attachment" in copy) == ("A", False)
        assert answer["permissions"] == permissions
        stored = attach(app, content=b"later").json
        put(app, RECORD, data=copy)
        assert attachment_of(app) == stored
        assert read(app) == b"later"

    def test_a_new_record_has_no_null(self, build: Build) -> None:
        app = build(delete_on_omission="false")
        body = {"data": {"attachment": None, "title": "A"}}
        assert "attachment" not in put(app, RECORD, **body)["data"]
        assert "attachment" not in app.post_json(RECORDS, body, headers=ALICE).json["data"]

    def test_a_forged_attachment_is_refused_all_the_same(self, build: Build) -> None:
        app = build(delete_on_omission="false")
        stored = attach(app).json
        body = {"data": {"attachment": FORGED}}
        is_refused(app.put_json(RECORD, body, headers=ALICE, status=400).json, RECORD)
        assert attachment_of(app) == stored

    def test_a_schema_that_requires_it_is_satisfied(self, build: Build) -> None:
        app = build(**OFFLINE)
        schema = {"required": ["attachment"], "properties": {"attachment": {"type": "object"}}}
        put(app, COLLECTION, data={"schema": schema})
        stored = attach(app).json
        for data in ({"title": "B"}, {"title": "B", "attachment": FORGED}):
            assert put(app, RECORD, data=data)["data"]["attachment"] == stored
        body = {"data": {"attachment": FORGED}}
        answer = app.put_json(OTHER, body, headers=ALICE, status=400)
        assert "'attachment' is a required property" in error(answer)[1]
        for data in ({"attachment": None}, {"attachment": None, "title": "B"}):
            app.put_json(RECORD, {"data": data}, headers=ALICE, status=400)
        app.delete(URL, headers=ALICE, status=400)
        assert read(app) == CONTENT

    def test_files_that_are_kept_stay_apart(self, build: Build) -> None:
        app = build(delete_on_omission="false", keep_old_files="true")
        attach(app)
        attach(app, content=b"second")
        put(app, RECORD, data={"title": "B"})
        assert read(app) == b"second"
        app.delete(URL, headers=ALICE)
        assert attachment_of(app) is None
        assert len(stored_files(app)) == 2

    def test_a_deleted_record_takes_its_file_along(self, build: Build) -> None:
        app = build(**OFFLINE)
        attach(app)
        app.delete(RECORD, headers=ALICE)
        assert not stored_files(app)

    @ON_POSTGRESQL
    @pytest.mark.parametrize("before", [True, False], ids=["replaced", "added"])
    def test_an_upload_in_between_is_not_undone(self, build: Build, before: bool) -> None:
        """The write is refused, for a retry, if the upload commits after the record was read."""
        app = build(**OFFLINE)
        put(app, RECORD, data={"title": "A"})
        if before:
            attach(app)
        with overtaken(app, lambda: attach(app, content=b"of another client")):
            app.put_json(RECORD, {"data": {"title": "B"}}, headers=ALICE, status=409)
        assert read(app) == b"of another client"
        put(app, RECORD, data={"title": "B"})
        assert read(app) == b"of another client"


class TestForOneCollection:
    def test_settings_of_a_bucket_and_a_collection(self, build: Build) -> None:
        app = build(
            **{
                "resources.b.client_metadata": "ignore",
                "resources.b.c.delete_on_omission": "false",
                "resources.b.strict.client_metadata": "refuse",
            }
        )
        strict = f"{BUCKET}/collections/strict/records/r"
        put_collection(app, f"{BUCKET}/collections/strict")
        stored = {record: attach(app, record).json for record in (RECORD, strict)}
        answers = batch(
            app,
            part("PUT", RECORD, {"attachment": FORGED}),
            part("PUT", strict, {"attachment": FORGED}),
            part("PUT", RECORD, {}),
        )
        assert statuses(answers) == [200, 400, 200]
        assert {record: attachment_of(app, record) for record in stored} == stored
        put(app, strict, data={})
        assert attachment_of(app, strict) is None

    @ON_DATABASES
    def test_settings_of_default_buckets(self, build: Build) -> None:
        names = ("client_metadata", "delete_on_omission")
        app = build(**{f"resources.default.{name}": OFFLINE[name] for name in names})
        record = f"{DEFAULTS}/r"
        stored = attach(app, record).json
        bucket = app.get("/", headers=ALICE).json["user"]["bucket"]
        real = record.replace("/default/", f"/{bucket}/")
        for path in (record, real):
            for data in ({"attachment": FORGED}, {"title": "B"}):
                answers = batch(app, part("PUT", path, data))
                assert answers[0]["body"]["data"]["attachment"] == stored
        attach(app)
        assert statuses(batch(app, part("PUT", RECORD, {"attachment": FORGED}))) == [400]

    def test_a_setting_that_is_no_such_word(self, build: Build) -> None:
        with pytest.raises(Exception, match=r"client_metadata: should be refuse or ignore"):
            build(client_metadata="allow")


@ON_POSTGRESQL
class TestCost:
    """The decision needs no statement: Kinto read the record when it authorized the user."""

    def costs(self, app: Any, *writes: Callable[[], object]) -> list[int]:
        found = []
        for write in writes:
            with counted(app) as statements:
                write()
            found.append(sum(statements.values()))
        return found

    def test_a_refusal_costs_less_than_a_write(self, app: Any) -> None:
        attach(app)
        forged = {"data": {"attachment": FORGED}}
        written, refused = self.costs(
            app,
            lambda: app.patch_json(RECORD, {"data": {"title": "B"}}, headers=ALICE),
            lambda: app.patch_json(RECORD, forged, headers=ALICE, status=400),
        )
        assert refused < written

    def test_an_attachment_that_is_kept_or_ignored_costs_what_a_repeated_one_does(
        self, build: Build
    ) -> None:
        app = build(**OFFLINE)
        stored = attach(app).json
        repeated, ignored, kept = self.costs(
            app,
            *(
                lambda data=data: put(app, RECORD, data=data)  # type: ignore[misc]
                for data in ({"attachment": stored}, {"attachment": FORGED}, {"title": "B"})
            ),
        )
        assert repeated == ignored == kept


def includeme(config: Any) -> None:
    """A plugin that writes records like a client: ``POST /rewrite``."""
    config.add_route("rewrite", "/rewrite")
    config.add_view(
        rewrite,
        route_name="rewrite",
        request_method="POST",
        renderer="json",
        permission=NO_PERMISSION_REQUIRED,
    )


def rewrite(request: Any) -> Any:
    uri, data, how = (request.json[name] for name in ("uri", "data", "how"))
    subrequest = build_request(request, {"method": "PUT", "path": uri, "body": {"data": data}})
    subrequest.bound_data = request.bound_data
    if how == "flag":
        subrequest._attachment_auto_save = True
    block = allow_metadata_changes(request) if how == "context" else contextlib.nullcontext()
    with block:
        return request.invoke_subrequest(subrequest).json


class TestPlugins:
    """Code on the server may write attachments, or omit them, if it says so."""

    def rewrite(self, app: Any, uri: str, data: Any, how: str, status: Any = 200) -> Any:
        body = {"uri": uri, "data": data, "how": how}
        return app.post_json("/rewrite", body, headers=ALICE, status=status)

    @pytest.mark.parametrize("options", [{}, OFFLINE])
    @pytest.mark.parametrize("how", ["context", "flag"])
    def test_that_say_so(self, build: Build, how: str, options: Any) -> None:
        app = build({"includes": __name__}, **options)
        stored = attach(app).json
        self.rewrite(app, OTHER, {"attachment": stored}, how)
        assert attachment_of(app, OTHER) == stored
        self.rewrite(app, RECORD, {"title": "B"}, how)
        assert attachment_of(app) is None
        assert read(app, f"{OTHER}/attachment") == CONTENT

    def test_that_do_not_say_so(self, build: Build) -> None:
        stored = attach(build()).json
        app = build({"includes": __name__})
        is_refused(self.rewrite(app, OTHER, {"attachment": stored}, "", status=400).json, OTHER)

    def test_what_is_allowed_ends_with_an_error(self, build: Build) -> None:
        app = build({"includes": __name__})
        nowhere = {"uri": f"{BUCKET}/collections/nowhere/records/r", "data": {}, "how": "context"}
        answers = batch(
            app,
            {"method": "POST", "path": "/v1/rewrite", "body": nowhere},
            part("PUT", RECORD, {"attachment": FORGED}),
            part("PUT", OTHER, {"n": 1}),
        )
        assert statuses(answers) == [404, 400, 201]

    def test_copies_have_what_was_stored(self, build: Build) -> None:
        app = build({"included_first": "tests.support.mirroring"}, **OFFLINE)
        put(app, f"{BUCKET}/collections/mirror")
        stored = attach(app).json
        for data in ({"title": "B"}, {"title": "C", "attachment": FORGED}):
            put(app, RECORD, data=data)
            copy = app.get(f"{BUCKET}/collections/mirror/records/r", headers=ALICE).json["data"]
            assert (copy["title"], copy["attachment"]) == (data["title"], stored)


def test_files_of_others_are_not_reached(build: Build) -> None:
    """An ignored attachment is not linked either."""
    app = build(**OFFLINE)
    stored = attach(app).json
    put(app, OTHER, data={"attachment": stored})
    assert attachment_of(app, OTHER) is None
    app.get(f"{OTHER}/attachment", headers=ALICE, status=404)
    assert stored_files(app) == {key_of(stored)}
