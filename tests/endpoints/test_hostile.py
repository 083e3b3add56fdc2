"""Requests of attackers and of clients that break: the error is clear, and nothing is lost."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.application import (
    ALICE,
    CONTENT,
    DEFAULT,
    OTHER,
    RECORD,
    Part,
    attach,
    attachment_of,
    describe_behind,
    error,
    form,
    key_of,
    post_form,
    put,
    put_raw,
    read,
    send,
    stored_files,
    write_behind,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_EACH_DATABASE, ON_MEMORY, Build

pytestmark = EVERYWHERE

URL = f"{RECORD}/attachment"

# The name as sent, and as stored (None: it is refused).
TRAVERSALS = [
    ("../../etc/passwd.txt", "passwd.txt"),
    ("/etc/passwd.txt", "passwd.txt"),
    ("..\\..\\windows\\system.txt", "system.txt"),
    ("C:\\dir\\b.txt", "b.txt"),
    ("a/b/../c.txt", "c.txt"),
    ("....//....//a.txt", "a.txt"),
    (".hidden.txt", ".hidden.txt"),
    ("%2e%2e%2fa.txt", "%2e%2e%2fa.txt"),
    ("~root.txt", "~root.txt"),
    ("-rf.txt", "-rf.txt"),
    ("$(touch x).txt", "$(touch x).txt"),
    ("CON.txt", "CON.txt"),
    ("a.txt;.png", "a.txt;.png"),
    ("..", None),
    (".", None),
    ("dir/", None),
    ("dir\\", None),
    ("   ", None),
]
ODD_NAMES = [
    "\u200fשלום.txt",
    "👩‍👩‍👧‍👦 🏳️‍🌈.txt",
    "اسم الملف.txt",
    "e\u0301\u0301\u0301.txt",
    "файл с пробелами.txt",
    "ﷺ" * 50 + ".txt",
    "a" * 251 + ".txt",
    "ß" * 125 + ".txt",
    "ﷺ" * 83 + ".txt",
    '"quoted".txt',
    "semi;colon=1.txt",
    "per%cent%00.txt",
    "a+b&c=d?e#f.txt",
    "<script>alert(1)<.txt",
    "'; DROP TABLE objects; --.txt",
    "{{7*7}}{bucket_id}%s%n.txt",
    "\ufeffbom.txt",
    "a\u2028b\u2029c.txt",
]


class TestFilenames:
    @pytest.mark.parametrize(("sent", "kept"), TRAVERSALS)
    def test_leave_no_folder(self, build: Build, sent: str, kept: str | None) -> None:
        app = build(randomize="false", folder="inside")
        for upload in (attach, put_raw):
            if kept is None:
                upload(app, filename=sent, status=400)
                assert not stored_files(app)
            else:
                attachment = upload(app, filename=sent, status=(200, 201)).json
                assert attachment["filename"] == kept
                (key,) = stored_files(app)
                folder, name = key.split("/")
                assert folder == "inside"
                assert not name.startswith((".", "-"))
                assert read(app, attachment["location"]) == CONTENT

    @ON_MEMORY
    def test_never_leave_the_folder_on_disk(self, build: Build, tmp_path: Path) -> None:
        base = tmp_path / "deep" / "files"
        app = build(base_path=str(base), randomize="false", extensions="any")
        for sent, _ in TRAVERSALS:
            attach(app, filename=sent, status="*")
        outside = [
            path for path in tmp_path.rglob("*") if path.is_file() and base not in path.parents
        ]
        assert outside == []

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_that_are_odd_are_kept_and_given_back(self, build: Build, name: str) -> None:
        app = build(randomize="false", downloads="proxy")
        part = Part(None, CONTENT, content_type="text/plain")
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        line = f'Content-Disposition: form-data; name="attachment"; filename="{escaped}"'
        body, content_type = form(part)
        body = body.replace(b"Content-Disposition: form-data", line.encode(), 1)
        headers = {**ALICE, "Content-Type": content_type}
        attachment = app.post(URL, body, headers=headers, status=201).json
        assert attachment["filename"] == name
        assert attachment_of(app)["filename"] == name
        response = app.get(URL, headers=ALICE)
        assert response.body == CONTENT
        header = response.headers["Content-Disposition"]
        assert header.isascii()
        assert header.isprintable()
        assert read(app, attachment["location"]) == CONTENT
        assert put_raw(app, filename=name).json["filename"] == name

    @ON_MEMORY
    def test_with_a_random_name_keep_the_extension(self, app: Any) -> None:
        for sent, kept in TRAVERSALS:
            if kept is not None:
                key = key_of(attach(app, filename=sent).json)
                assert key.isascii()
                assert len(key) == 36 + len(".txt")

    @ON_MEMORY
    @pytest.mark.parametrize(
        "name", ["a" * 1_000 + ".txt", "a" * 252 + ".txt", "ф" * 126 + ".txt"]
    )
    def test_that_are_too_long(self, app: Any, name: str) -> None:
        assert attach(app, filename=name, status=400).json["errno"] == 109
        assert put_raw(app, filename=name, status=400).json["errno"] == 109
        assert not stored_files(app)

    @ON_MEMORY
    def test_that_are_longer_than_a_header_may_be(self, app: Any) -> None:
        attach(app, filename="a" * 10_000 + ".txt", status=413)
        put_raw(app, filename="a" * 10_000 + ".txt", status=400)
        assert not stored_files(app)

    @ON_MEMORY
    @pytest.mark.parametrize("gzipped", ["false", "true"])
    def test_that_are_as_long_as_they_may_be(self, build: Build, gzipped: str) -> None:
        app = build(gzipped=gzipped)
        name = "ф" * 125 + "x.txt"
        assert len(name.encode()) == 255
        for upload in (attach, put_raw):
            attachment = upload(app, filename=name).json
            assert len(attachment["filename"].encode()) <= 255
            if gzipped == "true":
                assert attachment["filename"] == "ф" * 124 + ".txt.gz"
                attachment = attachment["original"]
            assert attachment["filename"] == name
            assert len(app.get(URL, headers=ALICE).headers["Content-Disposition"]) < 1200

    @ON_MEMORY
    @pytest.mark.parametrize("length", [300, 10_000])
    def test_that_other_code_has_written_are_cut_in_headers(self, app: Any, length: int) -> None:
        attach(app)
        describe_behind(app, RECORD, filename="\u202e" + "ф" * length + ".txt")
        header = app.get(URL, headers=ALICE).headers["Content-Disposition"]
        assert len(header) < 1200
        assert header.endswith(quote("фф.txt"))
        assert quote("\u202e") not in header

    @pytest.mark.parametrize("control", "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    def test_with_bidirectional_controls_lose_them(self, build: Build, control: str) -> None:
        app = build(randomize="false")
        sent = f"{control}a{control}b.t{control}xt{control}"
        headers = {
            **ALICE,
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(sent)}",
        }
        for answer in (
            attach(app, filename=sent),
            put_raw(app, filename=sent),
            put_raw(app, filename=None, headers=headers),
        ):
            assert answer.json["filename"] == "ab.txt"
            assert key_of(answer.json) in ("ab.txt", "ab-1.txt")
        assert attachment_of(app)["filename"] == "ab.txt"

    @ON_MEMORY
    @pytest.mark.parametrize(
        "sent",
        [
            "a.e\u202exe",
            "a.exe\u202e",
            "\u2066a.exe\u2069",
            "a.\u202etxt.exe",
            "a.txt\u202e.exe",
            "\u202e",
        ],
    )
    def test_with_bidirectional_controls_get_round_no_rule(self, app: Any, sent: str) -> None:
        attach(app, filename=sent, status=400)
        put_raw(app, filename=sent, status=400)
        assert not stored_files(app)

    @ON_MEMORY
    @pytest.mark.parametrize(
        "name", ["a\x00.txt", "a\r\nX-Evil: 1.txt", "a\nb.txt", "a\x1b[31m.txt", "a\x7f.txt"]
    )
    def test_with_control_characters(self, app: Any, name: str) -> None:
        assert put_raw(app, filename=name, status=400).json["errno"] == 109
        headers = {**ALICE, "Content-Disposition": "attachment; filename*=UTF-8''a%0D%0Ab.txt"}
        put_raw(app, headers=headers, status=400)
        raw = form(Part("attachment", CONTENT, "NAME.txt"))
        body = raw[0].replace(b"NAME.txt", name.encode())
        app.post(URL, body, headers={**ALICE, "Content-Type": raw[1]}, status=400)
        assert not stored_files(app)

    def test_in_no_encoding(self, app: Any) -> None:
        body, content_type = form(Part("attachment", CONTENT, "NAME.txt"))
        body = body.replace(b"NAME", b"\xff\xfe\xe9")
        response = app.post(
            URL, body, headers={**ALICE, "Content-Type": content_type}, status=(201, 400)
        )
        assert len(stored_files(app)) == (response.status_code == 201)

    @ON_MEMORY
    @pytest.mark.parametrize("query", ["filename=%FF%FE.txt", "filename=a%00.txt", "filename=%"])
    def test_in_a_broken_query(self, app: Any, query: str) -> None:
        app.put(f"{URL}?{query}", CONTENT, headers=ALICE, status=400)
        assert not stored_files(app)

    @pytest.mark.parametrize(
        "sent",
        ["a.exe.TXT", "a.txt.exe", "a.exe.", "a.exe ", "a.exe\u200b", "a.exe;.txt", "a.ex\u0435"],
    )
    def test_have_the_extension_that_counts(self, build: Build, sent: str) -> None:
        """Each stored file has an allowed extension."""
        app = build(randomize="false", extensions="txt")
        response = attach(app, filename=sent, status=(201, 400))
        if response.status_code == 201:
            assert key_of(response.json).endswith((".txt", ".TXT"))


class TestResponses:
    @pytest.mark.parametrize(
        ("filename", "mimetype", "content"),
        [
            ("a.html", "text/html", b"<script>alert(document.domain)</script>"),
            ("a.svg", "image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>"),
            ("a.png", "text/html", b"<script>"),
            ("a.txt", "text/plain", b"<html><script>"),
            ("a.xhtml", "application/xhtml+xml", b"<html/>"),
            ("a.html", None, b"<script>"),
        ],
    )
    @ON_MEMORY
    def test_run_nothing_in_the_api_s_origin(
        self, build: Build, filename: str, mimetype: str | None, content: bytes
    ) -> None:
        app = build(extensions="any")
        location = attach(app, content=content, filename=filename, content_type=mimetype).json[
            "location"
        ]
        for url in (URL, location):
            response = app.get(url, headers=ALICE)
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert "sandbox" in response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            inline = response.headers["Content-Disposition"].startswith("inline")
            assert inline == (response.content_type == "text/plain")

    @pytest.mark.parametrize(
        "mimetype",
        [
            "text/plain\r\nX-Evil: 1",
            "text/plain\x00",
            "é/é",
            "*/*",
            "a" * 300 + "/b",
            "text/plain; x=" + "y" * 9000,
        ],
    )
    @ON_MEMORY
    def test_have_no_header_of_an_uploader_s(self, app: Any, mimetype: str) -> None:
        body, content_type = form(Part("attachment", CONTENT, "a.txt", "TYPE"))
        body = body.replace(b"TYPE", mimetype.encode())
        headers = {**ALICE, "Content-Type": content_type}
        if app.post(URL, body, headers=headers, status=(201, 400, 413)).status_code == 201:
            response = app.get(URL, headers=ALICE)
            assert "X-Evil" not in response.headers
            assert response.content_type == "text/plain"

    @ON_MEMORY
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("mimetype", "text/html\r\nX-Evil: 1"),
            ("mimetype", "nonsense"),
            ("mimetype", 1),
            ("mimetype", None),
            ("filename", "a\r\nX-Evil: 1.txt"),
            ("filename", ["a"]),
            ("hash", '"\r\nX-Evil: 1'),
            ("hash", None),
        ],
    )
    def test_have_no_header_of_another_plugin_s(self, app: Any, name: str, value: Any) -> None:
        attachment = attach(app).json
        write_behind(app, RECORD, {"attachment": {**attachment, name: value}})
        response = app.get(URL, headers=ALICE)
        assert response.body == CONTENT
        assert "X-Evil" not in response.headers
        write_behind(app, RECORD, {"attachment": attachment})

    @ON_MEMORY
    @pytest.mark.parametrize("value", ["text", 5, True, [], ["a"]])
    def test_are_no_attachment_if_they_are_no_object(self, app: Any, value: Any) -> None:
        put(app, RECORD)
        write_behind(app, RECORD, {"attachment": value})
        app.get(URL, headers=ALICE, status=404)
        renamed = {"data": {"filename": "b.txt"}}
        assert error(app.patch_json(URL, renamed, headers=ALICE, status=404))[0] == 110
        app.delete(URL, headers=ALICE, status=204)
        assert attachment_of(app) is None

    @ON_DATABASES
    def test_lead_to_no_file_that_is_known_as_another_one(self, app: Any) -> None:
        """Records that clients wrote before the plugin was installed may try to."""
        secret = attach(app, OTHER, content=b"secret").json
        for forged in ({}, {"hash": None}, {"hash": "0" * 64}, {"hash": [secret["hash"]]}):
            known = {"location": secret["location"], "size": secret["size"]}
            write_behind(app, RECORD, {"attachment": {**known, **forged}})
            app.get(URL, headers=ALICE, status=404)
            app.head(URL, headers=ALICE, status=404)
        write_behind(app, RECORD, {"attachment": secret})
        assert read(app, URL) == b"secret", "as a copy from before the index"
        write_behind(app, RECORD, {})

    @ON_MEMORY
    def test_errors_are_never_html(self, app: Any) -> None:
        attach(app)
        evil = "<script>alert(1)</script>"
        for response in (
            app.get(f"/attachments/{evil}", headers=ALICE, status=404),
            put_raw(app, filename=f"{evil}.exe", status=400),
            post_form(app, Part(evil, "x"), status=400),
            app.get(URL, headers={**ALICE, "Range": f"bytes=99-{evil}"}, status="*"),
            app.get(f"{RECORD}x/attachment", headers={**ALICE, "Accept": "text/html"}, status="*"),
        ):
            assert response.content_type in ("application/json", "text/plain")


# Keys that no file has.
NO_KEYS = [
    "../../../etc/passwd",
    "%2e%2e/%2e%2e/etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "/etc/passwd",
    "%2Fetc%2Fpasswd",
    "a%00b",
    "%00",
    "..\\..\\x",
    ".unfinished/x",
    "a//b",
    ".",
    "%F0%9F%98%80",
    "a" * 2000,
    "a/" * 1000,
    "%ED%A0%80",
    "*",
    "%25",
    "'; --",
]


@ON_DATABASES
class TestPaths:
    @ON_EACH_DATABASE
    @pytest.mark.parametrize("public", ["true", "false"])
    def test_of_files_that_are_none(self, build: Build, public: str) -> None:
        app = build(public=public)
        attach(app)
        for key in NO_KEYS:
            response = app.get(f"/v1/attachments/{key}", headers=ALICE, status="4*")
            assert response.status_code in (400, 404), key
            assert response.content_type == "application/json", key

    @pytest.mark.parametrize(
        "path",
        [
            "/buckets/%00/collections/c/records/r/attachment",
            "/buckets/b/collections/%00/records/r/attachment",
            "/buckets/b/collections/c/records/%00/attachment",
            "/buckets/b/collections/c/records/%2e%2e/attachment",
            "/buckets/b/collections/c/records/*/attachment",
            "/buckets/b/collections/c/records/%F0%9F%98%80/attachment",
            "/buckets/b%2Fcollections%2Fc/collections/c/records/r/attachment",
            "/buckets/default/collections/%00/records/r/attachment",
            "/buckets/default/collections/c/records/%00/attachment",
            "/buckets/default/collections//records/r/attachment",
            "/buckets/default/collections/c/records/r/attachment/",
            "/buckets/default/collections/c/records/../attachment",
        ],
    )
    def test_of_records_that_can_be_none(self, app: Any, path: str) -> None:
        for ask in (
            lambda: app.get(path, headers=ALICE, status="*"),
            lambda: app.delete(path, headers=ALICE, status="*"),
            lambda: app.put(f"{path}?filename=a.txt", CONTENT, headers=ALICE, status="*"),
        ):
            assert 300 <= ask().status_code < 500
        assert not stored_files(app)


class Disconnected(io.BytesIO):
    """A client that disconnects after its first bytes."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 0:
            raise OSError("Connection reset by peer")
        return super().read(min(10, size or 10) if size != -1 else 10)


class TestBrokenBodies:
    @pytest.fixture(autouse=True)
    def before(self, app: Any) -> None:
        attach(app, content=b"before")

    def check(self, app: Any) -> None:
        assert read(app) == b"before"
        assert len(stored_files(app)) == 1

    @pytest.mark.parametrize("record", [RECORD, DEFAULT])
    def test_shorter_than_their_length(self, app: Any, record: str) -> None:
        body, content_type = form(Part("attachment", CONTENT, "a.txt"))
        url = f"{record}/attachment"
        headers = {**ALICE, "Content-Type": content_type}
        for cut in (0, 20, 60, len(body) - 30, len(body) - 1):
            response = send(
                app,
                "POST",
                url,
                io.BytesIO(body[:cut]),
                length=len(body),
                headers=headers,
                status=400,
            )
            assert response.json["errno"] == 107
        for cut in (0, 1, 20):
            response = send(
                app,
                "PUT",
                f"{url}?filename=a.txt",
                io.BytesIO(CONTENT[:cut]),
                length=len(CONTENT),
                status=400,
            )
            assert response.json["errno"] == 107
        self.check(app)

    def test_of_clients_that_disconnect(self, app: Any) -> None:
        body, content_type = form(Part("attachment", CONTENT, "a.txt"))
        headers = {**ALICE, "Content-Type": content_type}
        length = len(body)
        send(app, "POST", URL, Disconnected(body), length=length, headers=headers, status=400)
        send(app, "POST", URL, Disconnected(body), headers=headers, status=400)
        url = f"{URL}?filename=a.txt"
        send(app, "PUT", url, Disconnected(CONTENT), length=len(CONTENT), status=400)
        send(app, "PUT", url, Disconnected(CONTENT), status=400)
        self.check(app)

    @ON_MEMORY
    @pytest.mark.parametrize("length", ["-1", "abc", "1e3", "0x10", "9" * 30])
    def test_of_no_length(self, app: Any, length: str) -> None:
        request = app.RequestClass.blank(f"{URL}?filename=a.txt", method="PUT", headers=ALICE)
        request.environ["wsgi.input"] = io.BytesIO(CONTENT)
        request.environ["CONTENT_LENGTH"] = length
        answer: list[str] = []
        response = b"".join(
            app.app(request.environ, lambda status, *_: answer.append(status) or (lambda _: None))
        )
        assert answer[0].startswith(("400", "413"))
        assert response.startswith(b"{")
        self.check(app)

    def test_longer_than_their_length(self, app: Any) -> None:
        """The bytes after the length belong to the next request."""
        body = io.BytesIO(CONTENT + b"GET / HTTP/1.1\r\n")
        send(app, "PUT", f"{URL}?filename=a.txt", body, length=len(CONTENT), status=200)
        assert read(app) == CONTENT
        assert body.tell() == len(CONTENT)


@ON_MEMORY
class TestForms:
    @pytest.mark.parametrize(
        "parts",
        [
            [Part(None, CONTENT, "a.txt")],
            [Part("", CONTENT, "a.txt")],
            [Part("attachment", CONTENT, "a.txt"), Part("attachment", CONTENT, "b.txt")],
            [Part("attachment", CONTENT, "a.txt"), Part("attachment", "text")],
            [Part("attachment", "text"), Part("attachment", CONTENT, "a.txt")],
            [Part("ATTACHMENT", CONTENT, "a.txt")],
            [Part("attachment[]", CONTENT, "a.txt")],
            [Part("attachment\u200b", CONTENT, "a.txt")],
            [Part("attachment", CONTENT, "a.txt", lines=("Content-Transfer-Encoding: base64",))],
            [
                Part(
                    "attachment",
                    CONTENT,
                    "a.txt",
                    lines=('Content-Disposition: form-data; name="x"',),
                )
            ],
        ],
    )
    def test_with_odd_parts(self, app: Any, parts: list[Part]) -> None:
        response = post_form(app, *parts, status=400)
        assert response.json["errno"] in (107, 109)
        assert not stored_files(app)

    @pytest.mark.parametrize(
        "value",
        [
            '{"a": "\\ud800"}',
            '{"a": "\\u0000"}',
            '{"\\u0000": 1}',
            '{"a": 1e999}',
            '{"__proto__": {"x": 1}, "a": Infinity}',
            '{"a": ' + "9" * 5000 + "}",
        ],
    )
    def test_with_odd_data_answer_what_kinto_answers(self, app: Any, value: str) -> None:
        headers = {**ALICE, "Content-Type": "application/json"}
        expected = app.put(RECORD, f'{{"data": {value}}}', headers=headers, status="*")
        app.delete(RECORD, headers=ALICE, status="*")
        status = attach(app, data=value, status="*").status_code
        assert status in (expected.status_code, 201, 400)
        assert len(stored_files(app)) == (status == 201)
