"""A file goes onto a record: POST of a form, PUT of raw bytes."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import itertools
from typing import Any

import pytest

from tests.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    COLLECTION,
    CONTENT,
    RECORD,
    Part,
    attach,
    attachment_of,
    form,
    key_of,
    outbox,
    post_form,
    put,
    put_raw,
    read,
    send,
    sha256,
    stored_content,
    stored_files,
    userid,
)
from tests.backends import ON_DATABASES, ON_MEMORY, Build

URL = f"{RECORD}/attachment"
FILE = Part("attachment", CONTENT, "notes.txt")

INVALID_PARAMETERS, INVALID_POSTED_DATA = 107, 109


def error(response: Any) -> tuple[int, str]:
    """What a refusal says; that it is one of Kinto's JSON errors."""
    assert response.content_type == "application/json"
    assert response.json["code"] == response.status_code
    return response.json["errno"], response.json.get("message", "")


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
            "body: File extension is not allowed.",
        )
        assert app.app.body.taken == 0

    @ON_MEMORY
    # Kinto and Cornice have views of their own on these types.
    @pytest.mark.parametrize(
        "content_type",
        [
            "application/json",
            "application/merge-patch+json",
            "application/x-www-form-urlencoded",
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


def multipart(*parts: Part, **changes: str) -> tuple[bytes, str]:
    body, content_type = form(*parts)
    return body, changes.get("content_type", content_type)


BODY, TYPE = form(FILE)
REFUSED_FORMS = {
    "not a form": (b"{}", "application/json", INVALID_PARAMETERS, "Content-Type should be"),
    "urlencoded": (
        b"attachment=a",
        "application/x-www-form-urlencoded",
        INVALID_PARAMETERS,
        "Content-Type should be multipart/form-data",
    ),
    "no content type": (BODY, "", INVALID_PARAMETERS, "Content-Type should be"),
    "no boundary": (BODY, "multipart/form-data", INVALID_PARAMETERS, "valid boundary"),
    "empty boundary": (BODY, 'multipart/form-data; boundary=""', INVALID_PARAMETERS, "boundary"),
    "other boundary": (BODY, "multipart/form-data; boundary=other", INVALID_PARAMETERS, "Invalid"),
    "truncated in the file": (BODY[:-30], TYPE, INVALID_PARAMETERS, "body: Invalid"),
    "truncated in the end": (BODY[:-6], TYPE, INVALID_PARAMETERS, "body: Invalid"),
    "truncated in a header": (BODY[:40], TYPE, INVALID_PARAMETERS, "body: Invalid"),
    "empty body": (b"", TYPE, INVALID_PARAMETERS, "body: Invalid"),
    "no parts": (*form(), INVALID_POSTED_DATA, "Attachment missing."),
    "no file": (*form(Part("data", "{}")), INVALID_POSTED_DATA, "Attachment missing."),
    "two files": (*form(FILE, FILE), INVALID_POSTED_DATA, "only once"),
    "no filename": (
        *form(Part("attachment", CONTENT)),
        INVALID_POSTED_DATA,
        "body: Filename is required.",
    ),
    "empty filename": (
        *form(Part("attachment", CONTENT, "")),
        INVALID_POSTED_DATA,
        "body: Filename is required.",
    ),
    "extension": (
        *form(Part("attachment", CONTENT, "virus.exe")),
        INVALID_POSTED_DATA,
        "body: File extension is not allowed.",
    ),
    "no extension": (
        *form(Part("attachment", CONTENT, "virus")),
        INVALID_POSTED_DATA,
        "body: File extension is not allowed.",
    ),
    "data is a file": (
        *form(FILE, Part("data", "{}", "data.json")),
        INVALID_POSTED_DATA,
        "body: 'data' field should be passed as form data, not files",
    ),
    "permissions are a file": (
        *form(FILE, Part("permissions", "{}", "p.json")),
        INVALID_POSTED_DATA,
        "body: 'permissions' field should be passed as form data, not files",
    ),
    "data is not JSON": (
        *form(FILE, Part("data", "{nope")),
        INVALID_POSTED_DATA,
        "body: data is not valid JSON (",
    ),
    "data is not UTF-8": (
        *form(FILE, Part("data", b'{"a": "\xff"}')),
        INVALID_POSTED_DATA,
        "body: data is not valid JSON (",
    ),
    "data is NaN": (
        *form(FILE, Part("data", '{"a": NaN}')),
        INVALID_POSTED_DATA,
        "body: data is not valid JSON (",
    ),
    **{
        f"{name} is {value}": (
            *form(FILE, Part(name, value)),
            INVALID_POSTED_DATA,
            f"body: {name} is not a JSON object",
        )
        for name in ("data", "permissions")
        for value in ("[]", "null", '"text"', "1", "true", '["read"]')
    },
    "two data": (
        *form(FILE, Part("data", "{}"), Part("data", "{}")),
        INVALID_POSTED_DATA,
        "body: 'data' field should be sent only once.",
    ),
    "another field": (
        *form(FILE, Part("x", "1")),
        INVALID_POSTED_DATA,
        "body: 'x' not in ('data', 'permissions')",
    ),
    "another field in front": (
        *form(Part("x", "1"), FILE),
        INVALID_POSTED_DATA,
        "body: 'x' not in ('data', 'permissions')",
    ),
    "permissions of no kind": (
        *form(FILE, Part("permissions", '{"fly": ["a"]}')),
        INVALID_PARAMETERS,
        "permissions",
    ),
    "permissions that are no lists": (
        *form(FILE, Part("permissions", '{"read": "system.Everyone"}')),
        INVALID_PARAMETERS,
        "permissions",
    ),
}


class TestRefusedForms:
    """Whatever is wrong: nothing is stored, and what was there before is there still."""

    @ON_MEMORY
    @pytest.mark.parametrize("case", REFUSED_FORMS.values(), ids=REFUSED_FORMS)
    def test_on_a_new_record(self, app: Any, case: tuple[bytes, str, int, str]) -> None:
        body, content_type, errno, message = case
        headers = {**ALICE, "Content-Type": content_type}
        response = app.post(URL, body, headers=headers, status=400)
        found = error(response)
        assert found[0] == errno
        assert message in found[1]
        app.get(RECORD, headers=ALICE, status=404)
        assert not stored_files(app)

    @pytest.mark.parametrize("case", REFUSED_FORMS.values(), ids=REFUSED_FORMS)
    def test_of_a_replacement_leaves_the_old_file(
        self, app: Any, case: tuple[bytes, str, int, str]
    ) -> None:
        attach(app)
        before = app.get(RECORD, headers=ALICE).json
        headers = {**ALICE, "Content-Type": case[1]}
        app.post(URL, case[0], headers=headers, status=400)
        assert app.get(RECORD, headers=ALICE).json == before
        assert stored_files(app) == {key_of(before["data"]["attachment"])}
        assert read(app) == CONTENT


class TestLimits:
    def test_a_file_of_exactly_the_limit(self, build: Build) -> None:
        app = build(max_size=10)
        attach(app, content=b"0123456789", status=201)
        put_raw(app, content=b"0123456789", status=200)

    @pytest.mark.parametrize("upload", [attach, put_raw])
    def test_a_file_over_the_limit(self, build: Build, upload: Any) -> None:
        app = build(max_size=10)
        upload(app, content=b"before")
        response = upload(app, content=b"0123456789A", status=413)
        assert error(response) == (113, "body: File size exceeds the limit of 10 bytes.")
        assert read(app) == b"before"
        assert len(stored_files(app)) == 1

    def test_a_declared_length_is_refused_before_the_body(self, build: Build) -> None:
        app = build(max_size=1000)
        put_raw(app, content=b"x" * 1001, status=413)
        assert app.app.body.taken == 0
        # A form has two text fields of up to 1 MiB besides.
        attach(app, content=b"x" * 4_000_000, status=413)
        assert app.app.body.taken == 0

    def test_an_undeclared_length_is_refused_without_reading_the_rest(self, build: Build) -> None:
        app = build(max_size=1000)
        body = io.BytesIO(b"x" * 10_000_000)
        send(app, "PUT", f"{URL}?filename=a.txt", body, status=413)
        assert app.app.body.taken <= 10_000
        # A client that is still sending is read on a little, so that it sees the answer.
        assert body.tell() < 5_000_000

    def test_the_narrowest_limit_holds(self, build: Build) -> None:
        app = build(
            **{
                "max_size": 10,
                "resources.b.max_size": 20,
                "resources.b.c.max_size": 30,
                "resources.b.free.max_size": 0,
            }
        )
        records = {"c": 30, "d": 20}
        put(app, "/buckets/a")
        put(app, "/buckets/a/collections/c")
        put(app, "/buckets/b/collections/d")
        put(app, "/buckets/b/collections/free")
        limits = {f"/buckets/b/collections/{name}": size for name, size in records.items()}
        limits["/buckets/a/collections/c"] = 10
        for collection, limit in limits.items():
            record = f"{collection}/records/r"
            attach(app, record, content=b"x" * limit, status=201)
            _, message = error(attach(app, record, content=b"x" * (limit + 1), status=413))
            assert message == f"body: File size exceeds the limit of {limit} bytes."
        attach(app, "/buckets/b/collections/free/records/r", content=b"x" * 1000, status=201)

    @pytest.mark.parametrize(
        ("parts", "status"),
        [
            ([FILE, Part("data", '{"a": "' + "x" * 1024 * 1024 + '"}')], 413),
            ([FILE, Part("data", '{"a": "' + "x" * (1024 * 1024 - 10) + '"}')], 201),
            ([Part("attachment", CONTENT, "a.txt", lines=("X: y",) * 20)], 413),
            ([Part("attachment", CONTENT, "a.txt", lines=("X: " + "y" * 9000,))], 413),
            ([Part("attachment", CONTENT, "a" * 10_000 + ".txt")], 413),
            ([FILE, *[Part("x", "y")] * 2000], 400),
            ([FILE, Part("data", '{"a": ' * 200 + "1" + "}" * 200)], 400),
            ([FILE, Part("data", '{"a": ' * 100_000 + "1" + "}" * 100_000)], 400),
        ],
        ids=[
            "data too long",
            "data just not too long",
            "too many part headers",
            "part header too long",
            "filename too long",
            "too many parts",
            "too deep",
            "much too deep",
        ],
    )
    def test_of_a_form(self, app: Any, parts: list[Part], status: int) -> None:
        response = post_form(app, *parts, status=status)
        assert response.content_type == "application/json"
        assert len(stored_files(app)) == (status == 201)


def digest(content: bytes, algorithm: str = "sha256") -> str:
    return base64.b64encode(hashlib.new(algorithm, content).digest()).decode()


class TestClaimedDigests:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("Content-Digest", f"sha-256=:{digest(CONTENT)}:"),
            ("Repr-Digest", f"sha-512=:{digest(CONTENT, 'sha512')}:, unknown=:AA==:"),
            ("Content-MD5", digest(CONTENT, "md5")),
        ],
    )
    def test_that_match(self, app: Any, name: str, value: str) -> None:
        put_raw(app, headers={**ALICE, name: value}, status=201)
        post_form(app, Part("attachment", CONTENT, "a.txt", lines=(f"{name}: {value}",)))
        assert read(app) == CONTENT

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("Content-Digest", f"sha-256=:{digest(b'other')}:"),
            ("Repr-Digest", f"sha-512=:{digest(b'other', 'sha512')}:"),
            ("Content-MD5", digest(b"other", "md5")),
            ("Content-MD5", "nonsense"),
        ],
    )
    def test_that_do_not_match(self, app: Any, name: str, value: str) -> None:
        attach(app, content=b"before")
        errno, _ = error(put_raw(app, headers={**ALICE, name: value}, status=400))
        assert errno == INVALID_PARAMETERS
        part = Part("attachment", CONTENT, "a.txt", lines=(f"{name}: {value}",))
        errno, _ = error(post_form(app, part, status=400))
        assert errno == INVALID_PARAMETERS
        assert read(app) == b"before"
        assert len(stored_files(app)) == 1

    def test_of_a_whole_form(self, app: Any) -> None:
        body, content_type = form(FILE)
        headers = {**ALICE, "Content-Type": content_type}
        good = {**headers, "Content-Digest": f"sha-256=:{digest(body)}:"}
        app.post(URL, body, headers=good, status=201)
        bad = {**headers, "Content-Digest": f"sha-256=:{digest(CONTENT)}:"}
        errno, _ = error(app.post(URL, body, headers=bad, status=400))
        assert errno == INVALID_PARAMETERS
        assert len(stored_files(app)) == 1


class TestPermissions:
    """They are decided before the first byte of the body is read."""

    @pytest.mark.parametrize("upload", [attach, put_raw])
    def test_to_create(self, app: Any, upload: Any) -> None:
        upload(app, headers=ANONYMOUS, status=401)
        assert app.app.body.taken == 0
        upload(app, headers=BOB, status=403)
        assert app.app.body.taken == 0
        put(app, COLLECTION, permissions={"record:create": ["system.Authenticated"]})
        upload(app, headers=BOB, status=201)

    @pytest.mark.parametrize("upload", [attach, put_raw])
    def test_to_replace(self, app: Any, upload: Any) -> None:
        attach(app)
        upload(app, headers=ANONYMOUS, status=401)
        upload(app, headers=BOB, status=403)
        assert app.app.body.taken == 0
        attach(app, permissions={"write": [userid(app, BOB)]})
        upload(app, headers=BOB, content=b"bob's", status=200)
        assert read(app) == b"bob's"

    @pytest.mark.parametrize("upload", [attach, put_raw])
    @pytest.mark.parametrize("permission", ["record", "collection", "bucket", "create"])
    def test_to_read_or_create_are_not_enough_to_replace(
        self, app: Any, upload: Any, permission: str
    ) -> None:
        attach(app)
        everyone = {"read": ["system.Authenticated"]}
        if permission == "record":
            put(app, RECORD, data={"attachment": attachment_of(app)}, permissions=everyone)
        elif permission == "create":
            put(app, COLLECTION, permissions={"record:create": ["system.Authenticated"]})
        else:
            put(
                app,
                COLLECTION if permission == "collection" else "/buckets/b",
                permissions=everyone,
            )
        upload(app, content=b"bob's", headers=BOB, status=403)
        assert app.app.body.taken == 0
        assert read(app) == CONTENT

    def test_one_may_not_lock_oneself_in(self, app: Any) -> None:
        put(app, COLLECTION, permissions={"record:create": ["system.Everyone"]})
        attach(app, headers=ANONYMOUS, status=201)
        attach(app, headers=ANONYMOUS, status=200)


@ON_DATABASES
@pytest.mark.parametrize("upload", [attach, put_raw])
class TestUnknownParents:
    """The answers are Kinto's for a record there."""

    @pytest.mark.parametrize(
        "record",
        [
            "/buckets/ghost/collections/c/records/r",
            "/buckets/b/collections/ghost/records/r",
            "/buckets/b/collections/no!id/records/r",
            "/buckets/no!id/collections/c/records/r",
        ],
    )
    @pytest.mark.parametrize("headers", [ALICE, BOB, ANONYMOUS], ids=["alice", "bob", "nobody"])
    def test_as_for_a_record(
        self, app: Any, upload: Any, record: str, headers: dict[str, str]
    ) -> None:
        expected = app.put_json(record, {"data": {}}, headers=headers, status="*")
        assert expected.status_code >= 400
        answer = upload(app, record, headers=headers, status=expected.status_code)
        assert error(answer)[0] == error(expected)[0]
        assert not stored_files(app)


@pytest.mark.parametrize("upload", [attach, put_raw])
def test_an_id_that_no_record_may_have(app: Any, upload: Any) -> None:
    record = f"{COLLECTION}/records/not,an,id"
    expected = app.put_json(record, {"data": {}}, headers=ALICE, status=400)
    assert error(upload(app, record, status=400))[0] == error(expected)[0]
    assert not stored_files(app)


@pytest.mark.parametrize("upload", [attach, put_raw])
class TestPreconditions:
    def test_if_match_of_the_record(self, app: Any, upload: Any) -> None:
        etag = attach(app).headers["ETag"]
        headers = {**ALICE, "If-Match": etag}
        etag = upload(app, content=b"second", headers=headers, status=200).headers["ETag"]
        response = upload(app, content=b"third", headers=headers, status=412)
        assert error(response)[0] == 114
        assert app.app.body.taken == 0
        assert response.headers["ETag"] == etag
        assert response.json["details"]["existing"] == app.get(RECORD, headers=ALICE).json["data"]
        assert read(app) == b"second"
        assert len(stored_files(app)) == 1

    def test_if_match_of_no_record(self, app: Any, upload: Any) -> None:
        upload(app, headers={**ALICE, "If-Match": '"123"'}, status=412)
        assert app.app.body.taken == 0
        app.get(RECORD, headers=ALICE, status=404)

    def test_if_none_match(self, app: Any, upload: Any) -> None:
        headers = {**ALICE, "If-None-Match": "*"}
        upload(app, headers=headers, status=201)
        response = upload(app, content=b"second", headers=headers, status=412)
        assert error(response)[0] == 114
        assert app.app.body.taken == 0
        assert read(app) == CONTENT

    @pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
    def test_that_are_malformed(self, app: Any, upload: Any, name: str) -> None:
        headers = {**ALICE, name: '"not a timestamp"'}
        expected = app.put_json(RECORD, {"data": {}}, headers=headers, status=400)
        assert error(upload(app, headers=headers, status=400)) == error(expected)
        assert app.app.body.taken == 0


class TestSchema:
    @pytest.fixture
    def strict(self, app: Any) -> Any:
        schema = {
            "type": "object",
            "properties": {"title": {"type": "string"}, "attachment": {"type": "object"}},
            "required": ["title"],
        }
        put(app, COLLECTION, data={"schema": schema})
        return app

    def test_that_fails(self, strict: Any) -> None:
        attach(strict, data={"title": "A"}, status=201)
        put(strict, COLLECTION, data={"schema": {"required": ["author"]}})
        for response in (
            attach(strict, content=b"new", status=400),
            put_raw(strict, content=b"new", status=400),
        ):
            errno, message = error(response)
            assert errno == INVALID_PARAMETERS
            assert "'author' is a required property" in message
        assert read(strict) == CONTENT
        assert len(stored_files(strict)) == 1

    def test_that_fails_says_what_kinto_says(self, strict: Any) -> None:
        expected = strict.put_json(RECORD, {"data": {"title": 1}}, headers=ALICE, status=400)
        answer = attach(strict, data={"title": 1}, status=400)
        assert error(answer) == error(expected)
        assert answer.json["details"] == expected.json["details"]

    def test_that_passes(self, strict: Any) -> None:
        attach(strict, data={"title": "A"}, status=201)
        assert "schema" in strict.get(RECORD, headers=ALICE).json["data"]

    def test_that_has_to_have_an_attachment(self, app: Any) -> None:
        schema = {"type": "object", "required": ["attachment"]}
        put(app, COLLECTION, data={"schema": schema})
        app.put_json(RECORD, {"data": {}}, headers=ALICE, status=400)
        attach(app, status=201)
        put_raw(app, status=200)


class TestNames:
    def test_are_random(self, app: Any) -> None:
        key = key_of(attach(app, filename="Notes.TXT").json)
        name, dot, extension = key.partition(".")
        assert (len(name), dot + extension) == (36, ".txt")

    def test_go_into_the_folder(self, build: Build) -> None:
        app = build(
            **{
                "folder": "/{bucket_id}/of/{collection_id}/",
                "resources.b.d.folder": "elsewhere",
            }
        )
        put(app, "/buckets/b/collections/d")
        attachment = attach(app).json
        assert key_of(attachment).startswith("b/of/c/")
        assert read(app, attachment["location"]) == CONTENT
        other = attach(app, "/buckets/b/collections/d/records/r").json
        assert key_of(other).startswith("elsewhere/")

    @pytest.mark.parametrize(
        ("filename", "key"),
        [
            ("notes.txt", "notes.txt"),
            ("тест.jpg", "тест.jpg"),
            ("C:\\dir\\b.txt", "b.txt"),
            ("/dir/b.txt", "b.txt"),
            ("a b (1).txt", "a_b_1.txt"),
        ],
    )
    def test_are_kept(self, build: Build, filename: str, key: str) -> None:
        app = build(randomize="false")
        attachment = attach(app, filename=filename, status=201).json
        assert stored_files(app) == {key}
        assert key_of(attachment) == key
        assert read(app, attachment["location"]) == CONTENT

    def test_that_are_kept_and_taken_get_a_number(self, build: Build) -> None:
        app = build(randomize="false")
        records = [f"{COLLECTION}/records/r{number}" for number in range(3)]
        for number, record in enumerate(records):
            attach(app, record, content=b"%d" % number, filename="same.txt", status=201)
        assert stored_files(app) == {"same.txt", "same-1.txt", "same-2.txt"}
        for number, record in enumerate(records):
            assert read(app, f"{record}/attachment") == b"%d" % number

    def test_that_are_kept_and_replaced(self, build: Build) -> None:
        app = build(randomize="false")
        for number in range(4):
            attach(app, content=b"%d" % number, filename="same.txt")
            assert read(app) == b"%d" % number
            assert len(stored_files(app)) == 1

    def test_follow_a_pattern(self, build: Build) -> None:
        app = build(randomize="false", filename_pattern="{rid}_{datetime}_{filename}")
        key = key_of(attach(app, filename="a.txt").json)
        rid, moment, name = key.split("_")
        assert (rid, name) == ("r", "a.txt")
        assert moment.isdigit()
        assert len(moment) == 14

    def test_of_one_collection_are_kept(self, build: Build) -> None:
        app = build(**{"resources.b.c.randomize": "false"})
        put(app, "/buckets/b/collections/d")
        assert key_of(attach(app).json) == "notes.txt"
        assert key_of(attach(app, "/buckets/b/collections/d/records/r").json) != "notes-1.txt"


@ON_MEMORY
class TestExtensions:
    @pytest.mark.parametrize("filename", ["a.txt", "a.PNG", "a.json", "a.tar.txt"])
    def test_of_the_default(self, app: Any, filename: str) -> None:
        attach(app, filename=filename, status=201)

    @pytest.mark.parametrize(
        ("extensions", "good", "bad"),
        [
            ("images", "a.jpg", "a.txt"),
            ("images+svg", "a.svg", "a.txt"),
            ("txt", "a.txt", "a.jpg"),
            ("any", "a.exe", None),
            ("any", "name", None),
        ],
    )
    def test_of_the_setting(
        self, build: Build, extensions: str, good: str, bad: str | None
    ) -> None:
        app = build(extensions=extensions)
        attach(app, filename=good, status=201)
        if bad is not None:
            attach(app, filename=bad, status=400)
        assert attachment_of(app)["filename"] == good

    def test_of_one_collection(self, build: Build) -> None:
        app = build(**{"resources.b.c.extensions": "exe"})
        put(app, "/buckets/b/collections/d")
        attach(app, filename="a.exe", status=201)
        attach(app, filename="a.txt", status=400)
        attach(app, "/buckets/b/collections/d/records/r", filename="a.txt", status=201)


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

    def test_extensions_are_of_the_name_sent(self, build: Build) -> None:
        app = build(gzipped="true", extensions="txt")
        attach(app, filename="a.txt", status=201)
        attach(app, filename="a.gz", status=400)

    def test_of_one_collection(self, build: Build) -> None:
        app = build(**{"resources.b.c.gzipped": "true"})
        put(app, "/buckets/b/collections/d")
        assert "original" in attach(app).json
        assert "original" not in attach(app, "/buckets/b/collections/d/records/r").json

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

    def test_of_one_collection(self, build: Build) -> None:
        app = build(**{"resources.b.c.keep_old_files": "true"})
        put(app, "/buckets/b/collections/d")
        for record in (RECORD, "/buckets/b/collections/d/records/r"):
            attach(app, record)
            attach(app, record)
        assert len(stored_files(app)) == 3

    def test_a_failed_upload_is_not_kept(self, build: Build) -> None:
        app = build(keep_old_files="true")
        attach(app)
        attach(app, data="nope", status=400)
        assert len(stored_files(app)) == 1


@ON_MEMORY
def test_the_body_is_read_in_bounded_pieces_by_one_reader_alone(app: Any) -> None:
    """What the guard of all these tests guards: it would fail for ``request.body``."""
    attach(app)
    assert app.app.body.taken > len(CONTENT)
    put_raw(app)
    assert app.app.body.taken == len(CONTENT)
    registry = app.app.registry
    registry.attachment_storage, storage = Careless(registry), registry.attachment_storage
    try:
        with pytest.raises(AssertionError):
            put_raw(app, status="*")
    finally:
        registry.attachment_storage = storage


class Careless:
    """A storage whose caller's request body is read whole."""

    def __init__(self, registry: Any) -> None:
        self.storage = registry.attachment_storage

    def filename_allowed(self, *_: Any) -> bool:
        from pyramid.threadlocal import get_current_request

        return bool(get_current_request().body)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)
