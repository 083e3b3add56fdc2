"""What forms and bodies declare: media types, fields, extensions, sizes."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import live
from tests.support.application import (
    ALICE,
    COLLECTION,
    CONTENT,
    DEFAULT,
    INVALID_PARAMETERS,
    INVALID_POSTED_DATA,
    RECORD,
    Part,
    attach,
    attachment_of,
    error,
    form,
    key_of,
    post_form,
    put_raw,
    read,
    send,
    stored_files,
)
from tests.support.backends import ON_MEMORY, Build

pytestmark = ON_MEMORY

URL = f"{RECORD}/attachment"
FILE = Part("attachment", CONTENT, "notes.txt")
UNTOLD = [
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "APPLICATION/X-WWW-FORM-URLENCODED; charset=utf-8",
]


class TestTypesThatTellNothing:
    @pytest.mark.parametrize("upload", [attach, put_raw])
    @pytest.mark.parametrize("declared", UNTOLD)
    def test_of_a_name_with_a_known_type(self, app: Any, upload: Any, declared: str) -> None:
        response = upload(app, filename="pic.png", content_type=declared, status=201)
        assert response.json["mimetype"] == "image/png"

    @pytest.mark.parametrize("upload", [attach, put_raw])
    def test_of_a_name_with_a_type_of_the_settings(self, build: Build, upload: Any) -> None:
        app = build(extensions="any", mimetypes=".ftl:application/vnd.fluent")
        response = upload(app, filename="a.ftl", content_type=UNTOLD[0], status=201)
        assert response.json["mimetype"] == "application/vnd.fluent"

    @pytest.mark.parametrize("filename", ["a.unknown", "name"])
    @pytest.mark.parametrize("declared", UNTOLD[:2])
    def test_are_kept_for_other_names(self, build: Build, filename: str, declared: str) -> None:
        app = build(extensions="any")
        response = put_raw(app, filename=filename, content_type=declared, status=201)
        assert response.json["mimetype"] == declared

    def test_can_be_meant_by_a_renaming(self, app: Any) -> None:
        attach(app, filename="pic.png")
        changes = {"data": {"mimetype": UNTOLD[0]}}
        response = app.patch_json(URL, changes, headers=ALICE, status=200)
        assert response.json["mimetype"] == UNTOLD[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Server]:
    with live.kinto({"base_path": str(tmp_path_factory.mktemp("files"))}) as server:
        yield server


@pytest.mark.parametrize(
    "arguments", [["-X", "PUT", "--data-binary", "@pic.png"], ["-T", "pic.png"]], ids=["-d", "-T"]
)
def test_curl_sends_a_picture(server: live.Server, tmp_path: Path, arguments: list[str]) -> None:
    curl = shutil.which("curl")
    assert curl, "curl is needed"
    (tmp_path / "pic.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    url = f"{server.url}{DEFAULT}/attachment?filename=pic.png"
    command = [curl, "-sS", "--noproxy", "*", "-u", "alice:secret", *arguments, url]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=90)
    assert json.loads(run.stdout)["mimetype"] == "image/png"


class TestFields:
    @pytest.mark.parametrize("name", ["file", "upload", "Attachment"])
    @pytest.mark.parametrize("also", [(), (FILE,)], ids=["alone", "after the attachment"])
    def test_a_file_in_another_field(self, app: Any, name: str, also: tuple[Part, ...]) -> None:
        response = post_form(app, *also, Part(name, CONTENT, "notes.txt"), status=400)
        message = f"body: the file should be in the field 'attachment', not {name!r}"
        assert error(response) == (INVALID_POSTED_DATA, message)
        assert not stored_files(app)

    @pytest.mark.parametrize(
        "content_type", ["application/json", "Application/JSON;charset=UTF-8"]
    )
    def test_json_may_be_a_blob(self, app: Any, content_type: str) -> None:
        data = Part("data", '{"title": "A"}', "blob", content_type)
        permissions = Part("permissions", '{"read": ["system.Everyone"]}', "blob", content_type)
        post_form(app, data, FILE, permissions, status=201)
        record = app.get(RECORD, headers={}).json
        assert record["data"]["title"] == "A"
        assert read(app) == CONTENT

    @pytest.mark.parametrize("content_type", [None, "text/plain", "application/json-seq"])
    def test_a_file_that_is_not_json(self, app: Any, content_type: str | None) -> None:
        data = Part("data", '{"title": "A"}', "blob", content_type)
        _, message = error(post_form(app, FILE, data, status=400))
        assert message == "body: 'data' field should be passed as form data, not files"
        assert not stored_files(app)

    def test_a_blob_has_the_limits_of_a_field(self, app: Any) -> None:
        large = json.dumps({"a": "x" * 1024 * 1024})
        post_form(app, FILE, Part("data", large, "blob", "application/json"), status=413)
        post_form(app, FILE, Part("data", "[]", "blob", "application/json"), status=400)
        assert not stored_files(app)


class TestOtherTypesOfBodies:
    @pytest.mark.parametrize("url", [URL, f"{DEFAULT}/attachment", f"{COLLECTION}/attachments"])
    @pytest.mark.parametrize(
        "content_type",
        ["text/json", "application/x-www-form-urlencoded", "text/plain", "", "multipart/x"],
    )
    def test_are_refused_before_the_body(self, app: Any, url: str, content_type: str) -> None:
        headers = {**ALICE, "Content-Type": content_type}
        response = app.post(url, b'{"data": {}}', headers=headers, status=415)
        message = "Content-Type should be multipart/form-data"
        assert error(response) == (INVALID_PARAMETERS, message)
        assert app.app.body.taken == 0

    def test_of_any_length(self, build: Build) -> None:
        headers = {**ALICE, "Content-Type": "text/plain"}
        build(max_size=10).post(URL, b"x" * 3_000_000, headers=headers, status=415)

    def test_are_kinto_s_errno(self, app: Any) -> None:
        headers = {**ALICE, "Content-Type": "text/plain"}
        response = app.post(f"{COLLECTION}/records", b"x", headers=headers, status=415)
        assert error(response)[0] == INVALID_PARAMETERS

    @pytest.mark.parametrize("url", [URL, f"{COLLECTION}/attachments"])
    def test_in_an_encoding(self, app: Any, url: str) -> None:
        body, content_type = form(FILE)
        headers = {**ALICE, "Content-Type": content_type, "Content-Encoding": "gzip"}
        response = app.post(url, body, headers=headers, status=415)
        assert error(response) == (INVALID_PARAMETERS, "Content-Encoding should be identity")
        assert response.headers["Accept-Encoding"] == "identity"
        assert app.app.body.taken == 0

    def test_permissions_come_first(self, app: Any) -> None:
        app.post_json(URL, {}, headers={}, status=401)


class TestBatches:
    def batch(self, app: Any, *parts: tuple[str, str, Any]) -> list[Any]:
        requests = [
            {"method": method, "path": f"/v1{path}", "body": body} for method, path, body in parts
        ]
        answer = app.post_json("/batch", {"requests": requests}, headers=ALICE).json
        found: list[Any] = answer["responses"]
        return found

    def test_take_no_forms(self, app: Any) -> None:
        for url in (f"{COLLECTION}/attachments", URL):
            (part,) = self.batch(app, ("POST", url, {"attachment": "x"}))
            assert (part["status"], part["body"]["errno"]) == (400, INVALID_POSTED_DATA)
            assert "copy_from" in part["body"]["message"]
        assert not stored_files(app)

    def test_put_a_body_that_is_json(self, app: Any) -> None:
        (part,) = self.batch(app, ("PUT", f"{URL}?filename=a.json", {"n": 1}))
        assert part["status"] == 201
        assert json.loads(read(app)) == {"n": 1}

    def test_rename_and_remove(self, app: Any) -> None:
        attach(app)
        renamed, removed = self.batch(
            app, ("PATCH", URL, {"data": {"filename": "b.txt"}}), ("DELETE", URL, {})
        )
        assert (renamed["status"], removed["status"]) == (200, 204)
        assert not stored_files(app)


class TestCompressedNames:
    @pytest.mark.parametrize("filename", ["b.txt.gz", "B.TXT.GZ", "a.tar.txt.gz"])
    def test_are_judged_by_the_inner_extension(self, app: Any, filename: str) -> None:
        response = attach(app, filename=filename, status=201)
        assert response.json["filename"] == filename
        assert response.json["mimetype"] == "application/gzip"

    @pytest.mark.parametrize(
        "filename", ["a.gz", ".txt.gz", "virus.exe.gz", "a.txt.gz.gz", "a.gz.txt.zip", "txt.gz"]
    )
    def test_hide_nothing(self, app: Any, filename: str) -> None:
        attach(app, filename=filename, status=400)
        put_raw(app, filename=filename, status=400)
        assert not stored_files(app)

    def test_are_judged_by_the_outer_extension_too(self, build: Build) -> None:
        app = build(extensions="gz")
        attach(app, filename="a.exe.gz", status=201)

    def test_of_a_renaming(self, app: Any) -> None:
        attach(app)
        for filename, status in (("b.txt.gz", 200), ("b.exe.gz", 400)):
            app.patch_json(URL, {"data": {"filename": filename}}, headers=ALICE, status=status)
        assert attachment_of(app)["filename"] == "b.txt.gz"


@pytest.mark.parametrize(
    ("settings", "record", "named"),
    [
        ({"extensions": "png"}, RECORD, "extensions"),
        ({"resources.b.extensions": "png"}, RECORD, "resources.b.extensions"),
        (
            {"resources.b.extensions": "gif", "resources.b.c.extensions": "png"},
            RECORD,
            "resources.b.c.extensions",
        ),
        ({"resources.b.c.max_size": "9"}, RECORD, "extensions"),
        ({"resources.default.extensions": "png"}, DEFAULT, "resources.default.extensions"),
    ],
)
def test_a_refused_extension_names_the_setting(
    build: Build, settings: dict[str, str], record: str, named: str
) -> None:
    app = build(**settings)
    expected = f"body: File extension is not allowed. The setting is kinto.attachment.{named}."
    content = b"x"
    assert error(attach(app, record, content, "a.exe", status=400))[1] == expected
    attach(app, record, content, "a.png", status=201)
    changes = {"data": {"filename": "a.exe"}}
    response = app.patch_json(f"{record}/attachment", changes, headers=ALICE, status=400)
    assert error(response)[1] == expected


class TestLeastSize:
    @pytest.mark.parametrize("upload", [attach, put_raw])
    @pytest.mark.parametrize("gzipped", ["false", "true"])
    def test_of_what_is_sent(self, build: Build, upload: Any, gzipped: str) -> None:
        app = build(min_size=10, gzipped=gzipped)
        upload(app, content=b"before it is replaced")
        response = upload(app, content=b"123456789", status=400)
        message = "body: File size is below the minimum of 10 bytes."
        assert error(response) == (INVALID_POSTED_DATA, message)
        upload(app, content=b"", status=400)
        assert len(stored_files(app)) == 1
        upload(app, content=b"0123456789", status=200)

    def test_a_declared_length_is_refused_before_the_body(self, build: Build) -> None:
        app = build(min_size=10)
        put_raw(app, content=b"123456789", status=400)
        assert app.app.body.taken == 0

    def test_of_chunks(self, build: Build) -> None:
        app = build(min_size=10)
        send(app, "PUT", f"{URL}?filename=a.txt", io.BytesIO(b"12345"), status=400)
        assert not stored_files(app)

    def test_of_one_collection(self, build: Build) -> None:
        app = build(**{"min_size": 10, "resources.b.c.min_size": 0})
        attach(app, content=b"", status=201)
        attach(app, DEFAULT, b"", status=400)


class TestFan:
    def test_is_of_the_random_name(self, build: Build) -> None:
        app = build(folder="{bucket_id}/{fan}")
        for _ in range(5):
            folder, fan, name = key_of(attach(app).json).split("/")
            assert (folder, fan) == ("b", name[:2])
            assert read(app) == CONTENT

    @pytest.mark.one_way  # The folder is random.
    def test_of_names_that_are_kept(self, build: Build) -> None:
        app = build(folder="{fan}", randomize="false")
        fan, name = key_of(attach(app).json).split("/")
        assert (len(fan), name) == (2, "notes.txt")
        assert int(fan, 16) >= 0
