"""Attaching a file to a record: POST of a form, PUT of raw bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
from typing import Any

import pytest

from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    COLLECTION,
    CONTENT,
    INVALID_PARAMETERS,
    INVALID_POSTED_DATA,
    RECORD,
    Part,
    attach,
    attachment_of,
    digest,
    error,
    form,
    key_of,
    outbox,
    post_form,
    put,
    put_raw,
    read,
    replace_backend,
    send,
    sha256,
    stored_content,
    stored_files,
    userid,
)
from tests.support.backends import EVERYWHERE, ON_MEMORY, Build

pytestmark = EVERYWHERE

URL = f"{RECORD}/attachment"
FILE = Part("attachment", CONTENT, "notes.txt")


class TestPost:
    def test_creates_the_record(self, app: Any) -> None:
        response = attach(app, status=201)
        record = app.get(RECORD, headers=ALICE)
        assert response.json == record.json["data"]["attachment"]
        assert response.headers["Location"] == f"http://localhost/v1{RECORD}"
        assert response.headers["ETag"] == record.headers["ETag"]
        assert response.headers["Last-Modified"] == record.headers["Last-Modified"]
        assert record.json["permissions"] == {"write": [userid(app)]}
        assert read(app) == CONTENT

    def test_says_what_is_stored(self, app: Any) -> None:
        attachment = attach(app, filename="Notes.TXT").json
        assert attachment == {
            "filename": "Notes.TXT",
            "hash": sha256(CONTENT),
            "location": attachment["location"],
            "mimetype": "text/plain",
            "size": len(CONTENT),
        }
        (key,) = stored_files(app)
        assert attachment["location"] == f"http://localhost/v1/attachments/{key}"
        assert stored_content(app, key) == CONTENT

    def test_replaces_the_file(self, app: Any) -> None:
        attach(app)
        response = attach(app, content=b"new", filename="new.txt", status=200)
        assert attachment_of(app) == response.json
        assert response.headers["Location"] == f"http://localhost/v1{RECORD}"
        assert response.headers["ETag"] == app.get(RECORD, headers=ALICE).headers["ETag"]
        assert stored_files(app) == {key_of(response.json)}
        assert read(app) == b"new"
        assert not outbox(app)

    def test_joins_a_record_without_a_file(self, app: Any) -> None:
        put(app, RECORD, data={"title": "A"})
        attach(app, status=200)
        assert app.get(RECORD, headers=ALICE).json["data"]["title"] == "A"
        assert read(app) == CONTENT

    def test_keeps_attributes_that_data_does_not_name(self, app: Any) -> None:
        put(app, RECORD, data={"title": "old", "author": "A"})
        attach(app, data={"title": "new"}, status=200)
        record = app.get(RECORD, headers=ALICE).json["data"]
        assert (record["title"], record["author"]) == ("new", "A")

    def test_without_data_keeps_all_attributes(self, app: Any) -> None:
        attach(app, data={"title": "old"})
        attach(app, content=b"new")
        assert app.get(RECORD, headers=ALICE).json["data"]["title"] == "old"

    def test_sets_permissions(self, app: Any) -> None:
        attach(app, permissions={"read": ["system.Everyone"]}, status=201)
        assert read(app, headers=ANONYMOUS) == CONTENT
        attach(app, permissions={"write": [userid(app, BOB)]}, status=200)
        permissions = app.get(RECORD, headers=ALICE).json["permissions"]
        assert permissions["read"] == ["system.Everyone"]
        assert userid(app, BOB) in permissions["write"]

    @pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
    def test_takes_parts_in_any_order(self, app: Any, order: tuple[int, ...]) -> None:
        parts = [
            FILE,
            Part("data", '{"title": "A"}'),
            Part("permissions", '{"read": ["system.Everyone"]}'),
        ]
        post_form(app, *(parts[index] for index in order), status=201)
        record = app.get(RECORD, headers=ANONYMOUS).json
        assert record["data"]["title"] == "A"
        assert read(app) == CONTENT

    def test_takes_text_parts_with_a_content_type(self, app: Any) -> None:
        data = Part("data", '{"title": "A"}', content_type="application/json")
        post_form(app, FILE, data, status=201)
        assert app.get(RECORD, headers=ALICE).json["data"]["title"] == "A"

    def test_an_attachment_in_data_does_not_count(self, app: Any) -> None:
        forged = {"attachment": {"filename": "forged", "location": "/etc/passwd"}}
        attachment = attach(app, data=forged, status=201).json
        assert attachment["filename"] == "notes.txt"
        assert attachment_of(app) == attachment

    def test_does_not_take_another_id(self, app: Any) -> None:
        attach(app, data={"id": "other"}, status=400)
        assert not stored_files(app)

    def test_of_bytes_that_look_like_the_form(self, app: Any) -> None:
        content = (
            b" --the-boundary--\r\n--the-boundar\r\n-the-boundary\r\n\n\r" * 20_000 + b"\r\n-"
        )
        attach(app, content=content, filename="odd.txt", status=201)
        assert read(app) == content

    def test_of_an_empty_file(self, app: Any) -> None:
        attachment = attach(app, content=b"", status=201).json
        assert (attachment["size"], attachment["hash"]) == (0, sha256(b""))
        assert read(app) == b""

    def test_of_a_file_of_many_chunks(self, app: Any) -> None:
        content = b"".join(hashlib.sha256(bytes([n])).digest() * 4096 for n in range(24))
        attachment = attach(app, content=content, filename="a.txt", status=201).json
        assert (attachment["size"], attachment["hash"]) == (len(content), sha256(content))
        assert read(app) == content

    def test_in_chunks_without_a_length(self, app: Any) -> None:
        body, content_type = form(FILE)
        headers = {**ALICE, "Content-Type": content_type}
        send(app, "POST", URL, io.BytesIO(body), headers=headers, status=201)
        assert read(app) == CONTENT

    def test_the_same_bytes_again_are_stored_again(self, app: Any) -> None:
        first = attach(app).json
        second = attach(app, status=200).json
        assert second["hash"] == first["hash"]
        assert second["location"] != first["location"]
        assert read(app) == CONTENT


class TestPut:
    def test_creates_and_replaces(self, app: Any) -> None:
        response = put_raw(app, status=201)
        assert response.json == attachment_of(app)
        assert response.json["filename"] == "notes.txt"
        assert response.headers["Location"] == f"http://localhost/v1{RECORD}"
        assert response.headers["ETag"] == app.get(RECORD, headers=ALICE).headers["ETag"]
        put_raw(app, content=b"new", status=200)
        assert read(app) == b"new"
        assert len(stored_files(app)) == 1

    def test_in_chunks_without_a_length(self, app: Any) -> None:
        content = CONTENT * 40_000
        send(app, "PUT", f"{URL}?filename=a.txt", io.BytesIO(content), status=201)
        assert read(app) == content
        assert attachment_of(app)["size"] == len(content)

    def test_keeps_the_attributes(self, app: Any) -> None:
        put(app, RECORD, data={"title": "A"})
        put_raw(app, status=200)
        assert app.get(RECORD, headers=ALICE).json["data"]["title"] == "A"

    @ON_MEMORY
    @pytest.mark.parametrize(
        ("header", "name"),
        [
            ("attachment; filename*=UTF-8''na%C3%AFve.txt", "naïve.txt"),
            ("attachment; filename=\"plain.txt\"; filename*=UTF-8''%E2%82%AC.txt", "€.txt"),
            ('attachment; filename="quoted \\" name.txt"', 'quoted " name.txt'),
            ("inline; filename=token.txt", "token.txt"),
            ("attachment", "query.txt"),
        ],
    )
    def test_filename_of_the_header(self, app: Any, header: str, name: str) -> None:
        headers = {**ALICE, "Content-Disposition": header}
        attachment = put_raw(app, filename="query.txt", headers=headers, status=201).json
        assert attachment["filename"] == name

    def test_filename_of_the_query(self, app: Any) -> None:
        assert put_raw(app, filename="тест é.txt").json["filename"] == "тест é.txt"

    def test_needs_a_filename(self, app: Any) -> None:
        response = put_raw(app, filename=None, status=400)
        assert error(response) == (INVALID_POSTED_DATA, "body: Filename is required.")
        response = put_raw(app, filename="", status=400)
        assert error(response) == (INVALID_POSTED_DATA, "body: Filename is required.")
        assert app.app.body.taken == 0

    def test_refuses_a_malformed_content_disposition(self, app: Any) -> None:
        headers = {**ALICE, "Content-Disposition": "attachment; filename*=UTF-8''%FF"}
        errno, _ = error(put_raw(app, headers=headers, status=400))
        assert errno == INVALID_PARAMETERS
        assert not stored_files(app)

    def test_refuses_an_extension(self, app: Any) -> None:
        response = put_raw(app, filename="virus.exe", status=400)
        assert error(response) == (
            INVALID_POSTED_DATA,
            "body: File extension is not allowed. The setting is kinto.attachment.extensions.",
        )
        assert app.app.body.taken == 0

    @ON_MEMORY
    # Kinto and Cornice treat these types in their own ways.
    @pytest.mark.parametrize(
        "content_type",
        [
            "application/json",
            "application/merge-patch+json",
            "multipart/form-data; boundary=x",
            "text/plain; charset=utf-16",
        ],
    )
    def test_of_any_content_type(self, app: Any, content_type: str) -> None:
        content = b'{"data": {"forged": true}}'
        attachment = put_raw(app, content=content, content_type=content_type, status=201).json
        assert attachment["mimetype"] == content_type
        assert read(app) == content
        assert "forged" not in app.get(RECORD, headers=ALICE).json["data"]

    def test_of_nothing(self, app: Any) -> None:
        assert put_raw(app, content=b"", status=201).json["size"] == 0
        assert read(app) == b""


@ON_MEMORY
class TestMimetype:
    @pytest.mark.parametrize(
        ("filename", "declared", "expected"),
        [
            ("a.txt", "text/x-special", "text/x-special"),
            ("a.txt", "text/plain; charset=utf-8", "text/plain; charset=utf-8"),
            ("a.png", None, "image/png"),
            ("a.txt", "nonsense", "text/plain"),
            ("a.csv", "text/plain\u00e9", "text/csv"),
            ("a.unknown", None, "application/octet-stream"),
            ("name", None, "application/octet-stream"),
        ],
    )
    def test_is_the_declared_or_a_guess(
        self, build: Build, filename: str, declared: str | None, expected: str
    ) -> None:
        app = build(extensions="any")
        attachment = attach(app, filename=filename, content_type=declared, status=201).json
        assert attachment["mimetype"] == expected

    @pytest.mark.parametrize("filename", ["a.ftl", "A.FTL"])
    def test_is_the_setting_first(self, build: Build, filename: str) -> None:
        app = build(extensions="any", mimetypes=".ftl:application/vnd.fluent;.x:text/x")
        attachment = attach(app, filename=filename, content_type="text/plain").json
        assert attachment["mimetype"] == "application/vnd.fluent"

    def test_of_raw_bytes_without_a_type(self, app: Any) -> None:
        body = io.BytesIO(CONTENT)
        answer = send(app, "PUT", f"{URL}?filename=a.png", body, length=len(CONTENT), status=201)
        assert answer.json["mimetype"] == "image/png"


class TestGzip:
    @pytest.mark.parametrize("upload", [attach, put_raw])
    def test_compresses_on_the_server(self, build: Build, upload: Any) -> None:
        app = build(gzipped="true")
        content = CONTENT * 10_000
        attachment = upload(app, content=content, status=201).json
        (key,) = stored_files(app)
        packed = stored_content(app, key)
        assert key.endswith(".gz")
        assert gzip.decompress(packed) == content
        assert attachment == {
            "filename": "notes.txt.gz",
            "hash": sha256(packed),
            "location": f"http://localhost/v1/attachments/{key}",
            "mimetype": "application/gzip",
            "size": len(packed),
            "original": {
                "filename": "notes.txt",
                "hash": sha256(content),
                "mimetype": "text/plain",
                "size": len(content),
            },
        }
        assert attachment_of(app) == attachment
        assert read(app) == packed

    @ON_MEMORY
    def test_limits_and_digests_are_of_what_was_sent(self, build: Build) -> None:
        app = build(gzipped="true", max_size=1000)
        content = b"x" * 1000
        headers = {**ALICE, "Content-Digest": f"sha-256=:{digest(content)}:"}
        put_raw(app, content=content, headers=headers, status=201)
        put_raw(
            app, content=content, headers={**ALICE, "Content-MD5": digest(b"", "md5")}, status=400
        )
        attach(app, content=b"x" * 1001, status=413)
        assert gzip.decompress(read(app)) == content

    @ON_MEMORY
    def test_extensions_are_of_the_name_sent(self, build: Build) -> None:
        app = build(gzipped="true", extensions="txt")
        attach(app, filename="a.txt", status=201)
        attach(app, filename="a.gz", status=400)

    @ON_MEMORY
    def test_of_one_collection(self, build: Build) -> None:
        app = build(**{"resources.b.c.gzipped": "true"})
        put(app, "/buckets/b/collections/d")
        assert "original" in attach(app).json
        assert "original" not in attach(app, "/buckets/b/collections/d/records/r").json

    @ON_MEMORY
    def test_the_same_file_gives_the_same_hash(self, build: Build) -> None:
        app = build(gzipped="true")
        first = attach(app).json
        second = attach(app, f"{COLLECTION}/records/other").json
        assert first["hash"] == second["hash"]

    def test_kept_names(self, build: Build) -> None:
        app = build(gzipped="true", randomize="false")
        attach(app)
        assert stored_files(app) == {"notes.txt.gz"}


class TestKeepOldFiles:
    def test_keeps_them_on_replace_and_delete(self, build: Build) -> None:
        app = build(keep_old_files="true")
        first, second = attach(app).json, attach(app, content=b"second").json
        assert read(app, first["location"]) == CONTENT
        app.delete(f"{RECORD}/attachment", headers=ALICE)
        assert read(app, second["location"]) == b"second"
        assert stored_files(app) == {key_of(first), key_of(second)}

    @ON_MEMORY
    def test_of_one_collection(self, build: Build) -> None:
        app = build(**{"resources.b.c.keep_old_files": "true"})
        put(app, "/buckets/b/collections/d")
        for record in (RECORD, "/buckets/b/collections/d/records/r"):
            attach(app, record)
            attach(app, record)
        assert len(stored_files(app)) == 3

    @ON_MEMORY
    def test_a_failed_upload_is_not_kept(self, build: Build) -> None:
        app = build(keep_old_files="true")
        attach(app)
        attach(app, data="nope", status=400)
        assert len(stored_files(app)) == 1


@ON_MEMORY
def test_the_body_is_read_in_bounded_pieces_by_one_reader_alone(app: Any) -> None:
    """The guard of all these tests works: it fails if ``request.body`` is used."""
    attach(app)
    assert app.app.body.taken > len(CONTENT)
    put_raw(app)
    assert app.app.body.taken == len(CONTENT)
    registry = app.app.registry
    storage = replace_backend(registry, Careless(registry))
    try:
        with pytest.raises(AssertionError):
            put_raw(app, status="*")
    finally:
        replace_backend(registry, storage)


class Careless:
    """A storage that reads the body of the current request as a whole."""

    def __init__(self, registry: Any) -> None:
        self.storage = registry.attachment_storages.default.files

    def filename_allowed(self, *_: Any) -> bool:
        from pyramid.threadlocal import get_current_request

        return bool(get_current_request().body)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)
