"""Downloads of the current file of a record, and of any file by its location."""

from __future__ import annotations

import base64
import logging
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from wsgiref.util import FileWrapper

import pytest

from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    COLLECTION,
    CONTENT,
    RECORD,
    ask,
    attach,
    attachment_of,
    describe_behind,
    put,
    put_raw,
    read,
    sha256,
    stored_files,
    userid,
    write_behind,
)
from tests.support.backends import EVERYWHERE, ON_MEMORY, ON_OBJECT_STORES, Build

pytestmark = EVERYWHERE

URL = f"{RECORD}/attachment"
DIGITS = b"0123456789"
HASH = sha256(DIGITS)


@pytest.fixture
def served(build: Build) -> Any:
    """A server that sends the bytes itself, with a file of ten of them."""
    app = build(downloads="proxy")
    attach(app, content=DIGITS, filename="digits.txt")
    return app


def get(app: Any, url: str = URL, status: Any = None, method: str = "GET", **headers: str) -> Any:
    """Headers in the form ``if_none_match``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    function = app.get if method == "GET" else app.head
    return function(url, headers={**ALICE, **named}, status=status)


class TestHeaders:
    def test_of_the_record_s_file(self, served: Any) -> None:
        response = get(served)
        assert response.body == DIGITS
        assert response.headers["Content-Type"] == "text/plain"
        assert response.headers["Content-Length"] == "10"
        assert response.headers["Accept-Ranges"] == "bytes"
        assert response.headers["ETag"] == f'"{HASH}"'
        digest = base64.b64encode(bytes.fromhex(HASH)).decode()
        assert response.headers["Repr-Digest"] == f"sha-256=:{digest}:"
        assert response.headers["Content-Disposition"] == 'inline; filename="digits.txt"'
        assert response.headers["Cache-Control"] == "private, no-cache"
        modified = parsedate_to_datetime(response.headers["Last-Modified"])
        record = get(served, RECORD)
        written = parsedate_to_datetime(record.headers["Last-Modified"])
        assert abs(written - modified) < timedelta(seconds=10)

    def test_that_keep_a_browser_from_running_it(self, served: Any) -> None:
        response = get(served)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        policy = response.headers["Content-Security-Policy"]
        assert "sandbox" in policy
        assert "default-src 'none'" in policy

    def test_of_head_are_those_of_get(self, served: Any) -> None:
        for url in (URL, attachment_of(served)["location"]):
            whole = get(served, url)
            head = get(served, url, method="HEAD")
            assert head.body == b""
            ignored = {"Date"}
            assert {k: v for k, v in head.headers.items() if k not in ignored} == {
                k: v for k, v in whole.headers.items() if k not in ignored
            }

    @pytest.mark.parametrize(
        ("filename", "header"),
        [
            ("a b.txt", 'inline; filename="a b.txt"'),
            ('a"b.txt', "inline; filename=\"a_b.txt\"; filename*=UTF-8''a%22b.txt"),
            (
                "тест.txt",
                "inline; filename=\"____.txt\"; filename*=UTF-8''%D1%82%D0%B5%D1%81%D1%82.txt",
            ),
        ],
    )
    def test_name_the_file_as_it_was_sent(self, served: Any, filename: str, header: str) -> None:
        put_raw(served, filename=filename)
        assert get(served).headers["Content-Disposition"] == header

    @ON_MEMORY
    @pytest.mark.parametrize(
        ("filename", "mimetype", "kind"),
        [
            ("a.png", "image/png", "inline"),
            ("a.mp3", "audio/mpeg", "inline"),
            ("a.txt", "text/plain; charset=utf-8", "inline"),
            ("a.txt", "TEXT/Plain", "inline"),
            ("a.html", "text/html", "attachment"),
            ("a.svg", "image/svg+xml", "attachment"),
            ("a.xml", "text/xml", "attachment"),
            ("a.pdf", "application/pdf", "attachment"),
            ("a.js", "text/javascript", "attachment"),
            ("a.png", "text/html", "attachment"),
            ("a.png", "image/svg+xml", "attachment"),
            ("a.txt", "text/html; x=text/plain", "attachment"),
            ("a.txt", "multipart/x-mixed-replace", "attachment"),
        ],
    )
    def test_show_in_place_only_what_runs_nothing(
        self, build: Build, filename: str, mimetype: str, kind: str
    ) -> None:
        app = build(extensions="any", downloads="proxy")
        attach(app, filename=filename, content_type=mimetype)
        assert get(app).headers["Content-Disposition"].startswith(kind + ";")

    @ON_MEMORY
    def test_show_in_place_what_the_operator_says(self, build: Build) -> None:
        app = build(
            **{
                "extensions": "any",
                "inline_types": "application/pdf, image/*",
                "resources.b.d.inline_types": "text/plain",
            }
        )
        put(app, "/buckets/b/collections/d")
        for record, filename, kind in (
            (RECORD, "a.pdf", "inline"),
            (RECORD, "a.png", "inline"),
            (RECORD, "a.txt", "attachment"),
            ("/buckets/b/collections/d/records/r", "a.pdf", "attachment"),
            ("/buckets/b/collections/d/records/r", "a.txt", "inline"),
        ):
            location = attach(app, record, filename=filename).json["location"]
            for url in (f"{record}/attachment", location):
                assert get(app, url).headers["Content-Disposition"].startswith(kind + ";")


class TestRanges:
    @pytest.mark.parametrize(
        ("header", "content", "content_range"),
        [
            ("bytes=0-0", b"0", "bytes 0-0/10"),
            ("bytes=9-9", b"9", "bytes 9-9/10"),
            ("bytes=9-", b"9", "bytes 9-9/10"),
            ("bytes=-1", b"9", "bytes 9-9/10"),
            ("bytes=-3", b"789", "bytes 7-9/10"),
            ("bytes=-100", DIGITS, "bytes 0-9/10"),
            ("bytes=0-", DIGITS, "bytes 0-9/10"),
            ("bytes=2-5", b"2345", "bytes 2-5/10"),
            ("bytes=5-100", b"56789", "bytes 5-9/10"),
        ],
    )
    @pytest.mark.parametrize("by", ["record", "location"])
    def test_of_the_file(
        self, served: Any, header: str, content: bytes, content_range: str, by: str
    ) -> None:
        url = URL if by == "record" else attachment_of(served)["location"]
        response = get(served, url, range=header, status=206)
        assert response.body == content
        assert response.headers["Content-Range"] == content_range
        assert response.headers["Content-Length"] == str(len(content))
        assert response.headers["ETag"] == f'"{HASH}"'
        assert response.headers["Content-Type"] == "text/plain"

    @pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=999-"])
    def test_past_the_end(self, served: Any, header: str) -> None:
        response = get(served, range=header, status=416)
        assert response.headers["Content-Range"] == "bytes */10"
        assert response.content_type == "application/json"
        assert response.json["code"] == 416

    @pytest.mark.parametrize("header", ["bytes=5-2", "lines=0-1", "bytes=a-b", "bytes=0-1,3-4"])
    def test_that_are_ignored(self, served: Any, header: str) -> None:
        response = get(served, range=header, status=200)
        assert response.body == DIGITS
        assert "Content-Range" not in response.headers

    def test_of_an_empty_file(self, served: Any) -> None:
        put_raw(served, content=b"")
        assert get(served, status=200).body == b""
        get(served, range="bytes=0-0", status=416)

    def test_of_a_file_of_many_chunks(self, served: Any) -> None:
        content = bytes(range(256)) * 4096
        attach(served, content=content, filename="a.txt")
        response = get(served, range="bytes=262143-786433", status=206)
        assert response.body == content[262143:786434]

    def test_head_ignores_them(self, served: Any) -> None:
        response = get(served, method="HEAD", range="bytes=0-0", status=200)
        assert response.headers["Content-Length"] == "10"

    def test_if_range(self, served: Any) -> None:
        modified = get(served).headers["Last-Modified"]
        for validator in (f'"{HASH}"', modified):
            get(served, range="bytes=0-0", if_range=validator, status=206)
        older = format_datetime(parsedate_to_datetime(modified) - timedelta(hours=1), usegmt=True)
        for validator in ('"other"', f'W/"{HASH}"', older):
            assert get(served, range="bytes=0-0", if_range=validator, status=200).body == DIGITS

    @ON_MEMORY
    def test_through_the_server_s_own_file_wrapper(self, served: Any) -> None:
        environ = {"wsgi.file_wrapper": FileWrapper}
        for header, content in (("bytes=2-5", b"2345"), ("bytes=-1", b"9"), ("", DIGITS)):
            headers = {**ALICE, "Range": header}
            response = served.get(URL, headers=headers, extra_environ=environ)
            assert response.body == content


class TestConditions:
    @pytest.mark.parametrize(
        ("header", "status"),
        [
            ('"{hash}"', 304),
            ('W/"{hash}"', 304),
            ('"other", "{hash}"', 304),
            ('"other" , W/"{hash}","more"', 304),
            ("*", 304),
            ('"other"', 200),
            ('W/"other"', 200),
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_if_none_match(self, served: Any, header: str, status: int, method: str) -> None:
        header = header.format(hash=HASH)
        response = get(served, method=method, if_none_match=header, status=status)
        assert response.headers["ETag"] == f'"{HASH}"'
        if status == 304:
            assert response.body == b""
            assert "Content-Length" not in response.headers

    @pytest.mark.parametrize(
        ("header", "status"),
        [
            ('"{hash}"', 200),
            ("*", 200),
            ('"a", "{hash}"', 200),
            ('"other"', 412),
            ('W/"{hash}"', 412),
        ],
    )
    def test_if_match(self, served: Any, header: str, status: int) -> None:
        response = get(served, if_match=header.format(hash=HASH), status=status)
        if status == 412:
            assert response.json["errno"] == 114

    def test_dates(self, served: Any) -> None:
        modified = parsedate_to_datetime(get(served).headers["Last-Modified"])
        now, before, after = (
            format_datetime(modified + timedelta(hours=hours), usegmt=True) for hours in (0, -1, 1)
        )
        get(served, if_modified_since=now, status=304)
        get(served, if_modified_since=after, status=304)
        get(served, if_modified_since=before, status=200)
        get(served, if_modified_since="yesterday", status=200)
        get(served, if_unmodified_since=now, status=200)
        get(served, if_unmodified_since=before, status=412)
        # An entity tag takes precedence.
        get(served, if_none_match='"other"', if_modified_since=after, status=200)

    def test_come_before_ranges(self, served: Any) -> None:
        get(served, if_none_match=f'"{HASH}"', range="bytes=0-0", status=304)
        get(served, if_match='"other"', range="bytes=99-", status=412)

    def test_notice_another_file(self, served: Any) -> None:
        attach(served, content=b"new")
        get(served, if_none_match=f'"{HASH}"', status=200)
        get(served, if_match=f'"{HASH}"', status=412)


class TestNotFound:
    def test_no_record(self, app: Any) -> None:
        response = get(app, status=404)
        assert response.json["errno"] == 110
        assert response.json["details"] == {"id": "r", "resource_name": "record"}
        get(app, method="HEAD", status=404)

    @pytest.mark.parametrize("data", [{}, {"attachment": None}])
    def test_no_attachment(self, app: Any, data: dict[str, Any]) -> None:
        put(app, RECORD, data=data)
        assert get(app, status=404).json["errno"] == 110

    @pytest.mark.parametrize(
        "parent", ["/buckets/ghost/collections/c", "/buckets/b/collections/g"]
    )
    def test_no_collection(self, app: Any, parent: str) -> None:
        url = f"{parent}/records/r/attachment"
        for headers in (ANONYMOUS, BOB, ALICE):
            expected = app.get(f"{parent}/records/r", headers=headers, status="*").status_code
            app.get(url, headers=headers, status=expected)

    def test_a_missing_file_is_logged(self, app: Any, caplog: pytest.LogCaptureFixture) -> None:
        location = attach(app).json["location"]
        (key,) = stored_files(app)
        app.app.registry.attachment_storages.default.files.delete(key)
        for url in (URL, location):
            caplog.clear()
            assert get(app, url, status=404).json["errno"] == 110
            errors = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
            assert any(key in entry.getMessage() for entry in errors)
        # Such a record can be repaired or deleted.
        attach(app)
        assert read(app) == CONTENT

    @pytest.mark.parametrize("attachment", [{}, {"location": 1}, "text", 1, [], {"location": ""}])
    def test_metadata_that_another_plugin_got_wrong(self, app: Any, attachment: Any) -> None:
        write_behind(app, RECORD, {"attachment": attachment})
        assert get(app, status=404).json["errno"] == 110
        # Such a record can be repaired.
        attach(app, status=200)
        assert read(app) == CONTENT

    @ON_MEMORY
    @pytest.mark.parametrize("mimetype", ["тип/x", "text/тип", "é/x", "text", "", "a/b\r\nX: y"])
    def test_a_type_that_is_no_header(self, app: Any, mimetype: str) -> None:
        attach(app)
        describe_behind(app, RECORD, mimetype=mimetype)
        assert get(app).headers["Content-Type"] == "application/octet-stream"


class TestPermissions:
    def test_to_read_the_record(self, app: Any) -> None:
        attach(app)
        app.get(URL, headers=ANONYMOUS, status=401)
        app.get(URL, headers=BOB, status=403)
        app.head(URL, headers=BOB, status=403)
        attach(app, permissions={"read": [userid(app, BOB)]})
        assert read(app, headers=BOB) == CONTENT
        app.get(URL, headers=ANONYMOUS, status=401)

    @pytest.mark.parametrize("parent", [COLLECTION, "/buckets/b"])
    def test_to_read_its_parents(self, app: Any, parent: str) -> None:
        attach(app)
        put(app, parent, permissions={"read": ["system.Authenticated"]})
        assert read(app, headers=BOB) == CONTENT
        app.get(URL, headers=ANONYMOUS, status=401)

    def test_missing_records_are_not_told_from_forbidden_ones(self, app: Any) -> None:
        attach(app)
        assert app.get(URL, headers=BOB, status=403).json["errno"] == 121
        other = f"{COLLECTION}/records/ghost/attachment"
        assert app.get(other, headers=BOB, status=403).json["errno"] == 121


class TestLocation:
    """``/v1/attachments/{key}``: a file under its name in the storage."""

    def test_is_read_by_whoever_may_read_the_record(self, app: Any) -> None:
        location = attach(app).json["location"]
        app.get(location, headers=ANONYMOUS, status=401)
        app.get(location, headers=BOB, status=404)
        assert read(app, location) == CONTENT
        put(app, COLLECTION, permissions={"read": ["system.Authenticated"]})
        assert read(app, location, headers=BOB) == CONTENT
        app.get(location, headers=ANONYMOUS, status=401)
        put(app, "/buckets/b", permissions={"read": ["system.Everyone"]})
        assert read(app, location, headers=ANONYMOUS) == CONTENT

    def test_is_read_by_anyone_when_public(self, build: Build) -> None:
        app = build(public="true")
        location = attach(app).json["location"]
        assert read(app, location, headers=ANONYMOUS) == CONTENT
        # This does not make the record public.
        app.get(URL, headers=ANONYMOUS, status=401)
        app.get(RECORD, headers=ANONYMOUS, status=401)

    @pytest.mark.parametrize(
        ("public", "caching"),
        [("false", "private, no-cache"), ("true", "public, max-age=31536000, immutable")],
    )
    def test_never_changes(self, build: Build, public: str, caching: str) -> None:
        app = build(public=public, downloads="proxy")
        response = get(app, attach(app).json["location"])
        assert response.headers["Cache-Control"] == caching
        assert response.headers["ETag"] == f'"{sha256(CONTENT)}"'
        assert response.headers["Content-Disposition"] == 'inline; filename="notes.txt"'
        assert response.headers["X-Content-Type-Options"] == "nosniff"

    def test_is_gone_with_the_file(self, app: Any) -> None:
        first = attach(app).json["location"]
        second = attach(app, content=b"second").json["location"]
        get(app, first, status=404)
        assert read(app, second) == b"second"
        app.delete(URL, headers=ALICE)
        get(app, second, status=404)

    @pytest.mark.parametrize("public", ["false", "true"])
    def test_of_no_file(self, build: Build, public: str) -> None:
        app = build(public=public)
        attach(app)
        for key in ("ghost.txt", "a/b/c.txt", "a%20b", "%D1%82"):
            response = get(app, f"/attachments/{key}", status=404)
            assert response.json["errno"] == 110
            unknown = 404 if public == "true" else 401
            app.get(f"/attachments/{key}", headers=ANONYMOUS, status=unknown)

    def test_of_a_file_that_belongs_to_no_record(self, build: Build) -> None:
        """A file that is being uploaded, or that another program has stored."""
        app = build(public="true")
        storage = app.app.registry.attachment_storages.default.files
        storage.save_filename(__file__, extensions=())
        (key,) = stored_files(app)
        get(app, f"/attachments/{key}", status=404)
        storage.delete(key)

    def test_of_a_kept_file(self, build: Build) -> None:
        app = build(keep_old_files="true")
        location = attach(app, filename="first.txt").json["location"]
        attach(app, content=b"second")
        assert read(app, location) == CONTENT
        app.get(location, headers=BOB, status=404)

    def test_with_folders_and_odd_names(self, build: Build) -> None:
        app = build(folder="a b/{bucket_id}", randomize="false")
        attachment = attach(app, filename="тест+1 100%.txt").json
        assert "/v1/attachments/a%20b/b/" in attachment["location"]
        assert read(app, attachment["location"]) == CONTENT

    def test_under_another_name_of_the_server(self, app: Any) -> None:
        path = urlsplit(attach(app).json["location"]).path
        assert read(app, path, headers={**ALICE, "Host": "files.example.com"}) == CONTENT


@ON_MEMORY
class TestHandedOver:
    def test_by_x_sendfile(self, build: Build) -> None:
        app = build(downloads="x-sendfile")
        attach(app)
        response = get(app)
        assert response.body == b""
        assert Path(response.headers["X-Sendfile"]).read_bytes() == CONTENT
        assert response.headers["Content-Disposition"] == 'inline; filename="notes.txt"'
        assert response.headers["X-Content-Type-Options"] == "nosniff"

    @pytest.mark.parametrize("name", ["тест.txt", "é.txt", "a+b.txt", "日本.txt"])
    def test_by_x_sendfile_whatever_the_path(
        self, build: Build, tmp_path: Path, name: str
    ) -> None:
        folder = tmp_path / "a ф"
        app = build(downloads="x-sendfile", randomize="false", base_path=str(folder))
        location = attach(app, filename=name).json["location"]
        for url in (URL, location):
            header = app.get(url, headers=ALICE).headers["X-Sendfile"]
            assert Path(header.encode("latin-1").decode()).read_bytes() == CONTENT

    def test_by_x_sendfile_where_a_path_looks_escaped(self, build: Build, tmp_path: Path) -> None:
        app = build(downloads="x-sendfile", base_path=str(tmp_path / "%2e%2e"))
        attach(app)
        header = get(app).headers["X-Sendfile"]
        assert "%2e" not in header
        assert Path(unquote(header)).read_bytes() == CONTENT

    @pytest.mark.parametrize("prefix", ["/protected/", "/protected"])
    def test_by_x_accel_redirect(self, build: Build, prefix: str) -> None:
        app = build(downloads=f"x-accel-redirect:{prefix}", randomize="false", folder="a b")
        attach(app, filename="тест.txt")
        response = get(app)
        assert response.body == b""
        name = quote("тест")
        assert response.headers["X-Accel-Redirect"] == f"/protected/a%20b/{name}.txt"
        assert response.headers["ETag"] == f'"{sha256(CONTENT)}"'

    def test_still_asks_for_permission(self, build: Build) -> None:
        app = build(downloads="x-sendfile")
        location = attach(app).json["location"]
        for url, status in ((URL, 403), (location, 404)):
            response = app.get(url, headers=BOB, status=status)
            assert "X-Sendfile" not in response.headers

    def test_answers_conditions_itself(self, build: Build) -> None:
        app = build(downloads="x-sendfile")
        attach(app)
        response = get(app, if_none_match=f'"{sha256(CONTENT)}"', status=304)
        assert "X-Sendfile" not in response.headers


@ON_OBJECT_STORES
class TestRedirected:
    """To a URL of the storage that works for a while, without the user's credentials."""

    def test_to_a_signed_url(self, build: Build) -> None:
        app = build(extensions="any", signed_url_ttl=60)
        attach(app, filename="тест.html", content_type="text/html")
        response = get(app, status=302)
        assert response.headers["Cache-Control"] == "no-store"
        assert response.body == b""
        query = parse_qs(urlsplit(response.location).query)
        assert query.get("X-Amz-Expires", query.get("X-Goog-Expires")) == ["60"]
        answer = ask(response.location)
        assert answer.content == CONTENT
        assert answer.headers["Content-Type"] == "text/html"
        assert answer.headers["Content-Disposition"] == (
            "attachment; filename=\"____.html\"; filename*=UTF-8''%D1%82%D0%B5%D1%81%D1%82.html"
        )

    def test_from_its_location(self, app: Any) -> None:
        location = attach(app).json["location"]
        answer = ask(get(app, location, status=302).location)
        assert answer.content == CONTENT
        assert answer.headers["Content-Disposition"] == 'inline; filename="notes.txt"'

    def test_that_knows_ranges(self, app: Any) -> None:
        attach(app)
        url = get(app, range="bytes=2-4", status=302).location
        assert ask(url, Range="bytes=2-4").content == CONTENT[2:5]

    def test_is_for_those_who_may_read(self, app: Any) -> None:
        location = attach(app).json["location"]
        for url, status in ((URL, 403), (location, 404)):
            assert "Location" not in app.get(url, headers=BOB, status=status).headers
            assert "Location" not in app.get(url, headers=ANONYMOUS, status=401).headers

    def test_not_for_head(self, app: Any) -> None:
        """A URL is signed for one method."""
        attach(app)
        response = get(app, method="HEAD", status=200)
        assert response.headers["Content-Length"] == str(len(CONTENT))

    def test_not_when_nothing_has_changed(self, app: Any) -> None:
        attach(app)
        get(app, if_none_match=f'"{sha256(CONTENT)}"', status=304)

    def test_not_for_a_missing_file(self, app: Any) -> None:
        attach(app)
        app.app.registry.attachment_storages.default.files.delete(*stored_files(app))
        get(app, status=404)
        app.delete(URL, headers=ALICE)
