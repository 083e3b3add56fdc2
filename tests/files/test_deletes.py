"""Files are deleted with their attachment, record, records, collection, bucket, or everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kinto.core.errors import http_error
from kinto.core.events import ResourceChanged
from pyramid.httpexceptions import HTTPBadRequest

from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    BUCKET,
    COLLECTION,
    CONTENT,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    key_of,
    on_event,
    outbox,
    put,
    put_collection,
    put_raw,
    read,
    stored_files,
    stored_links,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_MEMORY, ON_POSTGRESQL, Build
from tests.support.interruptions import overtaken

pytestmark = EVERYWHERE

URL = f"{RECORD}/attachment"


def batch(app: Any, *requests: dict[str, Any], status: Any = None) -> list[Any]:
    """The responses to the requests of a batch."""
    answer = app.post_json("/batch", {"requests": list(requests)}, headers=ALICE, status=status)
    return list(answer.json.get("responses", []))


def request(method: str, path: str, **more: Any) -> dict[str, Any]:
    return {"method": method, "path": f"/v1{path}", **more}


class TestTheAttachment:
    def test_the_record_stays(self, app: Any) -> None:
        attach(app, data={"title": "A"})
        before = app.get(RECORD, headers=ALICE)
        response = app.delete(URL, headers=ALICE, status=204)
        assert response.body == b""
        after = app.get(RECORD, headers=ALICE)
        assert after.json["data"]["attachment"] is None
        assert after.json["data"]["title"] == "A"
        assert after.json["permissions"] == before.json["permissions"]
        assert after.headers["ETag"] != before.headers["ETag"]
        assert not stored_files(app)
        assert not stored_links(app)
        assert not outbox(app)
        app.get(URL, headers=ALICE, status=404)

    def test_tolerates_a_body(self, app: Any) -> None:
        attach(app)
        app.delete_json(URL, {}, headers=ALICE, status=204)
        attach(app)
        app.delete(URL, b"anything", headers=ALICE, status=204)
        assert not stored_files(app)

    def test_of_no_record_creates_none(self, app: Any) -> None:
        url = f"{COLLECTION}/records/ghost"
        response = app.delete(f"{url}/attachment", headers=ALICE, status=404)
        assert response.json["errno"] == 110
        app.get(url, headers=ALICE, status=404)

    def test_of_no_attachment(self, app: Any) -> None:
        put(app, RECORD)
        before = app.get(RECORD, headers=ALICE).headers["ETag"]
        app.delete(URL, headers=ALICE, status=204)
        assert app.get(RECORD, headers=ALICE).headers["ETag"] == before

    def test_twice(self, app: Any) -> None:
        attach(app)
        app.delete(URL, headers=ALICE, status=204)
        app.delete(URL, headers=ALICE, status=204)
        attach(app, status=200)
        assert read(app) == CONTENT

    def test_with_permission_only(self, app: Any) -> None:
        attach(app, permissions={"read": ["system.Everyone"]})
        app.delete(URL, headers=ANONYMOUS, status=401)
        app.delete(URL, headers=BOB, status=403)
        assert read(app) == CONTENT

    def test_with_preconditions(self, app: Any) -> None:
        old = attach(app).headers["ETag"]
        new = attach(app, content=b"new").headers["ETag"]
        response = app.delete(URL, headers={**ALICE, "If-Match": old}, status=412)
        assert response.json["errno"] == 114
        assert read(app) == b"new"
        app.delete(URL, headers={**ALICE, "If-Match": new}, status=204)
        assert not stored_files(app)

    @ON_DATABASES
    def test_with_preconditions_where_there_is_none(self, app: Any) -> None:
        etag = app.put_json(RECORD, {"data": {}}, headers=ALICE).headers["ETag"]
        for precondition in ({"If-Match": '"1"'}, {"If-None-Match": "*"}):
            response = app.delete(URL, headers={**ALICE, **precondition}, status=412)
            assert response.json["errno"] == 114
        app.delete(URL, headers={**ALICE, "If-Match": etag}, status=204)
        assert app.get(RECORD, headers=ALICE).headers["ETag"] == etag

    @ON_DATABASES
    def test_of_a_record_that_is_deleted_meanwhile(self, app: Any) -> None:
        """The record is not created again without its attachment."""
        attach(app)
        with overtaken(app, lambda: app.delete(RECORD, headers=ALICE, status=200)):
            app.delete(URL, headers=ALICE, status=404)
        app.get(RECORD, headers=ALICE, status=404)
        assert not stored_files(app)

    def test_that_the_schema_wants(self, app: Any) -> None:
        schema = {"properties": {"attachment": {"type": "object"}}}
        put(app, COLLECTION, data={"schema": schema})
        attach(app)
        app.delete(URL, headers=ALICE, status=400)
        assert read(app) == CONTENT


class TestTheRecord:
    def test_alone(self, app: Any) -> None:
        attach(app)
        attach(app, OTHER)
        app.delete(RECORD, headers=ALICE)
        assert stored_files(app) == {key_of(attachment_of(app, OTHER))}

    def test_that_had_several_files(self, app: Any) -> None:
        for content in (b"1", b"2", b"3"):
            attach(app, content=content)
        app.delete(RECORD, headers=ALICE)
        assert not stored_files(app)

    def test_without_permission(self, app: Any) -> None:
        attach(app)
        app.delete(RECORD, headers=BOB, status=403)
        assert read(app) == CONTENT

    def test_with_another_etag(self, app: Any) -> None:
        attach(app)
        app.delete(RECORD, headers={**ALICE, "If-Match": '"1"'}, status=412)
        assert read(app) == CONTENT

    def test_and_created_again(self, app: Any) -> None:
        attach(app)
        app.delete(RECORD, headers=ALICE)
        put(app, RECORD)
        assert attachment_of(app) is None
        attach(app, content=b"new")
        assert read(app) == b"new"


class TestManyRecords:
    @pytest.fixture
    def five(self, app: Any) -> Any:
        for number in range(5):
            record = f"{COLLECTION}/records/r{number}"
            attach(app, record, content=b"%d" % number, data={"number": number})
        put_collection(app, "/buckets/b/collections/d")
        attach(app, "/buckets/b/collections/d/records/r0", content=b"of d")
        return app

    def left(self, app: Any) -> set[str]:
        files = {key for _, key, _ in stored_links(app)}
        assert files == stored_files(app)
        return {record.rsplit("/", 1)[1] for record, _, _ in stored_links(app) if "/c/" in record}

    def test_all(self, five: Any) -> None:
        five.delete(f"{COLLECTION}/records", headers=ALICE)
        assert self.left(five) == set()
        assert read(five, "/buckets/b/collections/d/records/r0/attachment") == b"of d"

    def test_filtered(self, five: Any) -> None:
        five.delete(f"{COLLECTION}/records?min_number=3", headers=ALICE)
        assert self.left(five) == {"r0", "r1", "r2"}
        assert read(five, f"{COLLECTION}/records/r2/attachment") == b"2"

    def test_limited(self, five: Any) -> None:
        five.delete(f"{COLLECTION}/records?_limit=2&_sort=number", headers=ALICE)
        assert self.left(five) == {"r2", "r3", "r4"}

    def test_none(self, five: Any) -> None:
        five.delete(f"{COLLECTION}/records?min_number=30", headers=ALICE)
        assert len(self.left(five)) == 5

    def test_one_by_one_in_one_batch(self, five: Any) -> None:
        answers = batch(
            five,
            request("DELETE", f"{COLLECTION}/records/r0"),
            request("DELETE", f"{COLLECTION}/records/r1"),
            request("DELETE", "/buckets/b/collections/d/records/r0"),
        )
        assert [answer["status"] for answer in answers] == [200, 200, 200]
        assert self.left(five) == {"r2", "r3", "r4"}
        assert len(stored_files(five)) == 3

    @ON_DATABASES
    def test_more_than_the_index_looks_up_one_by_one(self, app: Any) -> None:
        for number in range(60):
            attach(app, f"{COLLECTION}/records/r{number}", data={"even": number % 2 == 0})
        app.delete(f"{COLLECTION}/records?even=true", headers=ALICE)
        assert len(stored_files(app)) == 30
        app.delete(f"{COLLECTION}/records", headers=ALICE)
        assert not stored_files(app)


# In a pattern of SQL's LIKE, the underscore matches any character.
NEIGHBOURS = ["a_c", "abc", "a-c", "a_", "a_c2", "A_C"]


class TestCollections:
    def test_one(self, app: Any) -> None:
        put_collection(app, f"{BUCKET}/collections/c2")
        attach(app)
        attach(app, OTHER)
        attach(app, f"{BUCKET}/collections/c2/records/r")
        app.delete(COLLECTION, headers=ALICE)
        assert {record for record, _, _ in stored_links(app)} == {
            f"{BUCKET}/collections/c2/records/r"
        }
        assert len(stored_files(app)) == 1

    @ON_DATABASES
    @pytest.mark.parametrize("name", ["a_c", "a_", "abc"])
    def test_with_names_like_patterns(self, app: Any, name: str) -> None:
        records = {other: f"{BUCKET}/collections/{other}/records/r" for other in NEIGHBOURS}
        for other, record in records.items():
            put_collection(app, f"{BUCKET}/collections/{other}")
            attach(app, record, content=other.encode())
        app.delete(f"{BUCKET}/collections/{name}", headers=ALICE)
        del records[name]
        for other, record in records.items():
            assert read(app, f"{record}/attachment") == other.encode()
        assert len(stored_files(app)) == len(NEIGHBOURS) - 1

    def test_all_of_a_bucket(self, app: Any) -> None:
        put_collection(app, f"{BUCKET}/collections/d")
        put_collection(app, "/buckets/other/collections/c")
        attach(app)
        attach(app, f"{BUCKET}/collections/d/records/r")
        attach(app, "/buckets/other/collections/c/records/r")
        app.delete(f"{BUCKET}/collections", headers=ALICE)
        assert len(stored_files(app)) == 1
        assert read(app, "/buckets/other/collections/c/records/r/attachment") == CONTENT

    @ON_DATABASES
    def test_of_more_records_than_a_page(self, build: Build) -> None:
        app = build({"storage_max_fetch_size": 10, "paginate_by": 5})
        for number in range(25):
            attach(app, f"{COLLECTION}/records/r{number}")
        app.delete(COLLECTION, headers=ALICE)
        assert not stored_files(app)
        assert not stored_links(app)

    def test_without_permission(self, app: Any) -> None:
        attach(app)
        app.delete(COLLECTION, headers=BOB, status=403)
        app.delete(BUCKET, headers=BOB, status=403)
        assert read(app) == CONTENT

    def test_made_again_is_empty(self, app: Any) -> None:
        attach(app)
        app.delete(COLLECTION, headers=ALICE)
        put_collection(app)
        app.get(URL, headers=ALICE, status=404)
        attach(app, content=b"new")
        assert read(app) == b"new"


class TestBuckets:
    def test_one(self, app: Any) -> None:
        put_collection(app, "/buckets/b2/collections/c")
        attach(app)
        attach(app, OTHER)
        attach(app, "/buckets/b2/collections/c/records/r")
        app.delete(BUCKET, headers=ALICE)
        assert read(app, "/buckets/b2/collections/c/records/r/attachment") == CONTENT
        assert len(stored_files(app)) == 1

    @ON_DATABASES
    @pytest.mark.parametrize("name", ["a_", "abc"])
    def test_with_names_like_patterns(self, app: Any, name: str) -> None:
        records = {other: f"/buckets/{other}/collections/c/records/r" for other in NEIGHBOURS}
        for other, record in records.items():
            put_collection(app, f"/buckets/{other}/collections/c")
            attach(app, record, content=other.encode())
        app.delete(f"/buckets/{name}", headers=ALICE)
        del records[name]
        for other, record in records.items():
            assert read(app, f"{record}/attachment") == other.encode()
        assert len(stored_files(app)) == len(NEIGHBOURS) - 1

    def test_all(self, app: Any) -> None:
        put_collection(app, "/buckets/b2/collections/c")
        attach(app)
        attach(app, "/buckets/b2/collections/c/records/r")
        app.delete("/buckets", headers=ALICE)
        assert not stored_files(app)
        assert not stored_links(app)


class TestFlush:
    def test_deletes_all_files(self, app: Any) -> None:
        attach(app)
        attach(app, OTHER)
        app.post("/__flush__", headers=ALICE, status=202)
        assert not stored_files(app)
        assert not stored_links(app)
        assert not outbox(app)

    def test_of_nothing(self, app: Any) -> None:
        app.post("/__flush__", headers=ALICE, status=202)

    def test_deletes_kept_files_too(self, build: Build) -> None:
        app = build(keep_old_files="true")
        attach(app)
        attach(app)
        app.post("/__flush__", headers=ALICE, status=202)
        assert not stored_files(app)

    def test_deletes_nothing_that_no_record_had(self, app: Any) -> None:
        storage = app.app.registry.attachment_storages.default.files
        key = storage.save_filename(__file__, extensions=())
        attach(app)
        app.post("/__flush__", headers=ALICE, status=202)
        assert stored_files(app) == {key}
        storage.delete(key)


def delete_attachment(app: Any) -> None:
    app.delete(URL, headers=ALICE)


def delete_record(app: Any) -> None:
    app.delete(RECORD, headers=ALICE)


def delete_records(app: Any) -> None:
    app.delete(f"{COLLECTION}/records", headers=ALICE)


def delete_collection(app: Any) -> None:
    app.delete(COLLECTION, headers=ALICE)


def delete_bucket(app: Any) -> None:
    app.delete(BUCKET, headers=ALICE)


@pytest.mark.parametrize(
    "delete",
    [delete_attachment, delete_record, delete_records, delete_collection, delete_bucket],
)
class TestKeepOldFiles:
    def test_keeps_all(self, build: Build, delete: Callable[[Any], None]) -> None:
        app = build(keep_old_files="true")
        keys = {key_of(attach(app).json), key_of(attach(app).json)}
        delete(app)
        assert stored_files(app) == keys
        assert {state for _, _, state in stored_links(app)} == {"kept"}

    @ON_MEMORY
    def test_keeps_those_of_its_collection(
        self, build: Build, delete: Callable[[Any], None]
    ) -> None:
        app = build(**{"resources.b.d.keep_old_files": "true"})
        put_collection(app, f"{BUCKET}/collections/d")
        attach(app)
        key = key_of(attach(app, f"{BUCKET}/collections/d/records/r").json)
        delete(app)
        assert stored_files(app) == {key}


@ON_POSTGRESQL
class TestKeptBefore:
    """Files that were kept stay when the setting no longer keeps old files."""

    def test_by_a_record_that_is_replaced(self, build: Build) -> None:
        keeping = build(keep_old_files="true")
        kept = key_of(attach(keeping).json)
        attach(keeping)
        app = build()
        new = key_of(attach(app).json)
        assert stored_files(app) == {kept, new}

    def test_by_an_earlier_record_of_the_same_id(self, build: Build) -> None:
        keeping = build(keep_old_files="true")
        kept = key_of(attach(keeping).json)
        delete_record(keeping)
        app = build()
        batch(app, request("PUT", RECORD), request("PATCH", RECORD, body={"data": {"n": 1}}))
        assert stored_files(app) == {kept}


class TestBatch:
    @ON_DATABASES
    def test_keeps_what_it_uploads_and_deletes(self, build: Build) -> None:
        app = build(keep_old_files="true", extensions="any")
        put(app, RECORD)
        upload = request("PUT", f"{URL}?filename=a.json", body={"a": 1})
        answers = batch(app, upload, request("DELETE", URL))
        assert [answer["status"] for answer in answers] == [200, 204]
        assert {state for _, _, state in stored_links(app)} == {"kept"}

    def test_deletes_an_attachment(self, app: Any) -> None:
        attach(app)
        answers = batch(app, request("DELETE", URL))
        assert [answer["status"] for answer in answers] == [204]
        assert attachment_of(app) is None
        assert not stored_files(app)

    def test_deletes_several(self, app: Any) -> None:
        attach(app)
        attach(app, OTHER)
        answers = batch(app, request("DELETE", URL), request("DELETE", f"{OTHER}/attachment"))
        assert [answer["status"] for answer in answers] == [204, 204]
        assert attachment_of(app) is attachment_of(app, OTHER) is None
        assert not stored_files(app)

    def test_deletes_an_attachment_and_its_record(self, app: Any) -> None:
        attach(app)
        answers = batch(app, request("DELETE", URL), request("DELETE", RECORD))
        assert [answer["status"] for answer in answers] == [204, 200]
        assert not stored_files(app)

    def test_puts_raw_bytes(self, app: Any) -> None:
        answers = batch(
            app,
            request("PUT", f"{URL}?filename=a.json", body={"in": "the file"}),
            request("PUT", f"{OTHER}/attachment?filename=b.json", body={"in": "another"}),
            request("GET", RECORD),
        )
        assert [answer["status"] for answer in answers] == [201, 201, 200]
        assert answers[2]["body"]["data"]["attachment"] == answers[0]["body"]
        assert read(app) == b'{"in":"the file"}'
        assert read(app, f"{OTHER}/attachment") == b'{"in":"another"}'
        assert len(stored_files(app)) == 2

    def test_puts_twice_on_one_record(self, app: Any) -> None:
        attach(app)
        answers = batch(
            app,
            request("PUT", f"{URL}?filename=a.json", body={"n": 1}),
            request("PUT", f"{URL}?filename=b.json", body={"n": 2}),
        )
        assert [answer["status"] for answer in answers] == [200, 200]
        assert read(app) == b'{"n":2}'
        assert len(stored_files(app)) == 1

    def test_puts_and_deletes(self, app: Any) -> None:
        answers = batch(
            app,
            request("PUT", f"{URL}?filename=a.json", body={"n": 1}),
            request("DELETE", URL),
        )
        assert [answer["status"] for answer in answers] == [201, 204]
        assert attachment_of(app) is None
        assert not stored_files(app)

    def test_puts_and_deletes_the_record(self, app: Any) -> None:
        batch(
            app,
            request("PUT", f"{URL}?filename=a.json", body={"n": 1}),
            request("DELETE", RECORD),
        )
        app.get(RECORD, headers=ALICE, status=404)
        assert not stored_files(app)

    def test_creates_the_collection_too(self, app: Any) -> None:
        collection = f"{BUCKET}/collections/new"
        answers = batch(
            app,
            request("PUT", collection, body={"data": {}}),
            request("PUT", f"{collection}/records/r/attachment?filename=a.json", body={"n": 1}),
        )
        assert [answer["status"] for answer in answers] == [201, 201]
        assert read(app, f"{collection}/records/r/attachment") == b'{"n":1}'

    def test_reads(self, build: Build) -> None:
        app = build(downloads="proxy")
        attach(app)
        (answer,) = batch(app, request("HEAD", URL))
        assert answer["status"] == 200
        assert answer["headers"]["Content-Length"] == str(len(CONTENT))

    def test_a_request_that_is_refused_leaves_the_others(self, app: Any) -> None:
        """As in Kinto's batches, parts with a 4xx change nothing, and the others are committed."""
        attach(app)
        attach(app, OTHER)
        answers = batch(
            app,
            request("DELETE", URL),
            request("DELETE", f"{OTHER}/attachment", headers={"If-Match": '"1"'}),
            request("PUT", f"{COLLECTION}/records/x/attachment", body={}),
            request("DELETE", f"{COLLECTION}/records/ghost/attachment"),
        )
        assert [answer["status"] for answer in answers] == [204, 412, 400, 404]
        assert attachment_of(app) is None
        assert stored_files(app) == {key_of(attachment_of(app, OTHER))}

    def test_a_file_that_is_refused_once_it_is_stored_is_undone(self, app: Any) -> None:
        put(app, COLLECTION, data={"schema": {"required": ["title"]}})
        put(app, OTHER, data={"title": "A"})
        answers = batch(
            app,
            request("PUT", f"{URL}?filename=a.json", body={"n": 1}),
            request("PUT", f"{OTHER}/attachment?filename=a.json", body={"n": 2}),
        )
        assert [answer["status"] for answer in answers] == [400, 200]
        assert stored_files(app) == {key_of(attachment_of(app, OTHER))}

    def test_does_not_read_bytes(self, app: Any) -> None:
        location = attach(app).json["location"]
        answers = batch(app, request("GET", URL), request("GET", location[19:]))
        for answer in answers:
            assert answer["status"] == 400
            assert answer["body"]["errno"] == 107

    def test_of_two_writes_of_one_record_the_second_is_refused(self, app: Any) -> None:
        attach(app)
        stale = attachment_of(app)
        answers = batch(
            app,
            request("PUT", f"{URL}?filename=a.json", body={"n": 1}),
            request("PUT", RECORD, body={"data": {"attachment": stale}}),
        )
        assert [answer["status"] for answer in answers] == [200, 400]
        assert read(app) == b'{"n":1}'

    @ON_POSTGRESQL
    def test_that_is_aborted_leaves_all_as_it_was(self, app: Any) -> None:
        attach(app)
        before = app.get(RECORD, headers=ALICE).json

        def refuse(event: Any) -> None:
            raise http_error(HTTPBadRequest(), message="refused by another plugin")

        on_event(app, ResourceChanged, refuse)
        answers = batch(
            app,
            request("PUT", f"{URL}?filename=a.json", body={"n": 1}),
            request("PUT", f"{OTHER}/attachment?filename=a.json", body={"n": 1}),
            status=400,
        )
        assert answers == []
        assert app.get(RECORD, headers=ALICE).json == before
        assert read(app) == CONTENT
        assert len(stored_files(app)) == 1

    def test_of_a_replacement_and_a_precondition_that_fails(self, app: Any) -> None:
        """A DELETE and a 412 in one batch: the file and the attachment both exist, or neither."""
        attach(app)
        put(app, OTHER)
        answers = batch(
            app,
            request("DELETE", URL),
            request("PUT", OTHER, body={"data": {}}, headers={"If-None-Match": "*"}),
        )
        assert answers[1]["status"] == 412
        attachment = attachment_of(app)
        assert bool(attachment) == bool(stored_files(app))

    def test_names_are_kept_apart(self, build: Build) -> None:
        app = build(randomize="false")
        answers = batch(
            app,
            request("PUT", f"{URL}?filename=a.json", body={"n": 1}),
            request("PUT", f"{OTHER}/attachment?filename=a.json", body={"n": 2}),
        )
        assert [answer["status"] for answer in answers] == [201, 201]
        assert stored_files(app) == {"a.json", "a-1.json"}
        assert read(app, f"{OTHER}/attachment") == b'{"n":2}'


def test_after_a_raw_upload(app: Any) -> None:
    put_raw(app)
    app.delete(URL, headers=ALICE)
    assert not stored_files(app)
