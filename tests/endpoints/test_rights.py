"""Rights are checked again after the body has arrived, and refusals reveal nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    BUCKET,
    COLLECTION,
    CONTENT,
    DEFAULT,
    RECORD,
    Headers,
    Part,
    attach,
    attachment_of,
    form,
    put,
    put_collection,
    put_raw,
    read,
    send,
    stored_files,
    userid,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_MEMORY, Build
from tests.support.documents import code_blocks
from tests.support.interruptions import Meanwhile

pytestmark = EVERYWHERE

URL = f"{RECORD}/attachment"
GROUP = f"{BUCKET}/groups/editors"


def upload_while(
    app: Any, method: str, action: Callable[[], object], url: str = URL, **options: Any
) -> Any:
    """Bob sends a file, and something happens while it arrives."""
    body, content_type = form(Part("attachment", CONTENT, "notes.txt"))
    if method == "PUT":
        body, content_type, url = CONTENT, "text/plain", f"{url}?filename=notes.txt"
    headers = {**options.pop("headers", BOB), "Content-Type": content_type}
    watched = Meanwhile(body, action)
    return send(app, method, url, watched, length=len(body), headers=headers, **options)


def make_group(app: Any) -> None:
    put(app, GROUP, data={"members": [userid(app, BOB)]})


def remove_member(app: Any) -> None:
    put(app, GROUP, data={"members": []})


def delete_group(app: Any) -> None:
    app.delete(GROUP, headers=ALICE)


GRANTS = {
    "bucket": (BUCKET, "write"),
    "collection": (COLLECTION, "write"),
    "create": (COLLECTION, "record:create"),
    "record": (RECORD, "write"),
}
FORMS = pytest.mark.parametrize("method", ["POST", "PUT"])


@ON_DATABASES
@FORMS
class TestWithdrawn:
    """A right that the user had when the upload began, and no longer has when it ends."""

    @pytest.mark.parametrize("withdraw", [remove_member, delete_group])
    @pytest.mark.parametrize("grant", ["bucket", "collection", "create"])
    def test_of_a_group_to_create(self, app: Any, method: str, grant: str, withdraw: Any) -> None:
        make_group(app)
        uri, permission = GRANTS[grant]
        put(app, uri, permissions={permission: [f"{GROUP}"]})
        upload_while(app, method, lambda: withdraw(app), status=403)
        app.get(RECORD, headers=ALICE, status=404)
        assert not stored_files(app)

    @pytest.mark.parametrize("withdraw", [remove_member, delete_group])
    @pytest.mark.parametrize("grant", ["bucket", "collection", "record"])
    def test_of_a_group_to_replace(self, app: Any, method: str, grant: str, withdraw: Any) -> None:
        make_group(app)
        attach(app, content=b"old")
        before = app.get(RECORD, headers=ALICE).json["data"]
        uri, permission = GRANTS[grant]
        app.patch_json(uri, {"permissions": {permission: [GROUP]}}, headers=ALICE)
        before = app.get(RECORD, headers=ALICE).json["data"]
        upload_while(app, method, lambda: withdraw(app), status=403)
        assert app.get(RECORD, headers=ALICE).json["data"] == before
        assert read(app) == b"old"
        assert len(stored_files(app)) == 1

    @pytest.mark.parametrize("grant", list(GRANTS))
    def test_of_the_user(self, app: Any, method: str, grant: str) -> None:
        if grant != "create":
            attach(app, content=b"old")
        before = stored_files(app)
        uri, permission = GRANTS[grant]
        app.patch_json(uri, {"permissions": {permission: [userid(app, BOB)]}}, headers=ALICE)

        def withdraw() -> None:
            app.patch_json(uri, {"permissions": {permission: []}}, headers=ALICE)

        upload_while(app, method, withdraw, status=403)
        assert stored_files(app) == before

    def test_with_the_bucket_that_somebody_else_makes_again(self, app: Any, method: str) -> None:
        put(app, BUCKET, permissions={"write": [userid(app, BOB)]})

        def make_again() -> None:
            app.delete(BUCKET, headers=ALICE)
            put_collection(app)

        upload_while(app, method, make_again, status=403)
        assert not stored_files(app)

    def test_of_a_group_in_a_default_bucket(self, app: Any, method: str) -> None:
        attach(app, DEFAULT, content=b"old")
        bucket = app.get("/", headers=ALICE).json["user"]["bucket"]
        group = f"/buckets/{bucket}/groups/editors"
        put(app, group, data={"members": [userid(app, BOB)]})
        app.patch_json(f"/buckets/{bucket}", {"permissions": {"write": [group]}}, headers=ALICE)
        url = f"{DEFAULT.replace('default', bucket)}/attachment"
        withdraw = lambda: app.delete(group, headers=ALICE)  # noqa: E731
        upload_while(app, method, withdraw, url, status=403)
        assert read(app, url) == b"old"

    def test_a_right_that_is_given_meanwhile_counts_as_well(self, app: Any, method: str) -> None:
        """The group loses the right to write, and another one gets it."""
        make_group(app)
        put(app, COLLECTION, permissions={"write": [GROUP]})
        other = f"{BUCKET}/groups/others"

        def exchange() -> None:
            put(app, other, data={"members": [userid(app, BOB)]})
            app.patch_json(COLLECTION, {"permissions": {"write": [other]}}, headers=ALICE)

        upload_while(app, method, exchange, status=201)
        assert read(app) == CONTENT


def allow_bob_to_create(app: Any) -> None:
    put(app, COLLECTION, permissions={"record:create": [userid(app, BOB)]})


SAFELY = {"If-None-Match": "*"}


@ON_DATABASES
@FORMS
class TestExisting:
    """The 412 of an upload shows the record to those who may read it."""

    def test_not_to_those_who_may_only_create(self, app: Any, method: str) -> None:
        put(app, RECORD, data={"secret": "alice's"})
        allow_bob_to_create(app)
        response = upload_while(app, method, lambda: None, headers={**BOB, **SAFELY}, status=412)
        self.check_hidden(response)

    def test_nor_after_the_body(self, app: Any, method: str) -> None:
        allow_bob_to_create(app)
        write = lambda: put(app, RECORD, data={"secret": "alice's"})  # noqa: E731
        response = upload_while(app, method, write, headers={**BOB, **SAFELY}, status=412)
        self.check_hidden(response)
        assert not stored_files(app)

    def check_hidden(self, response: Any) -> None:
        assert response.json["errno"] == 114
        assert "details" not in response.json
        assert b"alice" not in response.body
        assert "ETag" not in response.headers
        assert "Last-Modified" not in response.headers

    def test_to_readers(self, app: Any, method: str) -> None:
        put(app, RECORD, data={"title": "A"})
        allow_bob_to_create(app)
        app.patch_json(COLLECTION, {"permissions": {"read": [userid(app, BOB)]}}, headers=ALICE)
        headers = {**BOB, **SAFELY}
        response = upload_while(app, method, lambda: None, headers=headers, status=412)
        record = app.get(RECORD, headers=ALICE)
        assert response.json["details"]["existing"] == record.json["data"]
        assert response.headers["ETag"] == record.headers["ETag"]

    def test_to_readers_after_the_body(self, app: Any, method: str) -> None:
        write = lambda: put(app, RECORD, data={"title": "A"})  # noqa: E731
        headers = {**ALICE, **SAFELY}
        response = upload_while(app, method, write, headers=headers, status=412)
        assert response.json["details"]["existing"]["title"] == "A"

    def test_not_to_readers_of_before_the_body(self, app: Any, method: str) -> None:
        make_group(app)
        allow_bob_to_create(app)
        app.patch_json(COLLECTION, {"permissions": {"read": [GROUP]}}, headers=ALICE)

        def write() -> None:
            delete_group(app)
            put(app, RECORD, data={"secret": "alice's"})

        headers = {**BOB, **SAFELY}
        self.check_hidden(upload_while(app, method, write, headers=headers, status=412))

    def test_in_a_batch(self, app: Any, method: str) -> None:
        put(app, RECORD, data={"secret": "alice's"})
        allow_bob_to_create(app)
        part = {"method": method, "path": f"/v1{URL}?filename=a.json", "body": {"n": 1}}
        requests = {"requests": [{**part, "headers": SAFELY}]}
        (answer,) = app.post_json("/batch", requests, headers=BOB).json["responses"]
        assert answer["status"] == 412
        assert "alice" not in str(answer)


def seen_by(app: Any, method: str, url: str, headers: Headers) -> tuple[Any, ...]:
    """An answer, without the parts that change with time."""
    response = app.request(url, method=method, headers=headers, expect_errors=True)
    return response.status_code, sorted(response.headers.items()), response.body


class TestKeys:
    """``/v1/attachments/{key}`` does not reveal whether files exist that users may not read."""

    @ON_DATABASES
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize(("who", "status"), [(ANONYMOUS, 401), (BOB, 404)])
    @pytest.mark.parametrize(
        "more",
        [
            {},
            {"Origin": "https://page.example.com"},
            {"Range": "bytes=0-1"},
            {"If-Match": '"x"'},
            {"Sec-Fetch-Dest": "image"},
        ],
    )
    def test_look_the_same(
        self, app: Any, method: str, who: Headers, status: int, more: Headers
    ) -> None:
        headers = {**who, **more}
        location = attach(app).json["location"]
        unreadable = seen_by(app, method, location, headers)
        assert unreadable[0] == status
        for key in ("ghost.txt", "a/b/c.txt", ".hidden", "../x", "a//b", "%00", "x" * 5000, "a/"):
            unknown = seen_by(app, method, f"/attachments/{key}", headers)
            assert unknown == unreadable, key

    @ON_MEMORY
    def test_look_the_same_in_a_batch(self, app: Any) -> None:
        location = attach(app).json["location"].removeprefix("http://localhost")
        paths = [location, "/v1/attachments/ghost.txt"]
        for headers, status in ((BOB, 404), (ANONYMOUS, 401)):
            for method in ("GET", "HEAD"):
                requests = [{"method": method, "path": path} for path in paths]
                answers = app.post_json("/batch", {"requests": requests}, headers=headers)
                first, second = answers.json["responses"]
                assert first["status"] == status
                assert {**first, "path": ""} == {**second, "path": ""}

    @ON_MEMORY
    def test_of_a_missing_file_look_like_that_to_readers_only(self, app: Any) -> None:
        location = attach(app).json["location"]
        app.app.registry.attachment_storages.default.files.delete(*stored_files(app))
        app.get(location, headers=ALICE, status=404)
        app.get(location, headers=BOB, status=404)
        app.get(location, headers=ANONYMOUS, status=401)
        app.delete(URL, headers=ALICE)


PARTS_OF_A_PAGE = [
    "audio", "embed", "fencedframe", "font", "frame", "iframe", "image", "manifest", "object",
    "report", "script", "serviceworker", "style", "track", "video", "worker", "xslt", "unheard-of",
]  # fmt: skip


@ON_MEMORY
class TestPasswords:
    """Pictures do not make a browser ask for a password."""

    @pytest.mark.parametrize("record", [RECORD, DEFAULT])
    def test_are_not_asked_for_within_a_page(self, app: Any, record: str) -> None:
        attach(app, record)
        urls = (f"{record}/attachment", attachment_of(app, record)["location"])
        for dest, url, method in itertools.product(PARTS_OF_A_PAGE, urls, ("GET", "HEAD")):
            headers = {"Sec-Fetch-Dest": dest}
            response = app.request(url, method=method, headers=headers, status=401)
            assert "WWW-Authenticate" not in response.headers, dest

    @pytest.mark.parametrize("record", [RECORD, DEFAULT])
    @pytest.mark.parametrize("dest", [None, "document", "empty"])
    def test_are_asked_for_elsewhere(self, app: Any, record: str, dest: str | None) -> None:
        headers = {} if dest is None else {"Sec-Fetch-Dest": dest}
        attach(app, record)
        for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            response = app.request(
                f"{record}/attachment", method=method, headers=headers, status=401
            )
            assert response.headers["WWW-Authenticate"] == 'Basic realm="Realm"'
            if method != "HEAD":
                assert response.json["errno"] == 104

    @pytest.mark.parametrize("dest", [None, "document", "empty", "image"])
    def test_are_never_asked_for_a_location(self, app: Any, dest: str | None) -> None:
        headers = {} if dest is None else {"Sec-Fetch-Dest": dest}
        location = attach(app).json["location"]
        for url in (location, "/attachments/ghost"):
            for method in ("GET", "HEAD"):
                response = app.request(url, method=method, headers=headers, status=401)
                assert "WWW-Authenticate" not in response.headers

    def test_other_endpoints_of_kinto_are_as_they_were(self, app: Any) -> None:
        headers = {"Sec-Fetch-Dest": "image"}
        for url in (RECORD, "/buckets/default/collections/c/records"):
            response = app.get(url, headers=headers, status=401)
            assert response.headers["WWW-Authenticate"] == 'Basic realm="Realm"'

    def test_refusals_can_be_read_by_other_origins(self, app: Any) -> None:
        location = attach(app).json["location"]
        for url in (URL, f"{DEFAULT}/attachment", location):
            response = app.get(url, headers={"Origin": "https://page.example.com"}, status=401)
            assert response.headers["Access-Control-Allow-Origin"] == "*"


def vary(response: Any) -> set[str]:
    return {name.strip() for name in response.headers.get("Vary", "").split(",")} - {""}


class TestCaches:
    """Caches give one user's answer to no other user, nor to that user after a logout."""

    @pytest.mark.parametrize("record", [RECORD, DEFAULT])
    def test_ask_again_for_another_user(self, build: Build, record: str) -> None:
        app = build()
        attach(app, record)
        location = attachment_of(app, record)["location"]
        for url in (f"{record}/attachment", location):
            for method in ("GET", "HEAD"):
                self.check(app.request(url, method=method, headers=ALICE))

    @ON_MEMORY
    @pytest.mark.parametrize("mode", ["proxy", "x-sendfile", "x-accel-redirect:/p/"])
    def test_whatever_the_answer(self, build: Build, mode: str) -> None:
        app = build(downloads=mode)
        location = attach(app).json["location"]
        etag = app.head(URL, headers=ALICE).headers["ETag"]
        for url in (URL, location):
            for condition, status in (
                ({"If-None-Match": etag}, 304),
                ({"If-Match": '"other"'}, 412),
                ({"Range": "bytes=0-1"}, 206 if mode == "proxy" else 200),
                ({"Range": "bytes=9999-"}, 416),
            ):
                self.check(app.get(url, headers={**ALICE, **condition}, status="*"), status)
        for headers, status in ((BOB, 404), (ANONYMOUS, 401)):
            self.check(app.get(location, headers=headers, status=status), status)
        self.check(app.get(URL, headers=ANONYMOUS, status=401), 401)

    def check(self, response: Any, status: int | None = None) -> None:
        assert status in (None, response.status_code)
        assert vary(response) == {"Authorization"}
        assert "public" not in response.headers.get("Cache-Control", "")

    @ON_MEMORY
    def test_share_public_files(self, build: Build) -> None:
        app = build(public="true", downloads="proxy")
        location = attach(app).json["location"]
        for headers in (ALICE, ANONYMOUS, {"If-None-Match": "*"}, {"Range": "bytes=0-1"}):
            response = app.get(location, headers=headers)
            assert "Authorization" not in vary(response)
            assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        self.check(app.get(URL, headers=ALICE))

    @ON_MEMORY
    def test_know_a_cookie_where_the_documents_plugin_says_so(
        self, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (plugin,) = code_blocks("docs/production.rst", "python")
        (tmp_path / "vary_plugin.py").write_text(plugin)
        monkeypatch.syspath_prepend(str(tmp_path))
        app = build({"includes": "vary_plugin"})
        location = attach(app).json["location"]
        for url in (URL, location):
            assert vary(app.get(url, headers=ALICE)) == {"Authorization", "Cookie"}


@ON_MEMORY
@pytest.mark.parametrize("upload", [attach, put_raw])
def test_refusals_of_uploads_tell_nothing_of_the_record(app: Any, upload: Any) -> None:
    put(app, RECORD, data={"secret": "alice's"})
    allow_bob_to_create(app)
    for headers, status in ((BOB, 403), ({**BOB, "If-Match": '"1"'}, 403), (ANONYMOUS, 401)):
        response = upload(app, headers=headers, status=status)
        assert b"alice" not in response.body
        assert "ETag" not in response.headers
