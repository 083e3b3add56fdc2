"""A PUT with ``Content-Encoding: gzip``: stored as received, served with the same header."""

from __future__ import annotations

import gzip
import io
import random
from typing import Any

import pytest
import transaction

from kinto_attachment.maintenance.reindex import reindex
from tests.support.application import (
    ALICE,
    COLLECTION,
    CONTENT,
    INVALID_PARAMETERS,
    OTHER,
    RECORD,
    Headers,
    ask,
    attach,
    attachment_of,
    digest,
    error,
    key_of,
    put_raw,
    send,
    sha256,
    stored_content,
    stored_files,
    stored_links,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_MEMORY, Build, runs_on

URL = f"{RECORD}/attachment"
PACKED = gzip.compress(CONTENT * 100, mtime=0)
GZIP: Headers = {**ALICE, "Content-Encoding": "gzip"}


@pytest.fixture
def app(build: Build) -> Any:
    return build(content_encodings="gzip", downloads="proxy")


def put_packed(app: Any, record: str = RECORD, **arguments: Any) -> Any:
    arguments = {"headers": GZIP, "content": PACKED, "status": 201, **arguments}
    return put_raw(app, record, **arguments)


def fetch(app: Any, url: str, *, method: str = "GET", status: int = 200, **headers: str) -> Any:
    """The response as it is sent: webtest's own methods decompress it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = app.RequestClass.blank(url, method=method, headers={**ALICE, **named})
    response = request.get_response(app.app)
    assert response.status_code == status
    assert isinstance(response.body, bytes), "reads it, and so closes the file"
    return response


@EVERYWHERE
class TestStores:
    def test_what_came(self, app: Any) -> None:
        attachment = put_packed(app).json
        assert attachment == {
            "filename": "notes.txt",
            "hash": sha256(PACKED),
            "location": attachment["location"],
            "mimetype": "text/plain",
            "size": len(PACKED),
            "encoding": "gzip",
        }
        assert attachment_of(app) == attachment
        assert stored_content(app, key_of(attachment)) == PACKED

    def test_and_serves_it(self, app: Any) -> None:
        attachment = put_packed(app).json
        for url in (URL, attachment["location"]):
            for accepted in ("gzip", "identity", ""):
                response = fetch(app, url, Accept_Encoding=accepted)
                assert response.headers["Content-Encoding"] == "gzip"
                assert response.headers["Content-Type"].startswith("text/plain")
                assert response.headers["ETag"] == f'"{sha256(PACKED)}"'
                assert response.headers["Repr-Digest"] == f"sha-256=:{digest(PACKED)}:"
                assert response.body == PACKED
                head = fetch(app, url, method="HEAD", Accept_Encoding=accepted)
                assert head.headers["Content-Encoding"] == "gzip"
                assert head.headers["Content-Length"] == str(len(PACKED))

    def test_and_parts_of_it(self, app: Any) -> None:
        attachment = put_packed(app).json
        for url in (URL, attachment["location"]):
            response = fetch(app, url, Range="bytes=3-9", status=206)
            assert response.headers["Content-Encoding"] == "gzip"
            assert response.headers["Content-Range"] == f"bytes 3-9/{len(PACKED)}"
            assert response.body == PACKED[3:10]

    def test_answers_without_a_file_have_no_encoding(self, app: Any) -> None:
        put_packed(app)
        for headers, status in (
            ({"If_None_Match": f'"{sha256(PACKED)}"'}, 304),
            ({"If_Match": '"x"'}, 412),
            ({"Range": "bytes=9999-"}, 416),
        ):
            response = fetch(app, URL, status=status, **headers)
            assert "Content-Encoding" not in response.headers
            assert status == 304 or response.json["code"] == status


@runs_on("moto", "seaweedfs")
@pytest.mark.parametrize("size", [100, 9_000_000], ids=["small", "in parts"])
def test_a_storage_sends_the_encoding_that_it_was_given(build: Build, size: int) -> None:
    app = build(content_encodings="gzip")
    content = random.Random(1).randbytes(size)
    packed = gzip.compress(content, compresslevel=1)
    put_packed(app, content=packed)
    redirected = fetch(app, URL, status=302).location
    response = ask(redirected, **{"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert response.content == content  # The client has decompressed it.


@runs_on("gcs")
def test_google_is_given_the_encoding(build: Build) -> None:
    """Google's emulator stores the encoding, but does not send it."""
    app = build(content_encodings="gzip")
    key = key_of(put_packed(app).json)
    blob = app.app.registry.attachment_storages.default.files.get_bucket().get_blob(key)
    assert blob.content_encoding == "gzip"


@ON_MEMORY
class TestServesItself:
    @pytest.mark.parametrize("downloads", ["x-accel-redirect:/files/", "x-sendfile"])
    def test_what_web_servers_drop_the_encoding_of(self, build: Build, downloads: str) -> None:
        app = build(content_encodings="gzip", downloads=downloads)
        put_packed(app)
        response = fetch(app, URL)
        assert not {"X-Accel-Redirect", "X-Sendfile"} & set(response.headers)
        assert response.headers["Content-Encoding"] == "gzip"
        assert response.body == PACKED
        attach(app, OTHER)
        response = fetch(app, f"{OTHER}/attachment")
        assert {"X-Accel-Redirect", "X-Sendfile"} & set(response.headers)


@ON_MEMORY
class TestKeepsTheEncoding:
    def test_of_other_spellings(self, app: Any) -> None:
        for value in ("GZIP", "x-gzip", " gzip "):
            headers = {**ALICE, "Content-Encoding": value}
            response = put_packed(app, headers=headers, status=(200, 201))
            assert response.json["encoding"] == "gzip"

    def test_when_it_is_renamed(self, app: Any) -> None:
        attachment = put_packed(app).json
        changes = {"data": {"filename": "b.txt", "mimetype": "text/csv"}}
        renamed = app.patch_json(URL, changes, headers=ALICE).json
        assert renamed == {**attachment, **changes["data"]}
        for url in (URL, attachment["location"]):
            response = fetch(app, url)
            assert response.headers["Content-Encoding"] == "gzip"
            assert response.headers["Content-Type"] == "text/csv"

    def test_when_it_is_kept_and_another_file_takes_its_place(self, build: Build) -> None:
        app = build(content_encodings="gzip", keep_old_files="true")
        location = put_packed(app).json["location"]
        assert "encoding" not in put_raw(app, status=200).json
        assert "Content-Encoding" not in fetch(app, URL).headers
        assert fetch(app, location).headers["Content-Encoding"] == "gzip"

    def test_of_a_collection(self, build: Build) -> None:
        app = build(**{"resources.b.c.content_encodings": "gzip"})
        put_packed(app)
        app.put_json(f"{COLLECTION}2", {"data": {}}, headers=ALICE)
        put_packed(app, f"{COLLECTION}2/records/r", status=415)


@ON_DATABASES
def test_reindex_restores_the_encoding(app: Any) -> None:
    location = put_packed(app).json["location"]
    registry = app.app.registry
    before = stored_links(app)
    with transaction.manager:
        registry.storage.delete_all("attachment", "attachments:*", with_deleted=False)
    assert not stored_links(app)
    assert reindex(registry).linked == 1
    assert stored_links(app) == before
    assert fetch(app, location).headers["Content-Encoding"] == "gzip"


@ON_MEMORY
class TestRefuses:
    def refused(self, app: Any, value: str, accepted: str) -> None:
        headers = {**ALICE, "Content-Encoding": value}
        response = put_packed(app, headers=headers, status=415)
        assert error(response) == (INVALID_PARAMETERS, f"Content-Encoding should be {accepted}")
        assert response.headers["Accept-Encoding"] == accepted
        assert app.app.body.taken == 0
        assert not stored_files(app)

    def test_any_unless_it_is_allowed(self, build: Build) -> None:
        app = build()
        for value in ("gzip", "br", "nonsense", "x-gzip"):
            self.refused(app, value, "identity")

    @pytest.mark.parametrize("value", ["br", "deflate", "gzip, gzip", "gzip, identity", "\u00e9"])
    def test_others(self, app: Any, value: str) -> None:
        self.refused(app, value, "gzip")

    def test_those_that_the_server_would_compress(self, build: Build) -> None:
        self.refused(build(content_encodings="gzip", gzipped="true"), "gzip", "identity")

    @pytest.mark.parametrize("value", ["identity", ""])
    def test_none_that_is_none(self, build: Build, value: str) -> None:
        app = build()
        headers = {**ALICE, "Content-Encoding": value}
        assert "encoding" not in put_raw(app, headers=headers, status=201).json

    @pytest.mark.parametrize("content", [b"", b"\x1f", b"\x1f\x8b", b"\x1f\x8b\x00", b"plain"])
    def test_bodies_that_are_not_gzip(self, app: Any, content: bytes) -> None:
        put_packed(app)
        before = attachment_of(app)
        response = put_packed(app, content=content, status=400)
        assert error(response)[1] == "body: Content-Encoding is gzip, but the body is not."
        assert attachment_of(app) == before
        assert stored_files(app) == {key_of(before)}

    def test_bytes_that_come_one_by_one(self, app: Any) -> None:
        class Slow(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                return super().read(min(size or 1, 1) if size != 0 else 0)

        url = f"{URL}?filename=a.txt"
        response = send(app, "PUT", url, Slow(PACKED), headers=GZIP, status=201)
        assert response.json["hash"] == sha256(PACKED)
        send(app, "PUT", url, Slow(b"\x1f\x8bx"), headers=GZIP, status=400)

    def test_digests_are_of_the_bytes_that_came(self, app: Any) -> None:
        for content, status in ((PACKED, 201), (CONTENT, 400)):
            claimed = f"sha-256=:{digest(content)}:"
            put_packed(app, headers={**GZIP, "Content-Digest": claimed}, status=status)

    def test_a_client_cannot_forge_it(self, app: Any) -> None:
        attachment = put_raw(app, status=201).json
        for forged in ("gzip", "br", None):
            data = {"data": {"attachment": {**attachment, "encoding": forged}}}
            app.patch_json(RECORD, data, headers=ALICE, status=400)
        assert "Content-Encoding" not in fetch(app, URL).headers
