"""Uploads in several requests, by tus."""

from __future__ import annotations

import io
import json
import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest
from kinto.core.events import ResourceChanged
from kinto.core.storage.exceptions import BackendError, IntegrityError
from pyramid.httpexceptions import HTTPForbidden

from kinto_attachment import AttachmentAdded, AttachmentReceiving
from kinto_attachment.errors import AttachmentGone
from kinto_attachment.files import session_writes, transactions
from kinto_attachment.http import saved_hashes
from kinto_attachment.maintenance.old_sessions import OldSessions
from kinto_attachment.maintenance.shards import WHOLE
from kinto_attachment.storage import Partial, local_partials
from kinto_attachment.storage.disk import LockedFile
from tests.support import waiting
from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    BUCKET,
    COLLECTION,
    CONTENT,
    DEFAULT,
    RECORD,
    attach,
    attachment_of,
    digest,
    error,
    on_event,
    put,
    put_raw,
    read,
    seen,
    send,
    sha256,
    stored_files,
)
from tests.support.backends import (
    EVERYWHERE,
    ON_DATABASES,
    ON_MEMORY,
    ON_OBJECT_STORES,
    ON_POSTGRESQL,
    Build,
)
from tests.support.tus import BYTES, TUS, append, begin, create, head, offset, state

SIZE = len(CONTENT)
MIB = 1024 * 1024


def version_of(app: Any) -> str:
    """The id of the record's only version, according to the list."""
    (version,) = app.get(f"{RECORD}/attachment/versions", headers=ALICE).json["data"]
    return str(version["id"])


@ON_OBJECT_STORES
def test_parts_that_break_off_are_kept_as_far_as_they_came(app: Any) -> None:
    """They go to the storage as they arrive. Two break off; a third has a wrong checksum."""
    content = random.Random(22).randbytes(20 * MIB + 5)
    url = begin(app, len(content))
    for start, end in ((0, 3 * MIB), (3 * MIB, 14 * MIB + 1)):
        headers = {**ALICE, **TUS, **BYTES, "Upload-Offset": str(start)}
        body, promised = io.BytesIO(content[start:end]), len(content) - start
        send(app, "PATCH", url, body, length=promised, headers=headers, status=400)
        assert offset(app, url) == end
    claimed = {**ALICE, "Upload-Checksum": f"sha1 {digest(content[end:], 'sha1')}"}
    append(app, url, end, bytes(len(content) - end), claimed, status=460)
    assert offset(app, url) == end
    append(app, url, end, content[end:], claimed)
    assert attachment_of(app)["hash"] == sha256(content)
    assert sha256(read(app)) == sha256(content)


@EVERYWHERE
class TestAFile:
    def test_arrives_in_several_requests(self, app: Any) -> None:
        created = create(app, SIZE)
        assert (created.status_code, created.body) == (201, b"")
        url = created.headers["Location"]
        assert offset(app, url) == 0
        for start in range(0, SIZE, 5):
            chunk = CONTENT[start : start + 5]
            last = append(app, url, start, chunk)
            assert (last.status_code, last.body) == (204, b"")
            assert offset(app, url) == start + len(chunk)
        assert read(app) == CONTENT
        assert attachment_of(app)["hash"] == sha256(CONTENT)
        assert last.headers["Content-Location"] == f"/v1{RECORD}/attachment"
        assert last.headers["ETag"] == app.get(RECORD, headers=ALICE).headers["ETag"]
        assert last.headers["Attachment-Version"] == version_of(app)
        assert head(app, url).headers["Attachment-Version"] == version_of(app)
        assert state(app, url)["state"] == "done"

    def test_arrives_with_its_creation(self, app: Any) -> None:
        created = create(app, SIZE, content=CONTENT)
        assert created.headers["Upload-Offset"] == str(SIZE)
        assert created.headers["Attachment-Version"] == version_of(app)
        assert read(app) == CONTENT

    def test_of_no_bytes_is_attached_at_the_creation(self, app: Any) -> None:
        url = begin(app, 0)
        assert attachment_of(app)["size"] == 0
        assert offset(app, url) == 0
        assert state(app, url)["state"] == "done"


@ON_DATABASES
class TestLastAnswer:
    def test_the_last_request_sent_again_gets_the_same_answer(self, app: Any) -> None:
        url = begin(app, SIZE)
        append(app, url, 0, CONTENT[:5])
        first = append(app, url, 5, CONTENT[5:])
        again = append(app, url, 5, CONTENT[5:])
        assert (again.status_code, dict(again.headers)) == (first.status_code, dict(first.headers))
        (event,) = seen(app, AttachmentAdded)
        assert event.attachment == attachment_of(app)

    def test_other_offsets_are_wrong_ones(self, app: Any) -> None:
        url = begin(app, SIZE, content=CONTENT[:5])
        append(app, url, 5, CONTENT[5:])
        for start in (2, SIZE + 1):
            assert error(append(app, url, start, b"x", status=409))[0] == 122

    def test_a_finished_upload_goes_on_to_answer(self, app: Any) -> None:
        url = begin(app, SIZE, content=CONTENT)
        told = head(app, url).headers
        assert (told["Upload-Offset"], told["Upload-Length"]) == (str(SIZE), str(SIZE))

    def test_its_cancellation_leaves_the_file(self, app: Any) -> None:
        url = begin(app, SIZE, content=CONTENT)
        app.delete(url, headers=ALICE, status=204)
        assert read(app) == CONTENT
        head(app, url, status=404)


@ON_DATABASES
class TestEnds:
    """Uploads that end without a file."""

    def test_cancelled(self, app: Any) -> None:
        url = begin(app, SIZE, content=CONTENT[:5])
        app.delete(url, headers={**ALICE, **TUS}, status=204)
        head(app, url, status=410)
        errno, message = error(append(app, url, 5, CONTENT[5:], status=410))
        assert (errno, message) == (110, "The upload has ended. It was cancelled.")
        assert state(app, url)["state"] == "failed"
        app.delete(url, headers=ALICE, status=410)
        assert stored_files(app) == set()

    def test_expired(self, build: Build) -> None:
        app = build(**{"uploads.idle_age": "0.000001s"})
        url = begin(app, SIZE)
        head(app, url, status=410)
        append(app, url, 0, CONTENT, status=410)
        assert state(app, url)["state"] == "expired"
        app.delete(url, headers=ALICE, status=410)
        clear_expired(app)

    def test_failed_by_what_other_plugins_refuse(self, app: Any) -> None:
        url = begin(app, SIZE, data=json.dumps({"title": 3}))
        schema = {"type": "object", "properties": {"title": {"type": "string"}}}
        put(app, COLLECTION, data={"schema": schema})
        refused = append(app, url, 0, CONTENT, status=400)
        assert "title" in error(refused)[1]
        assert refused.headers["Tus-Resumable"] == "1.0.0"
        head(app, url, status=410)
        told = state(app, url)
        assert (told["state"], told["error"]) == ("failed", refused.json)
        app.get(RECORD, headers=ALICE, status=404)
        assert stored_files(app) == set()


def clear_expired(app: Any) -> None:
    registry = app.app.registry
    list(OldSessions(registry, registry.attachment_storages, WHOLE, dry_run=False).remove())


@ON_DATABASES
class TestChanges:
    """What has changed between the creation of an upload and its end."""

    def test_rights_are_withdrawn(self, app: Any) -> None:
        writers = {"record:create": ["system.Authenticated"]}
        put(app, COLLECTION, data={}, permissions=writers)
        url = begin(app, SIZE, headers=BOB)
        append(app, url, 0, CONTENT[:5], BOB)
        put(app, COLLECTION, data={}, permissions={"record:create": []})
        append(app, url, 5, CONTENT[5:], BOB, status=403)
        app.get(RECORD, headers=ALICE, status=404)
        app.delete(url, headers=BOB, status=204)

    def test_rights_are_withdrawn_while_the_last_bytes_arrive(self, app: Any) -> None:
        writers = {"record:create": ["system.Authenticated"]}
        put(app, COLLECTION, data={}, permissions=writers)
        url = begin(app, SIZE, headers=BOB)

        class Body(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                put(app, COLLECTION, data={}, permissions={"record:create": []})
                return super().read(size)

        headers = {**BOB, **TUS, **BYTES, "Upload-Offset": "0"}
        send(app, "PATCH", url, Body(CONTENT), length=SIZE, headers=headers, status=403)
        app.get(RECORD, headers=ALICE, status=404)
        head(app, url, BOB, status=410)
        assert stored_files(app) == set()

    def test_the_preconditions_of_the_creation_hold_at_the_end(self, app: Any) -> None:
        etag = attach(app, content=b"old").headers["ETag"]
        url = begin(app, SIZE, headers={**ALICE, "If-Match": etag})
        other = begin(app, SIZE, headers={**ALICE, "If-Match": etag})
        append(app, url, 0, CONTENT)
        append(app, other, 0, CONTENT, status=412)
        head(app, other, status=410)
        create(app, SIZE, headers={**ALICE, "If-Match": etag}, status=412)
        create(app, SIZE, headers={**ALICE, "If-None-Match": "*"}, status=412)
        assert read(app) == CONTENT

    def test_those_of_later_requests_do_not_matter(self, app: Any) -> None:
        attach(app, content=b"old")
        url = begin(app, SIZE)
        append(app, url, 0, CONTENT, {**ALICE, "If-None-Match": "*"})
        assert read(app) == CONTENT

    def test_the_record_is_deleted(self, app: Any) -> None:
        attach(app, content=b"old")
        url = begin(app, SIZE, content=CONTENT[:5])
        app.delete(RECORD, headers=ALICE)
        append(app, url, 5, CONTENT[5:])
        assert read(app) == CONTENT

    def test_the_collection_is_deleted(self, app: Any) -> None:
        url = begin(app, SIZE, content=CONTENT[:5])
        app.delete(COLLECTION, headers=ALICE)
        append(app, url, 5, CONTENT[5:], status=404)
        head(app, url, status=410)
        assert stored_files(app) == set()


@ON_POSTGRESQL
def test_a_conflict_that_may_pass_is_tried_again(app: Any) -> None:
    url = begin(app, SIZE)

    def fail(event: Any) -> None:
        raise AttachmentGone()

    on_event(app, ResourceChanged, fail)
    append(app, url, 0, CONTENT, status=409)
    app.app.registry.on_event = None
    assert offset(app, url) == SIZE - 1
    append(app, url, SIZE - 1, CONTENT[-1:], status=204)
    assert read(app) == CONTENT
    assert offset(app, url) == SIZE


@ON_POSTGRESQL
def test_preconditions_hold_when_the_attaching_is_repeated(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is repeated because another request has changed the record."""
    etag = attach(app, content=b"old").headers["ETag"]
    url = begin(app, SIZE, headers={**ALICE, "If-Match": etag})
    begin_again = transactions._begin_again

    def change(*args: Any) -> None:
        begin_again(*args)
        body = {"data": {"title": "changed"}}
        with ThreadPoolExecutor(1) as other:
            other.submit(app.patch_json, RECORD, body, headers=ALICE).result(waiting.SECONDS)

    def conflict(event: Any) -> None:
        app.app.registry.on_event = None
        raise IntegrityError()

    monkeypatch.setattr(transactions, "_begin_again", change)
    on_event(app, ResourceChanged, conflict)
    append(app, url, 0, CONTENT, status=412)
    assert read(app) == b"old"


@ON_MEMORY
def test_the_last_request_while_another_one_makes_the_file_whole(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage has not failed, so there is no 503 and no traceback."""
    monkeypatch.setattr(local_partials, "PATIENCE", 0.0)
    url = begin(app, SIZE)
    append(app, url, 0, CONTENT[:-1])
    (chunk,) = app.app.registry.attachment_storages.default.files.list_unfinished()
    files = app.app.registry.attachment_storages.default.files
    lock = files._piece(Partial(chunk.partial_id, chunk.key, 0, {}), "lock")
    with LockedFile(lock, create=True):
        refused = append(app, url, SIZE - 1, CONTENT[-1:], status=409)
        assert refused.headers["Retry-After"]
    append(app, url, SIZE - 1, CONTENT[-1:], status=204)
    assert read(app) == CONTENT


@ON_MEMORY
def test_a_database_that_fails(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer needs no further access to the database."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise BackendError()

    url = begin(app, SIZE)
    monkeypatch.setattr(app.app.registry.storage, "get", fail)
    refused = head(app, url, status=503)
    assert refused.headers["Tus-Resumable"] == "1.0.0"
    assert error(append(app, url, 0, CONTENT, status=503))[0] == 201


@ON_MEMORY
class TestRefusesToBegin:
    """For the reasons that also apply to forms."""

    def test_extension(self, build: Build) -> None:
        app = build(extensions="pdf")
        assert "extension" in error(create(app, 3, status=400))[1]

    @pytest.mark.parametrize(("length", "status"), [(9, 413), (1, 400), (5, 201)])
    def test_size(self, build: Build, length: int, status: int) -> None:
        app = build(max_size=8, min_size=2)
        created = create(app, length, status=status)
        if status == 413:
            assert created.headers["Tus-Max-Size"] == "8"

    def test_schema_and_permissions(self, app: Any) -> None:
        schema = {
            "type": "object",
            "properties": {"title": {"type": "string"}},
            "required": ["title", "attachment"],
        }
        put(app, COLLECTION, data={"schema": schema})
        assert "title" in error(create(app, 3, data='{"title": 3}', status=400))[1]
        assert "title" in error(create(app, 3, status=400))[1]
        create(app, 3, data='{"title": ""}', permissions='{"fly": ["bob"]}', status=400)
        create(app, 3, data='{"title": ""}', permissions='{"write": "bob"}', status=400)
        url = begin(app, 3, data='{"title": "t"}', permissions='{"read": ["system.Everyone"]}')
        append(app, url, 0, b"abc")
        record = app.get(RECORD, headers=ALICE).json
        assert record["data"]["title"] == "t"
        assert "system.Everyone" in record["permissions"]["read"]

    @pytest.mark.parametrize("data", ["[]", "{", "null", '{"a": NaN}', '{"a": "\\u0000"}'])
    def test_json(self, app: Any, data: str) -> None:
        create(app, 3, data=data, status=400)

    def test_another_id(self, app: Any) -> None:
        assert "data.id" in error(create(app, 3, data='{"id": "other"}', status=400))[1]
        create(app, 3, data='{"id": "r"}', status=201)

    def test_a_subscriber(self, app: Any) -> None:
        def refuse(event: AttachmentReceiving) -> None:
            assert (event.filename, event.size) == ("notes.txt", 3)
            raise HTTPForbidden("No files today.")

        on_event(app, AttachmentReceiving, refuse)
        assert error(create(app, 3, status=403)) == (121, "No files today.")

    def test_strangers_and_those_without_credentials(self, app: Any) -> None:
        create(app, 3, headers=BOB, status=403)
        create(app, 3, headers=ANONYMOUS, status=401)

    def test_missing_collection_and_bad_ids(self, app: Any) -> None:
        create(app, 3, f"{BUCKET}/collections/ghost/records/r", status=404)
        create(app, 3, f"{COLLECTION}/records/..%2fx", status=[400, 404])

    def test_gzipped_collections(self, build: Build) -> None:
        app = build(gzipped=True)
        assert "gzipped" in error(create(app, 3, status=400))[1]

    def test_too_many(self, build: Build) -> None:
        app = build(**{"uploads.max_unfinished": 2})
        urls = [begin(app, 3) for _ in range(2)]
        assert error(create(app, 3, status=429))[0] == 117
        app.delete(urls[0], headers=ALICE)
        url = begin(app, 3)
        append(app, url, 0, b"abc")
        begin(app, 3)

    def test_of_anonymous_writers_the_oldest_without_a_byte_gives_way(self, build: Build) -> None:
        app = build(**{"uploads.max_unfinished": 2})
        put(app, COLLECTION, data={}, permissions={"record:create": ["system.Everyone"]})
        with_bytes, oldest = (begin(app, 3, headers=ANONYMOUS) for _ in range(2))
        append(app, with_bytes, 0, b"a", ANONYMOUS)
        url = begin(app, 3, headers=ANONYMOUS)
        head(app, oldest, ANONYMOUS, status=410)
        assert offset(app, with_bytes, ANONYMOUS) == 1
        append(app, url, 0, b"a", ANONYMOUS)
        create(app, 3, headers=ANONYMOUS, status=429)

    def test_other_media_types(self, app: Any) -> None:
        url = f"{RECORD}/attachment/uploads"
        refused = app.post(url, b"", headers=ALICE, status=415)
        assert "the header Tus-Resumable: 1.0.0" in refused.json["message"]
        assert "application/json for a direct upload" in refused.json["message"]
        app.post_json(url, {}, headers=ALICE, status=400)  # A direct upload.

    def test_in_a_batch(self, app: Any) -> None:
        url = begin(app, SIZE)
        path = re.sub(r"^http://[^/]*/v1", "", url)
        parts = [
            {"method": "POST", "path": f"{RECORD}/attachment/uploads", "headers": {**TUS}},
            {"method": "PATCH", "path": path, "headers": {**TUS, **BYTES, "Upload-Offset": "0"}},
            {"method": "DELETE", "path": path},
            {"method": "GET", "path": path},
        ]
        answers = app.post_json("/batch", {"requests": parts}, headers=ALICE).json["responses"]
        assert [answer["status"] for answer in answers] == [400, 400, 400, 200]
        assert offset(app, url) == 0


@ON_MEMORY
class TestBytes:
    """Which bytes are refused, and which are kept."""

    def test_wrong_offset(self, app: Any) -> None:
        url = begin(app, SIZE)
        for start in (1, SIZE, 2**63, 2**64):
            assert error(append(app, url, start, b"x", status=409))[0] == 122
        assert offset(app, url) == 0

    def test_more_than_the_length(self, app: Any) -> None:
        url = begin(app, 5)
        append(app, url, 0, b"abcdef", status=413)
        headers = {**ALICE, **TUS, **BYTES, "Upload-Offset": "0"}
        send(app, "PATCH", url, io.BytesIO(b"abcdef"), headers=headers, status=413)
        assert offset(app, url) == 0
        append(app, url, 0, b"abcde", status=204)

    def test_more_than_max_size_without_a_length(self, build: Build) -> None:
        app = build(max_size=5)
        url = begin(app, None)
        append(app, url, 0, b"abc")
        append(app, url, 3, b"def", status=413)
        append(app, url, 3, b"de")
        assert offset(app, url) == 5

    def test_a_length_that_is_told_later(self, app: Any) -> None:
        url = begin(app, None)
        assert head(app, url).headers["Upload-Defer-Length"] == "1"
        append(app, url, 0, CONTENT[:5])
        append(app, url, 5, b"", {**ALICE, "Upload-Length": "4"}, status=400)
        append(app, url, 5, CONTENT[5:9], {**ALICE, "Upload-Length": str(SIZE)})
        append(app, url, 9, b"", {**ALICE, "Upload-Length": "99"}, status=400)
        append(app, url, 9, CONTENT[9:])
        assert read(app) == CONTENT

    @pytest.mark.parametrize("length", [str(2**63), str(2**64), "9" * 30])
    def test_lengths_that_no_file_has(self, app: Any, length: str) -> None:
        headers = {**ALICE, **TUS, "Upload-Length": length}
        app.post(f"{RECORD}/attachment/uploads", b"", headers=headers, status=413)

    def test_a_body_that_breaks_off_is_kept(self, app: Any) -> None:
        url = begin(app, SIZE)
        headers = {**ALICE, **TUS, **BYTES, "Upload-Offset": "0"}
        send(app, "PATCH", url, io.BytesIO(b"Wha"), length=10, headers=headers, status=400)
        assert offset(app, url) == 3
        append(app, url, 3, CONTENT[3:])
        assert read(app) == CONTENT

    def test_one_with_a_checksum_is_not(self, app: Any) -> None:
        url = begin(app, SIZE)
        headers = {**ALICE, **TUS, **BYTES, "Upload-Offset": "0"}
        claimed = {**headers, "Upload-Checksum": f"sha1 {digest(CONTENT[:10], 'sha1')}"}
        send(app, "PATCH", url, io.BytesIO(b"Wha"), length=10, headers=claimed, status=400)
        assert offset(app, url) == 0
        assert error(append(app, url, 0, b"?" * 10, claimed, status=460))[0] == 107
        assert offset(app, url) == 0
        append(app, url, 0, CONTENT[:10], claimed)
        claimed = {**ALICE, "Content-Digest": f"sha-256=:{digest(CONTENT[10:])}:"}
        append(app, url, 10, b"?" * (SIZE - 10), claimed, status=400)
        append(app, url, 10, CONTENT[10:], claimed)
        assert read(app) == CONTENT

    def test_a_digest_of_the_whole_file(self, app: Any) -> None:
        for claimed, status in ((CONTENT, 204), (b"other", 400)):
            headers = {**ALICE, "Repr-Digest": f"sha-256=:{digest(claimed)}:"}
            url = begin(app, SIZE, headers=headers)
            append(app, url, 0, CONTENT[:5])
            append(app, url, 5, CONTENT[5:], status=status)
        head(app, url, status=410)
        assert read(app) == CONTENT

    def test_a_digest_that_cannot_be_continued(self, app: Any) -> None:
        headers = {**ALICE, "Repr-Digest": f"sha-512=:{digest(CONTENT, 'sha512')}:"}
        url = begin(app, SIZE, headers=headers)
        append(app, url, 0, CONTENT[:5])
        append(app, url, 5, CONTENT[5:])
        assert read(app) == CONTENT

    def test_one_that_would_make_the_last_request_long(
        self, app: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With a digest other than SHA-256, the file has to be read at the end."""
        monkeypatch.setattr(session_writes, "LARGEST_READ_BACK", SIZE - 1)
        other = {**ALICE, "Repr-Digest": f"sha-512=:{digest(CONTENT, 'sha512')}:"}
        create(app, SIZE, headers=other, status=413)
        url = begin(app, None, headers=other)
        append(app, url, 0, CONTENT, status=413)
        url = begin(app, SIZE, content=CONTENT[:5])
        append(app, url, 5, CONTENT[5:], other, status=413)
        append(app, url, 5, CONTENT[5:], {**ALICE, "Repr-Digest": f"sha-256=:{digest(CONTENT)}:"})
        assert read(app) == CONTENT

    def test_a_hash_that_cannot_be_saved(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The file is read back at the end."""
        url = begin(app, SIZE)
        append(app, url, 0, CONTENT[:5])
        with monkeypatch.context() as patched:
            patched.setattr(saved_hashes, "sha256", lambda saved: None)
            append(app, url, 5, CONTENT[5:9])
        append(app, url, 9, CONTENT[9:])
        assert attachment_of(app)["hash"] == sha256(CONTENT)

    def test_other_media_types_and_encodings(self, app: Any) -> None:
        url = begin(app, SIZE)
        headers = {**ALICE, **TUS, "Upload-Offset": "0"}
        app.patch(url, b"x", headers={**headers, "Content-Type": "text/plain"}, status=415)
        append(app, url, 0, b"x", {**ALICE, "Content-Encoding": "gzip"}, status=415)
        assert offset(app, url) == 0

    def test_what_is_refused_again_and_again_does_not_pile_up(self, app: Any) -> None:
        url = begin(app, SIZE)
        wrong = {**ALICE, "Upload-Checksum": f"sha1 {digest(CONTENT, 'sha1')}"}
        for _ in range(5):
            append(app, url, 0, b"?" * SIZE, wrong, status=460)
        files = app.app.registry.attachment_storages.default.files
        assert sum(each.size for each in files.list_unfinished()) == SIZE
        append(app, url, 0, CONTENT)
        assert read(app) == CONTENT


@ON_DATABASES
class TestStrangers:
    def test_do_not_find_an_upload(self, app: Any) -> None:
        everybody = {"read": ["system.Everyone"], "record:create": ["system.Everyone"]}
        put(app, COLLECTION, data={}, permissions=everybody)
        url = begin(app, SIZE)
        for headers in (BOB, ANONYMOUS):
            head(app, url, headers, status=404)
            assert error(append(app, url, 0, b"x", headers, status=404))[0] == 110
            app.get(url, headers=headers, status=404)
            app.delete(url, headers=headers, status=404)
            app.get(f"{COLLECTION}/attachments/uploads", headers=headers, status=[401, 403])
        assert offset(app, url) == 0

    @pytest.mark.parametrize("bucket", ["b%00", "*", "_"])
    @pytest.mark.parametrize("method", ["GET", "HEAD", "PATCH", "DELETE"])
    def test_ids_that_no_object_has(self, app: Any, method: str, bucket: str) -> None:
        """``*`` and ``_`` are wildcards in databases, whose texts cannot contain a NUL."""
        url = begin(app, SIZE).replace("/buckets/b/", f"/buckets/{bucket}/")
        told = {**ALICE, **TUS, **BYTES, "Upload-Offset": "0"}
        app.request(url, method=method, headers=told, status=404)
        record = url.replace(f"/buckets/{bucket}/", "/buckets/b/").replace("/r/", "/r%00/")
        app.request(record, method=method, headers=told, status=400)

    @pytest.mark.parametrize("collection", ["*", "c%00", "_"])
    def test_wildcards_list_nothing(self, app: Any, collection: str) -> None:
        """Without this check, the owner of a bucket ``a_`` could list those of bucket ``ab``."""
        begin(app, SIZE)
        url = f"{BUCKET}/collections/{collection}/attachments/uploads"
        for headers in (ALICE, BOB, ANONYMOUS):
            app.get(url, headers=headers, status=404)

    def test_another_record_has_no_such_upload(self, app: Any) -> None:
        url = begin(app, SIZE).replace("/records/r/", "/records/other/")
        head(app, url, status=404)

    def test_whoever_may_write_the_collection_lists_and_cancels(self, app: Any) -> None:
        writers = {"record:create": ["system.Authenticated"]}
        put(app, COLLECTION, data={}, permissions=writers)
        url = begin(app, SIZE, headers=BOB)
        append(app, url, 0, b"What", BOB)
        (listed,) = app.get(f"{COLLECTION}/attachments/uploads", headers=ALICE).json["data"]
        assert url.endswith(listed["id"])
        assert (listed["offset"], listed["size"], listed["record"]) == (4, SIZE, RECORD)
        head(app, url, ALICE, status=404)
        app.delete(url, headers=ALICE, status=204)
        head(app, url, BOB, status=410)
        assert app.get(f"{COLLECTION}/attachments/uploads", headers=ALICE).json["data"] == []


@ON_DATABASES
class TestList:
    URL = f"{COLLECTION}/attachments/uploads"

    def test_has_pages(self, app: Any) -> None:
        ids = [begin(app, SIZE, f"{RECORD}{number}").rpartition("/")[2] for number in range(5)]
        listed, url, pages = [], f"{self.URL}?_limit=2", 0
        while url:
            page = app.get(url, headers=ALICE)
            listed += [upload["id"] for upload in page.json["data"]]
            url = page.headers.get("Next-Page", "").removeprefix("http://localhost/v1")
            pages += 1
        assert (pages, sorted(listed)) == (3, sorted(ids))
        assert app.head(self.URL, headers=ALICE).headers["Total-Objects"] == "5"
        assert "Next-Page" not in app.get(self.URL, headers=ALICE).headers

    @pytest.mark.parametrize("query", ["_limit=x", "_token=x"])
    def test_queries_that_mean_nothing(self, app: Any, query: str) -> None:
        put(app, COLLECTION, data={})
        assert error(app.get(f"{self.URL}?{query}", headers=ALICE, status=400))[0] == 107


@ON_MEMORY
class TestDefaultBucket:
    @pytest.mark.parametrize("first", ["", "kinto_attachment"])
    def test_in_any_order_of_includes(self, build: Build, first: str) -> None:
        app = build({"included_first": first} if first else {})
        created = create(app, SIZE, DEFAULT)
        url = created.headers["Location"]
        below = re.sub(
            r"/buckets/[^/]*/", "/buckets/default/", url.removeprefix("http://localhost/v1")
        )
        append(app, below, 0, CONTENT[:5])
        head(app, below, BOB, status=404)
        assert offset(app, below) == 5
        append(app, url, 5, CONTENT[5:])
        assert read(app, f"{DEFAULT}/attachment") == CONTENT
        listing = "/buckets/default/collections/c/attachments/uploads"
        assert app.get(listing, headers=ALICE).json["data"] == []
        ids = {begin(app, SIZE, DEFAULT).rpartition("/")[2] for _ in range(2)}
        first = app.get(f"{listing}?_limit=1", headers=ALICE)
        second = app.get(first.headers["Next-Page"], headers=ALICE)
        assert {each["id"] for page in (first, second) for each in page.json["data"]} == ids


@ON_MEMORY
class TestNames:
    def test_a_name_belongs_to_the_upload(self, build: Build) -> None:
        app = build(randomize=False)
        url = begin(app, SIZE, content=CONTENT[:5])
        put_raw(app, f"{COLLECTION}/records/other", b"x")
        append(app, url, 5, CONTENT[5:])
        assert stored_files(app) == {"notes.txt", "notes-1.txt"}

    def test_and_to_others_when_it_is_cancelled(self, build: Build) -> None:
        app = build(randomize=False)
        app.delete(begin(app, SIZE, content=CONTENT[:5]), headers=ALICE)
        put_raw(app)
        assert stored_files(app) == {"notes.txt"}


@ON_MEMORY
class TestCors:
    def test_every_answer_can_be_read_by_pages(self, app: Any) -> None:
        page = {**ALICE, "Origin": "https://app.example"}
        created = create(app, SIZE, headers=page)
        url = created.headers["Location"]
        for answer in (
            created,
            append(app, url, 0, b"Wha", page),
            append(app, url, 9, b"x", page, status=409),
            head(app, url, page),
            app.get(url, headers=page),
            head(app, url, {**BOB, "Origin": "https://app.example"}, status=404),
            app.options(url, headers=page),
            app.delete(url, headers=page),
            create(app, 3, headers={**ANONYMOUS, "Origin": "https://app.example"}, status=401),
            put_raw(app, headers=page),
        ):
            exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
            wanted = {"Location", "Upload-Offset", "Tus-Resumable", "Upload-Complete"}
            assert wanted <= {*exposed}, answer
            assert answer.headers["Access-Control-Allow-Origin"]

    @pytest.mark.parametrize("method", ["PATCH", "HEAD", "DELETE", "GET"])
    def test_preflights(self, app: Any, method: str) -> None:
        url = begin(app, SIZE)
        asked = {
            "Origin": "https://app.example",
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "tus-resumable, upload-offset, content-type",
        }
        answer = app.options(url, headers=asked, status=200)
        assert method in answer.headers["Access-Control-Allow-Methods"]
        assert "upload-offset" in answer.headers["Access-Control-Allow-Headers"]


@ON_MEMORY
def test_options_announce(build: Build) -> None:
    app = build(max_size=100)
    told = app.options(f"{RECORD}/attachment/uploads", status=204).headers
    assert (told["Tus-Version"], told["Tus-Max-Size"]) == ("1.0.0", "100")
    assert "checksum" in told["Tus-Extension"]
    assert "max-size=100" in told["Upload-Limit"]
    assert app.get("/").json["capabilities"]["attachments"]["resumable"] == ["tus/1.0.0", "ietf/8"]


@ON_MEMORY
def test_readonly_servers_take_no_uploads(build: Build) -> None:
    app = build({"readonly": True})
    app.post(f"{RECORD}/attachment/uploads", headers={**ALICE, **TUS}, status=405)
    assert "resumable" not in app.get("/").json["capabilities"]["attachments"]


@ON_MEMORY
class TestOverride:
    """Clients that can only send POST and GET."""

    def test_names_the_method(self, app: Any) -> None:
        url = begin(app, SIZE)
        headers = {**ALICE, **TUS, **BYTES, "Upload-Offset": "0"}
        app.post(url, CONTENT, headers={**headers, "X-HTTP-Method-Override": "PATCH"}, status=204)
        asked = {**ALICE, **TUS, "X-HTTP-Method-Override": "HEAD"}
        assert app.post(url, b"", headers=asked).headers["Upload-Offset"] == str(SIZE)
        app.post(url, b"", headers={**asked, "X-HTTP-Method-Override": "DELETE"}, status=204)
        app.post(url, b"", headers={**ALICE, **TUS}, status=405)


@pytest.mark.one_way  # Either of the two may be first.
@ON_POSTGRESQL
def test_of_two_requests_that_attach_a_file_the_second_one_finds_it_done(app: Any) -> None:
    """Both have found all bytes there, and neither has locked the upload yet."""
    url = begin(app, SIZE)
    files = app.app.registry.attachment_storages.default.files
    finish, both, first = (
        files.finish,
        threading.Barrier(2, timeout=waiting.SECONDS),
        threading.Event(),
    )

    def finish_together(partial: Any) -> Any:
        first.set()
        both.wait(waiting.SECONDS)
        return finish(partial)

    with mock.patch.object(files, "finish", finish_together), ThreadPoolExecutor(2) as pool:
        requests = [pool.submit(append, app, url, 0, CONTENT)]
        assert first.wait(waiting.SECONDS)
        requests.append(pool.submit(append, app, url, SIZE - 1, CONTENT[-1:]))
        answers = [request.result(waiting.SECONDS) for request in requests]
    assert [answer.status_code for answer in answers] == [204, 204]
    assert answers[0].headers["ETag"] == answers[1].headers["ETag"]
    assert len(seen(app, AttachmentAdded)) == 1
    events = seen(app, ResourceChanged)
    assert [event.payload["resource_name"] for event in events].count("record") == 1
    assert read(app) == CONTENT
