"""Quotas: refusals and the space left, for each way to attach a file."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import pytest
import transaction
from kinto.core.events import ResourceChanged
from pyramid.httpexceptions import HTTPException

from kinto_attachment import attach as attach_by_code
from kinto_attachment.errors import AttachmentError
from kinto_attachment.index import usage
from kinto_attachment.maintenance.gc import gc
from tests.support import direct, lingering, waiting
from tests.support.application import (
    ALICE,
    BUCKET,
    COLLECTION,
    DEFAULT,
    OTHER,
    RECORD,
    Part,
    attach,
    attachment_of,
    error,
    on_event,
    post_form_to,
    put,
    put_collection,
    put_raw,
    read,
    send,
    stored_files,
    stored_links,
)
from tests.support.backends import ON_DATABASES, ON_DIRECT, ON_POSTGRESQL, Build
from tests.support.ietf_client import INTEROP_VERSION
from tests.support.sampling import sampled
from tests.support.statements import statements
from tests.support.tus import BYTES, TUS, append, begin, create
from tests.support.usage import held, miscounted

pytestmark = ON_DATABASES

QUOTA = {"resources.b.quota_bytes": "30"}
DRAFT = {"Upload-Draft-Interop-Version": str(INTEROP_VERSION)}
FILES = {"resources.b.quota_files": "2"}
# The collection has less room than its bucket, or the other way round.
BOTH = {
    "resources.b.quota_bytes": "1G",
    "resources.b.c.quota_bytes": "30",
    "resources.full.quota_bytes": "30",
    "resources.full.c.quota_bytes": "1G",
}
IN_FULL_BUCKET = "/buckets/full/collections/c/records/r"
SOURCE = "/buckets/s/collections/c/records/source"  # In a bucket without a quota.
TRIGGER = "/buckets/s/collections/c/records/trigger"


def used(app: Any, scope: str = BUCKET) -> tuple[int, int] | None:
    """Files and bytes by the counter of a bucket or a collection."""
    with transaction.manager:
        found = app.app.registry.attachment_usage.known([scope])
    return (found[scope].files, found[scope].bytes) if found else None


# The ways: each attaches a file to the record, and returns the status of what has refused it.


def form(app: Any, content: bytes, filename: str) -> int:
    return int(attach(app, content=content, filename=filename, status="*").status_code)


def raw(app: Any, content: bytes, filename: str) -> int:
    return int(put_raw(app, content=content, filename=filename, status="*").status_code)


def chunked(app: Any, content: bytes, filename: str) -> int:
    url = f"{RECORD}/attachment?filename={filename}"
    return int(send(app, "PUT", url, BytesIO(content), status="*").status_code)


def tus(app: Any, content: bytes, filename: str) -> int:
    answer = create(app, len(content), filename=filename, status="*")
    if answer.status_code != 201:
        return int(answer.status_code)
    return int(append(app, answer.headers["Location"], 0, content, status="*").status_code)


def tus_of_unknown_length(app: Any, content: bytes, filename: str) -> int:
    answer = create(app, None, filename=filename, status="*")
    if answer.status_code != 201:
        return int(answer.status_code)
    headers = {"Upload-Length": str(len(content)), **ALICE}
    url = answer.headers["Location"]
    return int(append(app, url, 0, content, headers, status="*").status_code)


def ietf(app: Any, content: bytes, filename: str) -> int:
    url = f"{RECORD}/attachment?filename={filename}"
    headers = {**ALICE, **DRAFT, "Upload-Complete": "?0", "Upload-Length": str(len(content))}
    answer = app.put(url, b"", headers=headers, status="*")
    if answer.status_code != 201:
        return int(answer.status_code)
    headers = {
        **ALICE,
        **DRAFT,
        "Upload-Complete": "?1",
        "Upload-Offset": "0",
        "Content-Type": "application/partial-upload",
    }
    answer = app.patch(answer.headers["Location"], content, headers=headers, status="*")
    return int(answer.status_code)


def by_url(app: Any, content: bytes, filename: str) -> int:
    """A direct upload, to the server's own URL."""
    named = {"filename": filename}
    answer = direct.create(app, len(content), status="*", attachment=named, via="kinto")
    if answer.status_code != 201:
        return int(answer.status_code)
    return int(direct.put_own(app, answer.json["data"], content, status="*").status_code)


def by_storage(app: Any, content: bytes, filename: str) -> int:
    """A direct upload, to the storage."""
    named = {"filename": filename}
    answer = direct.create(app, len(content), status="*", attachment=named, via="storage")
    if answer.status_code != 201:
        return int(answer.status_code)
    upload = {**answer.json["data"], "path": answer.headers["Location"]}
    direct.send_all(upload, content)
    return int(direct.complete(app, upload, status="*").status_code)


def copy(app: Any, content: bytes, filename: str) -> int:
    attach(app, SOURCE, content, filename)
    body = {"copy_from": SOURCE}
    answer = app.post_json(f"{RECORD}/attachment", body, headers=ALICE, status="*")
    return int(answer.status_code)


def copy_in_batch(app: Any, content: bytes, filename: str) -> int:
    attach(app, SOURCE, content, filename)
    parts = [
        {"method": "PUT", "path": TRIGGER, "body": {"data": {"kept": True}}},
        {
            "method": "POST",
            "path": f"{RECORD}/attachment",
            "headers": {"Content-Type": "application/json"},
            "body": {"copy_from": SOURCE},
        },
    ]
    answer = app.post_json("/batch", {"requests": parts}, headers=ALICE)
    first, second = answer.json["responses"]
    assert first["status"] in (200, 201)
    return int(second["status"])


def server_code(app: Any, content: bytes, filename: str) -> int:
    outcome: list[int] = []

    def act(event: Any) -> None:
        ids = [each.get("new", {}).get("id") for each in event.impacted_objects]
        if event.payload["resource_name"] == "record" and "trigger" in ids:
            try:
                attach_by_code(event.request, RECORD, content, filename)
            except AttachmentError as refusal:
                outcome.append(refusal.status)
            except HTTPException as refusal:
                outcome.append(refusal.status_code)

    on_event(app, ResourceChanged, act)
    put(app, TRIGGER, data={"n": 1})
    app.app.registry.on_event = None
    return outcome[0] if outcome else 200


WAYS = (
    form,
    raw,
    chunked,
    tus,
    tus_of_unknown_length,
    ietf,
    by_url,
    copy,
    copy_in_batch,
    server_code,
)
IN_STEPS = (tus, tus_of_unknown_length, ietf, by_url, by_storage)
Way = Callable[[Any, bytes, str], int]
BY_THE_QUOTA = 507
SCHEMA = {
    "type": "object",
    "properties": {"attachment": {"properties": {"size": {"maximum": 12}}}},
}


def start(app: Any) -> None:
    """Create a file of ten bytes in a bucket with a quota, and a bucket without one."""
    put_collection(app, "/buckets/s/collections/c")
    attach(app, content=b"0123456789")


class OfEachWay:
    """``way`` is one of those above."""

    @pytest.mark.parametrize(
        ("settings", "name", "statuses"),
        [
            (QUOTA, "a.txt", {BY_THE_QUOTA}),
            ({"resources.b.c.quota_bytes": "30"}, "a.txt", {BY_THE_QUOTA}),
            ({"quota_bytes": "30", "resources.s.quota_bytes": "0"}, "a.txt", {BY_THE_QUOTA}),
            ({**QUOTA, "resources.b.max_size": "30"}, "a.txt", {413}),
            ({**QUOTA, "resources.b.extensions": "txt"}, "a.png", {400}),
        ],
        ids=["bucket", "collection", "each bucket", "max_size", "extensions"],
    )
    def test_what_is_refused_leaves_all_as_before(
        self, build: Build, way: Way, settings: dict[str, str], name: str, statuses: set[int]
    ) -> None:
        app = build(**settings)
        start(app)
        before = attachment_of(app), stored_links(app)
        others = {link for link in before[1] if link[0] == SOURCE}
        assert way(app, b"x" * 31, name) in statuses
        links = {link for link in stored_links(app) if link[0] != SOURCE}
        assert (attachment_of(app), links) == (before[0], before[1] - others)
        self.check(app, 1, 10)

    @sampled(2)
    def test_what_a_schema_refuses(self, build: Build, way: Way) -> None:
        app = build(**QUOTA)
        start(app)
        put(app, COLLECTION, data={"schema": SCHEMA})
        assert way(app, b"x" * 15, "a.txt") == 400
        assert attachment_of(app)["size"] == 10
        self.check(app, 1, 10)

    @sampled(2)
    def test_the_last_byte_is_free(self, build: Build, way: Way) -> None:
        app = build(**QUOTA)
        start(app)
        keeps_both = way in IN_STEPS  # Until the end.
        content = b"x" * (20 if keeps_both else 30)
        assert way(app, content, "a.txt") in (200, 201, 204)
        assert read(app) == content
        self.check(app, 1, len(content))

    @sampled(2)
    def test_too_many_files(self, build: Build, way: Way) -> None:
        app = build(**FILES)
        start(app)
        attach(app, OTHER, b"")
        app.delete(RECORD, headers=ALICE)
        attach(app, f"{COLLECTION}/records/third", b"3")
        assert way(app, b"x", "a.txt") == BY_THE_QUOTA
        app.get(RECORD, headers=ALICE, status=404)
        self.check(app, 2, 1)

    def check(self, app: Any, files: int, size: int) -> None:
        """Compare the counters with these numbers, and with the real usage."""
        registry = app.app.registry
        assert held(registry, BUCKET) == (files, size)
        counted = used(app) or used(app, COLLECTION)
        assert counted == (files, size)
        assert not miscounted(registry)


@sampled(4, "backends", "way", "settings")
@pytest.mark.parametrize("way", WAYS)
class TestOfEachWay(OfEachWay):
    pass


@ON_DIRECT
@sampled(2, "backends", "way", "settings")
@pytest.mark.parametrize("way", [by_storage])
class TestOfTheWayToTheStorage(OfEachWay):
    pass


class TestRefusals:
    def test_tell_what_a_client_needs(self, build: Build) -> None:
        app = build(**QUOTA)
        attach(app, content=b"0123456789")
        answer = attach(app, OTHER, b"x" * 21, status=507)
        assert error(answer) == (121, "The quota of the bucket leaves 20 of 30 bytes.")
        assert answer.json["details"] == {
            "reason": "quota",
            "limit": "quota_bytes",
            "of": BUCKET,
            "setting": "kinto.attachment.resources.b.quota_bytes",
            "quota": 30,
            "used": 10,
            "left": 20,
        }
        assert "Retry-After" not in answer.headers
        assert answer.headers["Access-Control-Allow-Origin"] == "*"

    @pytest.mark.parametrize("record", [RECORD, IN_FULL_BUCKET])
    def test_come_before_the_body_if_its_length_is_told(self, build: Build, record: str) -> None:
        app = build(**BOTH)
        put_collection(app, IN_FULL_BUCKET.partition("/records/")[0])
        put_raw(app, record, content=b"x" * 31, status=507)
        assert app.app.body.taken == 0
        for _ in range(2):  # After this, the process has both counters cached for a moment.
            attach(app, f"{record}2", b"")
        put_raw(app, record, content=b"x" * 31, status=507)
        assert app.app.body.taken == 0
        send(app, "PUT", f"{record}/attachment?filename=a.txt", BytesIO(b"x" * 31), status=507)
        assert app.app.body.taken == 31

    @pytest.mark.parametrize("record", [RECORD, IN_FULL_BUCKET])
    def test_come_before_the_rest_of_the_body(self, build: Build, record: str) -> None:
        """The body of the tests gives only a part at once, like a socket."""
        app = build(**BOTH)
        put_collection(app, IN_FULL_BUCKET.partition("/records/")[0])
        body, url = BytesIO(bytes(100_000)), f"{record}/attachment?filename=a.txt"
        send(app, "PUT", url, body, status=507)
        assert app.app.body.taken < 50_000
        upload = begin(app, 25, record)
        attach(app, f"{record}2", b"x" * 10)
        append(app, upload, 0, b"x" * 21, status=507)
        assert app.app.body.taken == 0
        told = {**ALICE, **TUS, **BYTES, "Upload-Offset": "0"}
        unlimited = begin(app, None, record)
        send(app, "PATCH", unlimited, BytesIO(bytes(100_000)), headers=told, status=507)
        assert app.app.body.taken < 50_000
        append(app, upload, 0, b"x" * 20, status=204)

    @ON_POSTGRESQL
    @pytest.mark.parametrize("record", [RECORD, IN_FULL_BUCKET])
    def test_of_copies_come_before_the_record(self, build: Build, record: str) -> None:
        """Otherwise, listeners would get a change that is rolled back."""
        app = build(**BOTH)
        put_collection(app, IN_FULL_BUCKET.partition("/records/")[0])
        put_collection(app, "/buckets/s/collections/c")
        attach(app, SOURCE, b"x" * 31)
        events: list[Any] = []
        on_event(app, ResourceChanged, events.append)
        body = {"copy_from": SOURCE}
        app.post_json(f"{record}/attachment", body, headers=ALICE, status=507)
        assert not events
        attach(app, SOURCE, b"x" * 30)
        app.post_json(f"{record}/attachment", body, headers=ALICE, status=201)
        assert events

    def test_of_direct_uploads_whose_room_was_taken(self, build: Build) -> None:
        app = build(**QUOTA)
        upload = direct.begin(app, 20, via="kinto")
        attach(app, OTHER, b"x" * 11)
        direct.put_own(app, upload, b"y" * 20, status=507)
        assert app.app.body.taken == 0
        assert used(app) == (1, 11)
        app.delete(OTHER, headers=ALICE)
        direct.put_own(app, upload, b"y" * 20, status=201)
        assert used(app) == (1, 20)

    @pytest.mark.parametrize("scope", [COLLECTION, BUCKET])
    def test_of_parts_of_a_batch_know_of_each_other(self, build: Build, scope: str) -> None:
        """Each fits alone. A refusal at the end would fail the whole batch."""
        setting = {BUCKET: "resources.b.quota_bytes", COLLECTION: "resources.b.c.quota_bytes"}
        app = build(**{"quota_bytes": "1G", setting[scope]: "30"})
        put_collection(app, "/buckets/s/collections/c")
        for number in (1, 2):
            attach(app, f"{SOURCE}{number}", b"x" * 20)
        parts = [
            {
                "method": "POST",
                "path": f"{COLLECTION}/records/r{number}/attachment",
                "headers": {"Content-Type": "application/json"},
                "body": {"copy_from": f"{SOURCE}{number}"},
            }
            for number in (1, 2)
        ]
        answer = app.post_json("/batch", {"requests": parts}, headers=ALICE)
        assert [each["status"] for each in answer.json["responses"]] == [201, 507]
        assert used(app, scope) == (1, 20)

    def test_of_a_part_leave_its_room_to_the_next(self, build: Build) -> None:
        """A part that another rule refuses uses no space."""
        app = build(**QUOTA)
        copies = [self.copy(app, number, size) for number, size in ((1, 20), (2, 11), (3, 12))]
        put(app, COLLECTION, data={"schema": SCHEMA})
        answer = app.post_json("/batch", {"requests": copies}, headers=ALICE)
        assert [each["status"] for each in answer.json["responses"]] == [400, 201, 201]
        assert used(app) == (2, 23)

    def test_count_a_file_once_that_a_batch_shares(self, build: Build) -> None:
        app = build(**QUOTA)
        first = self.copy(app, 1, 20)
        paths = [first["path"], f"{COLLECTION}/records/other/attachment", first["path"]]
        copies = [{**first, "path": path} for path in paths]
        answer = app.post_json("/batch", {"requests": copies}, headers=ALICE)
        assert [each["status"] for each in answer.json["responses"]] == [201, 201, 200]
        assert used(app) == (1, 20)

    @pytest.mark.runs_on("local-postgresql")
    def test_are_for_the_part_also_if_others_take_the_room_meanwhile(self, build: Build) -> None:
        """The counters are written last, and a refusal then would fail the whole batch."""
        app = build(**QUOTA)
        put_collection(app, f"{BUCKET}/collections/d")
        there = f"{BUCKET}/collections/d/records/r"
        copies = [self.copy(app, number, size) for number, size in ((1, 20), (2, 10))]
        title = {"method": "PUT", "path": OTHER, "body": {"data": {"title": "x"}}}
        begun: list[Any] = []

        def take_room(event: Any) -> None:
            """Use some of the room before the parts are committed."""
            if event.payload["resource_name"] == "record" and not begun:
                begun.append(event)
                with ThreadPoolExecutor(1) as thread:
                    thread.submit(attach, app, there, b"x" * 15).result(waiting.SECONDS)

        on_event(app, ResourceChanged, take_room)
        answer = app.post_json("/batch", {"requests": [title, *copies]}, headers=ALICE)
        responses = answer.json["responses"]
        assert [each["status"] for each in responses] == [201, 507, 201]
        assert responses[1]["body"]["details"]["left"] == 15
        assert attachment_of(app, f"{COLLECTION}/records/r2")["size"] == 10
        app.get(f"{COLLECTION}/records/r1", headers=ALICE, status=404)
        assert used(app) == (2, 25)

    def copy(self, app: Any, number: int, size: int) -> dict[str, Any]:
        """A part of a batch that copies a file from a bucket without a quota."""
        put_collection(app, "/buckets/s/collections/c")
        attach(app, f"{SOURCE}{number}", b"x" * size)
        return {
            "method": "POST",
            "path": f"{COLLECTION}/records/r{number}/attachment",
            "headers": {"Content-Type": "application/json"},
            "body": {"copy_from": f"{SOURCE}{number}"},
        }

    def test_are_for_the_file_and_not_for_the_form(self, build: Build) -> None:
        app = build(**QUOTA)
        answer = attach(app, content=b"x" * 30, data={"title": "y" * 1000})
        assert answer.status_code == 201
        assert used(app) == (1, 30)

    def test_of_bucket_and_collection_hold_both(self, build: Build) -> None:
        app = build(**{"resources.b.quota_bytes": "30", "resources.b.c.quota_bytes": "20"})
        attach(app, content=b"x" * 15)
        details = attach(app, OTHER, b"x" * 6, status=507).json["details"]
        assert (details["of"], details["left"]) == (COLLECTION, 5)
        put_collection(app, f"{BUCKET}/collections/d")
        elsewhere = f"{BUCKET}/collections/d/records/r"
        details = attach(app, elsewhere, b"x" * 16, status=507).json["details"]
        assert (details["of"], details["left"]) == (BUCKET, 15)
        attach(app, elsewhere, b"x" * 15)
        assert used(app) == (2, 30)
        assert used(app, COLLECTION) == (1, 15)

    def test_of_default_buckets(self, build: Build) -> None:
        app = build(**{"resources.default.quota_bytes": "30"})
        attach(app, DEFAULT, b"x" * 30)
        answer = attach(app, f"{DEFAULT}2", b"x", status=507)
        setting = "kinto.attachment.resources.default.quota_bytes"
        assert answer.json["details"]["setting"] == setting
        attach(app, content=b"x" * 31)

    def test_are_counted(self, build: Build) -> None:
        app = build(**QUOTA)
        counted: list[Any] = []
        metrics = app.app.registry.metrics
        before, metrics.count = metrics.count, lambda *args, **more: counted.append((args, more))
        try:
            attach(app, content=b"x" * 31, status=507)
        finally:
            metrics.count = before
        assert (("attachments.refused",), {"unique": [("by", "quota")]}) in counted

    def test_of_new_records(self, build: Build) -> None:
        app = build(**QUOTA)
        url = f"{COLLECTION}/attachments"
        part = Part("attachment", b"x" * 31, "a.txt")
        post_form_to(app, url, part, status=507)
        assert not app.get(f"{COLLECTION}/records", headers=ALICE).json["data"]
        post_form_to(app, url, Part("attachment", b"x" * 30, "a.txt"), status=201)
        assert used(app) == (1, 30)


class TestWhatCounts:
    def test_kept_files(self, build: Build) -> None:
        app = build(keep_old_files="true", **QUOTA)
        attach(app, content=b"x" * 10)
        attach(app, content=b"x" * 15)
        attach(app, content=b"x" * 6, status=507)
        assert used(app) == (2, 25)
        version = app.get(f"{RECORD}/attachment/versions", headers=ALICE).json["data"][-1]["id"]
        url = f"{RECORD}/attachment/versions/{version}"
        app.post(f"{url}/restore", headers=ALICE, status=200)
        assert used(app) == (2, 25)
        attach(app, content=b"x" * 5)
        app.delete(url, headers=ALICE)
        assert used(app) == (2, 20)
        app.delete(RECORD, headers=ALICE)
        assert used(app) == (2, 20)

    def test_lingering_files(self, build: Build) -> None:
        app = build(linger="1h", **QUOTA)
        attach(app, content=b"x" * 20)
        attach(app, content=b"x" * 11, status=507)
        attach(app, content=b"x" * 10)
        assert used(app) == (2, 30)
        lingering.end(app)
        assert used(app) == (1, 10)

    def test_a_shared_file_once(self, build: Build) -> None:
        app = build(**QUOTA, **{"resources.b.c.quota_files": "2"})
        put_collection(app, f"{BUCKET}/collections/d")
        there = f"{BUCKET}/collections/d/records/r"
        attach(app, content=b"x" * 20)
        for record in (OTHER, there):
            body = {"copy_from": RECORD}
            app.post_json(f"{record}/attachment", body, headers=ALICE, status=201)
        assert used(app) == (1, 20)
        assert used(app, COLLECTION) == (1, 20)
        app.delete(RECORD, headers=ALICE)
        app.delete(OTHER, headers=ALICE)
        assert used(app, COLLECTION) == (0, 0)
        assert used(app) == (1, 20)
        app.delete(there, headers=ALICE)
        assert used(app) == (0, 0)

    def test_unfinished_uploads(self, build: Build) -> None:
        app = build(**QUOTA)
        url = begin(app, 25)
        begin(app, 25, OTHER)  # Empty creations reserve nothing.
        assert used(app) in (None, (0, 0))
        append(app, url, 0, b"x" * 20)
        assert used(app) == (0, 20)
        attach(app, OTHER, b"y" * 11, status=507)
        append(app, url, 20, b"x" * 5, status=204)
        assert used(app) == (1, 25)
        assert len(stored_files(app)) == 1

    def test_cancelled_uploads_do_not(self, build: Build) -> None:
        app = build(**QUOTA)
        url = begin(app, 25)
        append(app, url, 0, b"x" * 20)
        app.delete(url, headers={**ALICE, "Tus-Resumable": "1.0.0"})
        assert used(app) == (0, 0)
        gc(app.app.registry)
        assert used(app) == (0, 0)

    def test_what_does_not_fit_is_not_kept_of_an_upload(self, build: Build) -> None:
        app = build(**QUOTA)
        url = begin(app, 25)
        append(app, url, 0, b"x" * 10)
        attach(app, OTHER, b"y" * 15)
        append(app, url, 10, b"x" * 6, status=507)
        send_chunks = {**ALICE, "Tus-Resumable": "1.0.0", "Upload-Offset": "10"}
        send_chunks["Content-Type"] = "application/offset+octet-stream"
        send(app, "PATCH", url, BytesIO(b"x" * 6), headers=send_chunks, status=507)
        assert used(app) == (1, 25)
        app.delete(OTHER, headers=ALICE)
        append(app, url, 10, b"x" * 15, status=204)
        assert read(app) == b"x" * 25
        assert used(app) == (1, 25)

    def test_files_without_bytes(self, build: Build) -> None:
        app = build(**QUOTA)
        attach(app, content=b"")
        attach(app, OTHER, b"x")
        assert used(app) == (2, 1)
        app.delete(RECORD, headers=ALICE)
        assert used(app) == (1, 1)

    def test_compressed_bytes(self, build: Build) -> None:
        app = build(gzipped="true", **{"resources.b.quota_bytes": "100"})
        size = attach(app, content=b"x" * 10_000).json["size"]
        assert used(app) == (1, size)
        put_raw(app, OTHER, content=bytes(range(256)), status=507)
        assert used(app) == (1, size)

    def test_deleted_collections_and_buckets(self, build: Build) -> None:
        app = build(**QUOTA, **{"resources.b.c.quota_bytes": "30"})
        attach(app, content=b"x" * 10)
        attach(app, OTHER, b"x" * 10)
        app.delete(COLLECTION, headers=ALICE)
        assert used(app) == used(app, COLLECTION) == (0, 0)
        put_collection(app)
        attach(app, content=b"x" * 10)
        app.delete(BUCKET, headers=ALICE)
        assert used(app) == used(app, COLLECTION) == (0, 0)

    def test_nothing_after_a_flush(self, build: Build) -> None:
        app = build({"flush_endpoint_enabled": "true"}, **QUOTA)
        attach(app, content=b"x" * 30)
        app.post("/__flush__", headers=ALICE)
        put_collection(app)
        attach(app, content=b"x" * 30)
        assert used(app) == (1, 30)

    def test_a_chunk_counts_in_the_bucket_and_in_the_collection_or_in_neither(
        self, build: Build
    ) -> None:
        """When the bytes have arrived, the collection has no room left, but the bucket has."""
        app = build(**QUOTA, **{"resources.b.c.quota_bytes": "20"})
        url, other = begin(app, 10), begin(app, 15, OTHER)

        class WithAnother(BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                if self.tell() == 0:
                    with ThreadPoolExecutor(1) as thread:
                        sent = thread.submit(append, app, other, 0, b"y" * 14)
                        sent.result(waiting.SECONDS)
                return super().read(size)

        chunk = {**ALICE, "Tus-Resumable": "1.0.0", "Upload-Offset": "0"}
        chunk["Content-Type"] = "application/offset+octet-stream"
        body = WithAnother(b"x" * 10)
        send(app, "PATCH", url, body, headers={**chunk, "Content-Length": "10"}, status=507)
        assert used(app) == used(app, COLLECTION) == (0, 14)
        assert not miscounted(app.app.registry)


@ON_DIRECT
class TestUploadsToTheStorage:
    """The storage accepts the announced bytes without asking the server."""

    def test_count_from_their_creation_on(self, build: Build) -> None:
        app = build(**QUOTA)
        upload = direct.begin(app, 20)
        assert used(app) == (0, 20)
        refused = direct.create(app, 11, OTHER, status=507).json
        assert (refused["errno"], refused["details"]["left"]) == (121, 10)
        attach(app, OTHER, b"y" * 11, status=507)
        attach(app, OTHER, b"y" * 10)
        direct.send_all(upload, b"x" * 20)
        direct.complete(app, upload, status=201)
        assert used(app) == (2, 30)
        assert not miscounted(app.app.registry)

    @pytest.mark.one_way  # A counter is the sum of several rows, and a random one is changed.
    def test_do_not_count_once_they_have_ended(self, build: Build) -> None:
        app = build(**QUOTA)
        for _ in range(2):
            upload = direct.begin(app, 30)
            app.delete(upload["path"], headers=ALICE, status=204)
            assert used(app) == (0, 0)
        hashed = {"hash": "0" * 64}
        upload = direct.begin(app, 30, attachment=hashed)
        direct.send_all(upload, b"x" * 30)
        direct.complete(app, upload, status=400)
        assert used(app) == (0, 0)

    @pytest.mark.one_way  # Any of them may be the first one.
    def test_that_begin_at_once_do_not_exceed_it(self, build: Build) -> None:
        app = build(**QUOTA, **{"resources.b.c.quota_bytes": "20"})
        with ThreadPoolExecutor(6) as threads:
            answers = threads.map(
                lambda n: direct.create(app, 10, OTHER + n, status="*"), "abcdef"
            )
            statuses = sorted(answer.status_code for answer in answers)
        assert statuses == [201] * 2 + [507] * 4
        files = app.app.registry.attachment_storages.default.files
        assert len([*files.list_unfinished()]) == 2
        assert used(app) == used(app, COLLECTION) == (0, 20)
        assert not miscounted(app.app.registry)

    def test_cost_nothing_where_there_is_no_quota(self, build: Build) -> None:
        app = build(**{"resources.s.quota_bytes": "1"})
        direct.begin(app)
        assert used(app) is None


@ON_POSTGRESQL
class TestCosts:
    def test_one_statement_for_bucket_and_collection(self, build: Build) -> None:
        """And at most one before the body."""
        app = build(quota_bytes="1G", **{"resources.b.c.quota_files": "1000"})
        attach(app, content=b"x")
        for request in (
            lambda: attach(app, OTHER),
            lambda: put_raw(app),
            lambda: app.delete(RECORD, headers=ALICE),
        ):
            executed = [each for each in statements(app, request) if "attachment-usage" in each]
            writes = [each for each in executed if "UPDATE" in each]
            assert len(writes) == 1, executed
            assert len(executed) <= 2, executed

    def test_no_look_where_there_was_plenty_of_room_a_moment_ago(
        self, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(usage, "RECENT", 60.0)  # The machine may be slow.
        app = build(quota_bytes="1G")
        for _ in range(2):
            attach(app)
        executed = statements(app, lambda: attach(app, OTHER))
        assert len([each for each in executed if "attachment-usage" in each]) == 1, executed

    def test_nothing_where_there_is_no_quota(self, build: Build) -> None:
        app = build(**{"resources.s.quota_bytes": "1G", "resources.b.d.quota_bytes": "1G"})
        attach(app)
        for request in (lambda: attach(app, OTHER), lambda: app.delete(RECORD, headers=ALICE)):
            assert not [each for each in statements(app, request) if "usage" in each]


@ON_POSTGRESQL
class TestLowerQuotas:
    def test_refuse_nothing_that_takes_less(self, build: Build) -> None:
        before, after = build(**QUOTA), build(**{"resources.b.quota_bytes": "10"})
        attach(before, content=b"x" * 20)
        attach(before, OTHER, b"x" * 5)
        attach(after, content=b"x" * 21, status=507)
        attach(after, content=b"x" * 20)
        attach(after, content=b"x" * 4)
        attach(after, f"{COLLECTION}/records/third", b"x" * 2, status=507)
        attach(after, f"{COLLECTION}/records/third", b"x")
        assert used(after) == (3, 10)

    def test_higher_ones_hold_at_once(self, build: Build) -> None:
        before, after = build(**{"resources.b.quota_bytes": "10"}), build(**QUOTA)
        attach(before, content=b"x" * 10)
        attach(after, OTHER, b"x" * 20)
        attach(after, f"{COLLECTION}/records/third", b"x", status=507)
