"""What is not stored, and why: forms, limits, digests, permissions, preconditions, schemas."""

from __future__ import annotations

import io
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
    post_form,
    put,
    put_raw,
    read,
    send,
    stored_files,
    userid,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_MEMORY, Build

pytestmark = EVERYWHERE

URL = f"{RECORD}/attachment"
FILE = Part("attachment", CONTENT, "notes.txt")


BODY, TYPE = form(FILE)
REFUSED_FORMS = {
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
        "body: File extension is not allowed. The setting is kinto.attachment.extensions.",
    ),
    "no extension": (
        *form(Part("attachment", CONTENT, "virus")),
        INVALID_POSTED_DATA,
        "body: File extension is not allowed. The setting is kinto.attachment.extensions.",
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
    """After every refusal, nothing new is stored, and the old file and record are unchanged."""

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

    @ON_MEMORY
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

    @ON_MEMORY
    def test_a_declared_length_is_refused_before_the_body(self, build: Build) -> None:
        app = build(max_size=1000)
        put_raw(app, content=b"x" * 1001, status=413)
        assert app.app.body.taken == 0
        # A form also has two text fields of up to 1 MiB.
        attach(app, content=b"x" * 4_000_000, status=413)
        assert app.app.body.taken == 0

    def test_an_undeclared_length_is_refused_without_reading_the_rest(self, build: Build) -> None:
        app = build(max_size=1000)
        body = io.BytesIO(b"x" * 10_000_000)
        send(app, "PUT", f"{URL}?filename=a.txt", body, status=413)
        assert app.app.body.taken <= 10_000
        # The server reads a little more of what a client still sends, so that it sees the answer.
        assert body.tell() < 5_000_000

    @ON_MEMORY
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

    @ON_MEMORY
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
        # White space around the value of a header does not count (RFC 9110 5.5).
        for line in (f"{name}: {value}", f"{name}:\t{value} \t"):
            post_form(app, Part("attachment", CONTENT, "a.txt", lines=(line,)), status=200)
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
    """They are checked before the first byte of the body is read."""

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

    @ON_DATABASES
    @pytest.mark.parametrize("upload", [attach, put_raw])
    def test_to_create_are_enough_to_be_told_that_it_exists(self, app: Any, upload: Any) -> None:
        """As in Kinto, the precondition fails, which is not a lack of permission."""
        attach(app)
        put(app, COLLECTION, permissions={"record:create": ["system.Authenticated"]})
        headers = {**BOB, "If-None-Match": "*"}
        expected = app.put_json(RECORD, {"data": {}}, headers=headers, status=412)
        response = upload(app, content=b"bob's", headers=headers, status=412)
        assert error(response) == error(expected)
        assert app.app.body.taken == 0
        assert read(app) == CONTENT

    def test_one_may_not_lock_oneself_in(self, app: Any) -> None:
        put(app, COLLECTION, permissions={"record:create": ["system.Everyone"]})
        attach(app, headers=ANONYMOUS, status=201)
        attach(app, headers=ANONYMOUS, status=200)


@ON_DATABASES
@pytest.mark.parametrize("upload", [attach, put_raw])
class TestUnknownParents:
    """The answers are those of Kinto for a record there."""

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
