"""Direct uploads by hostile clients to SeaweedFS, which checks the signatures of URLs.

moto accepts everything, so signatures, expiry, lengths and digests are only tested here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kinto_attachment import AttachmentAdded
from kinto_attachment.files import direct_completion
from tests.support import waiting
from tests.support.application import (
    ALICE,
    BOB,
    COLLECTION,
    CONTENT,
    RECORD,
    attach,
    attachment_of,
    error,
    put,
    read,
    seen,
    sha256,
    stored_files,
)
from tests.support.backends import Build, runs_on
from tests.support.direct import (
    MIB,
    begin,
    complete,
    create,
    send,
    send_all,
    state,
)

pytestmark = runs_on("seaweedfs")

OTHER = b"x" * len(CONTENT)
WRITERS = {"record:create": ["system.Authenticated"]}


class TestBytes:
    def test_of_another_length_are_refused(self, app: Any) -> None:
        upload = begin(app)
        (part,) = upload["parts"]
        for content in (CONTENT[:-1], CONTENT + b"x", b""):
            assert send(part, content).status_code == 403
        assert state(app, upload)["offset"] == 0
        send_all(upload, CONTENT)
        complete(app, upload, status=201)

    def test_without_a_length_are_refused(self, app: Any) -> None:
        (part,) = begin(app)["parts"]
        chunks: Any = iter([CONTENT])
        assert send(part, chunks).status_code >= 400

    def test_that_are_not_the_announced_ones_are_refused_by_the_storage(self, app: Any) -> None:
        upload = begin(app, attachment={"hash": sha256(CONTENT)})
        (part,) = upload["parts"]
        assert [*part["headers"]] == ["x-amz-checksum-sha256"]
        assert send(part, OTHER).status_code == 400
        assert send({**part, "headers": {}}, CONTENT).status_code == 403
        assert not state(app, upload)["parts"][0]["done"]
        send_all(upload, CONTENT)
        assert complete(app, upload, status=201).json["hash"] == sha256(CONTENT)

    def test_that_are_not_the_announced_ones_are_refused_at_the_end(self, build: Build) -> None:
        app = build(**{"direct.part_size": "5M"})
        content = bytes(5 * MIB + 3)
        upload = begin(app, len(content), attachment={"hash": sha256(b"other")})
        send_all(upload, content)
        assert "hash does not match" in error(complete(app, upload, status=400))[1]
        assert state(app, upload)["state"] == "failed"
        complete(app, upload, status=410)
        app.get(RECORD, headers=ALICE, status=404)
        assert stored_files(app) == set()

    def test_that_come_twice_are_there_once(self, build: Build) -> None:
        app = build(**{"direct.part_size": "5M"})
        upload = begin(app, 5 * MIB + 3)
        for last in (b"aaa", b"aaa", b"bbb"):
            assert send(upload["parts"][1], last).status_code == 200
        told = state(app, upload)
        assert [part["done"] for part in told["parts"]] == [False, True]
        assert told["offset"] == 3
        send(upload["parts"][0], bytes(5 * MIB))
        done = complete(app, upload, status=201).json
        assert done["hash"] in (sha256(bytes(5 * MIB) + last) for last in (b"aaa", b"bbb"))
        assert sha256(read(app)) == done["hash"]

    def test_in_any_order_and_after_a_reload(self, build: Build) -> None:
        app = build(**{"direct.part_size": "5M"})
        content = b"".join(bytes([number]) * MIB for number in range(12))
        upload = begin(app, len(content))
        third = upload["parts"][2]
        assert (third["offset"], third["size"]) == (10 * MIB, 2 * MIB)
        send(third, content[10 * MIB :])
        complete(app, upload, status=409)
        fresh = state(app, upload)
        assert [part["done"] for part in fresh["parts"]] == [False, False, True]
        for part in fresh["parts"][1::-1]:
            send(part, content[part["offset"] :][: part["size"]])
        complete(app, upload, status=201)
        assert read(app) == content


class TestHeaders:
    def test_the_client_decides_nothing_about_the_object(self, app: Any) -> None:
        upload = begin(app)
        headers = {
            "Content-Type": "text/html",
            "Content-Disposition": "inline",
            "Content-Encoding": "gzip",
            "Cache-Control": "max-age=1",
        }
        send(upload["parts"][0], CONTENT, headers=headers)
        complete(app, upload, status=201)
        (found,) = objects(app)
        assert found["ContentType"] == "text/plain"
        assert found["ContentDisposition"].startswith("inline; filename")
        assert "ContentEncoding" not in found
        assert "CacheControl" not in found

    def test_headers_of_the_storage_that_are_not_signed_are_refused(self, app: Any) -> None:
        (part,) = begin(app)["parts"]
        for name, value in (("x-amz-acl", "public-read"), ("x-amz-meta-upload", "x")):
            assert send(part, CONTENT, headers={name: value}).status_code == 403


def objects(app: Any) -> list[dict[str, Any]]:
    files = app.app.registry.attachment_storages.default.files
    client, bucket = files.s3_client, files.bucket_name
    return [client.head_object(Bucket=bucket, Key=key) for key in sorted(stored_files(app))]


TAMPERED: dict[str, Callable[[str], str]] = {
    "part": lambda url: url.replace("partNumber=1", "partNumber=2"),
    "upload": lambda url: re.sub("(uploadId=)....", r"\1ffff", url),
    "no upload": lambda url: re.sub("uploadId=[^&]+&partNumber=1&", "", url),
    "expiry": lambda url: re.sub("(X-Amz-Expires=)[0-9]+", r"\g<1>604800", url),
    "date": lambda url: re.sub("(X-Amz-Date=....)", r"\g<1>9", url)[:-1],
    "signature": lambda url: re.sub("(X-Amz-Signature=)....", r"\g<1>0000", url),
    "no signature": lambda url: url.partition("?")[0] + "?partNumber=1",
    "headers": lambda url: url.replace("content-length%3Bhost", "host"),
    "key": lambda url: url.replace("?", "x?", 1),
}


class TestUrls:
    @pytest.mark.parametrize("how", TAMPERED)
    def test_tampered_ones_are_refused(self, app: Any, how: str) -> None:
        upload = begin(app)
        (part,) = upload["parts"]
        url = TAMPERED[how](part["url"])
        assert url != part["url"]
        assert send(part, CONTENT, url=url).status_code >= 400
        assert state(app, upload)["offset"] == 0
        assert stored_files(app) == set()

    def test_expired_ones_are_refused_and_fresh_ones_are_not(self, app: Any) -> None:
        upload = begin(app, expires_in=1)
        waiting.until(lambda: send(upload["parts"][0], CONTENT).status_code != 200)
        assert state(app, upload)["url_expires_at"] > upload["url_expires_at"]

        def fresh_one_is_taken() -> bool:  # It is sent again if that takes more than its second.
            return send(state(app, upload)["parts"][0], CONTENT).status_code == 200

        waiting.until(fresh_one_is_taken)
        complete(app, upload, status=201)

    def test_they_are_dead_before_the_file_is_read(
        self, app: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The bytes cannot be replaced between hashing and attaching."""
        monkeypatch.setattr(direct_completion, "SECONDS", 0.0)
        content = bytes(2 * MIB)
        upload = begin(app, len(content))
        fresh = state(app, upload)
        send_all(upload, content)
        complete(app, upload, status=202)
        for each in (upload, fresh):
            assert send(each["parts"][0], b"x" * len(content)).status_code == 404
        while (done := complete(app, upload)).status_code == 202:
            pass
        assert done.json["hash"] == sha256(content)
        assert read(app) == content

    def test_replayed_ones_change_nothing(self, app: Any) -> None:
        upload = begin(app)
        fresh = state(app, upload)
        send_all(upload, CONTENT)
        complete(app, upload, status=201)
        for each in (upload, fresh):
            for content in (OTHER, CONTENT):
                assert send(each["parts"][0], content).status_code == 404
        assert read(app) == CONTENT

    def test_they_are_dead_when_the_upload_is_cancelled(self, app: Any) -> None:
        upload = begin(app)
        app.delete(upload["path"], headers=ALICE, status=204)
        assert send(upload["parts"][0], CONTENT).status_code == 404
        assert "parts" not in state(app, upload)


class TestCompletion:
    def test_before_the_bytes(self, app: Any) -> None:
        upload = begin(app)
        assert error(complete(app, upload, status=409))[0] == 122
        assert state(app, upload)["state"] == "open"
        send_all(upload, CONTENT)
        complete(app, upload, status=201)

    @pytest.mark.one_way  # Either of the two may be first.
    def test_twice_at_once(self, app: Any) -> None:
        content = bytes(3 * MIB)
        upload = begin(app, len(content))
        send_all(upload, content)

        def finish(_: int) -> Any:
            while True:
                answer = complete(app, upload)
                if answer.status_code != 202:
                    return answer

        with ThreadPoolExecutor(4) as pool:
            answers = [*pool.map(finish, range(4), timeout=waiting.SECONDS)]
        assert {answer.status_code for answer in answers} == {201}
        assert {answer.body for answer in answers} == {answers[0].body}
        assert len(seen(app, AttachmentAdded)) == 1

    def test_of_two_uploads_for_one_record(self, app: Any) -> None:
        first, second = begin(app), begin(app)
        send_all(second, OTHER)
        send_all(first, CONTENT)
        complete(app, second, status=201)
        complete(app, first, status=200)
        assert read(app) == CONTENT
        assert len(stored_files(app)) == 1

    def test_with_the_preconditions_of_the_creation(self, app: Any) -> None:
        etag = attach(app, content=b"old").headers["ETag"]
        first, second = (begin(app, headers={**ALICE, "If-Match": etag}) for _ in range(2))
        for each in (first, second):
            send_all(each, CONTENT)
        complete(app, first, status=200)
        complete(app, second, status=412)
        assert state(app, second)["state"] == "failed"
        assert len(stored_files(app)) == 1

    def test_after_rights_are_withdrawn(self, app: Any) -> None:
        put(app, COLLECTION, data={}, permissions=WRITERS)
        upload = begin(app, headers=BOB)
        send_all(upload, CONTENT)
        put(app, COLLECTION, data={}, permissions={"record:create": []})
        complete(app, upload, BOB, status=403)
        app.get(RECORD, headers=ALICE, status=404)
        app.delete(upload["path"], headers=BOB, status=204)

    def test_after_the_schema_has_changed(self, app: Any) -> None:
        upload = begin(app)
        send_all(upload, CONTENT)
        put(app, COLLECTION, data={"schema": {"type": "object", "required": ["title"]}})
        assert "title" in error(complete(app, upload, status=400))[1]
        assert state(app, upload)["state"] == "failed"
        assert stored_files(app) == set()

    def test_by_strangers(self, app: Any) -> None:
        upload = begin(app)
        send_all(upload, CONTENT)
        complete(app, upload, BOB, status=404)
        complete(app, upload, {}, status=404)
        assert state(app, upload, BOB, status=404) is None
        complete(app, upload, status=201)

    def test_of_an_empty_file(self, app: Any) -> None:
        upload = begin(app, 0)
        complete(app, upload, status=409)
        send_all(upload, b"")
        assert complete(app, upload, status=201).json["size"] == 0
        assert send(upload["parts"][0], b"").status_code == 404

    def test_when_the_bucket_has_removed_the_parts(self, app: Any) -> None:
        """A rule of the bucket can do so, if its time is shorter than the life of an upload."""
        upload = begin(app)
        send_all(upload, CONTENT)
        files = app.app.registry.attachment_storages.default.files
        for found in files.list_unfinished():
            files.discard_unfinished(found)
        complete(app, upload, status=410)
        assert state(app, upload)["state"] == "failed"


def test_other_protocols_do_not_touch_it(app: Any) -> None:
    upload = begin(app)
    headers = {**ALICE, "Tus-Resumable": "1.0.0"}
    app.head(upload["path"], headers=headers, status=409)
    tus = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    app.patch(upload["path"], CONTENT, headers={**headers, **tus}, status=409)
    app.put(upload["path"], CONTENT, headers=ALICE, status=404)
    send_all(upload, CONTENT)
    complete(app, upload, status=201)
    assert attachment_of(app)["hash"] == sha256(CONTENT)


def test_a_reserved_name_is_kept_as_long_as_the_upload_goes_on(build: Build) -> None:
    app = build(randomize=False)
    upload, other = begin(app), begin(app)
    for each in (other, upload):
        send_all(each, CONTENT)
    complete(app, upload, status=201)
    assert stored_files(app) == {"notes.txt"}
    create(app, status=201)
    complete(app, other, status=200)
    assert stored_files(app) == {"notes-1.txt"}
