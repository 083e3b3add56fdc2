"""The headers that pages of other origins, browsers' caches and browsers' tabs need."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.application import (
    ALICE,
    ANONYMOUS,
    CONTENT,
    DEFAULT,
    RECORD,
    attach,
    attachment_of,
    error,
    put_raw,
    read,
)
from tests.support.backends import ON_DATABASES, ON_MEMORY, Build

PAGE = {"Origin": "https://page.example.com"}
RECORDS = [RECORD, DEFAULT]


def answers(app: Any, record: str, headers: dict[str, str]) -> list[Any]:
    """One of each kind: 200, 206, 304, 416, 401, 404, 412, HEAD."""
    attach(app, record)
    url, location = f"{record}/attachment", attachment_of(app, record)["location"]
    etag = app.get(url, headers=ALICE).headers["ETag"]
    known = {**ALICE, **headers}
    return [
        *(app.get(each, headers=known) for each in (url, location)),
        *(app.head(each, headers=known) for each in (url, location)),
        *(
            app.get(each, headers={**known, **asked}, status=status)
            for each in (url, location)
            for asked, status in (
                ({"Range": "bytes=0-0"}, 206),
                ({"If-None-Match": etag}, 304),
                ({"Range": "bytes=999-"}, 416),
                ({"If-Match": '"x"'}, 412),
            )
        ),
        app.get(url, headers=headers, status=401),
        app.get(location, headers=headers, status=401),
        app.get(f"{record}x/attachment", headers=known, status=404),
        put_raw(app, record, headers={**known, "If-Match": '"1"'}, status=412),
    ]


@ON_MEMORY
@pytest.mark.parametrize("record", RECORDS)
class TestOrigins:
    @pytest.mark.parametrize("headers", [{}, PAGE], ids=["picture", "script"])
    def test_any_may_read_what_another_request_has_fetched(
        self, build: Build, record: str, headers: dict[str, str]
    ) -> None:
        for answer in answers(build(downloads="proxy"), record, headers):
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            exposed = answer.headers["Access-Control-Expose-Headers"]
            assert {"ETag", "Content-Range", "Retry-After"} <= set(exposed.split(", "))

    @pytest.mark.parametrize("headers", [{}, PAGE], ids=["none", "known"])
    def test_a_cache_keeps_one_answer_for_each_of_several(
        self, build: Build, record: str, headers: dict[str, str]
    ) -> None:
        origins = "https://page.example.com https://other.example.com"
        app = build({"cors_origins": origins}, downloads="proxy")
        for answer in answers(app, record, headers):
            assert "Origin" in answer.headers["Vary"].split(", ")
            allowed = answer.headers.get("Access-Control-Allow-Origin")
            assert allowed == headers.get("Origin")

    def test_options_tell_what_there_is(self, app: Any, record: str) -> None:
        answer = app.options(f"{record}/attachment", headers=ANONYMOUS, status=204)
        allowed = set(answer.headers["Allow"].split(", "))
        assert allowed == {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}
        assert answer.headers["Access-Control-Allow-Origin"] == "*"

    def test_preflights_are_preflights(self, app: Any, record: str) -> None:
        headers = {**PAGE, "Access-Control-Request-Method": "PATCH"}
        answer = app.options(f"{record}/attachment", headers=headers, status=200)
        assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]


@ON_MEMORY
def test_options_of_a_location(app: Any) -> None:
    location = attach(app).json["location"]
    answer = app.options(location, headers=ANONYMOUS, status=204)
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"


@ON_MEMORY
def test_files_can_be_embedded_and_run_nothing(build: Build) -> None:
    for answer in answers(build(downloads="proxy"), RECORD, {})[:2]:
        assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        policy = answer.headers["Content-Security-Policy"].split("; ")
        assert {"default-src 'none'", "media-src 'self'", "sandbox"} <= set(policy)
        assert not [part for part in policy if "script" in part]


@ON_MEMORY
@pytest.mark.parametrize("headers", [{"Range": "bytes=999-"}, {"If-Match": '"x"'}])
def test_refusals_of_public_files_are_not_kept(build: Build, headers: dict[str, str]) -> None:
    app = build(public="true", downloads="proxy")
    location = attach(app).json["location"]
    answer = app.get(location, headers=headers, status=(412, 416))
    assert answer.headers["Cache-Control"] == "no-store"


@ON_MEMORY
class TestAsAsked:
    def test_a_page_can_have_it_saved(self, app: Any) -> None:
        attach(app)
        url = f"{RECORD}/attachment"
        shown = app.get(url, headers=ALICE).headers["Content-Disposition"]
        assert shown == 'inline; filename="notes.txt"'
        saved = app.get(f"{url}?disposition=attachment&filename=a%20b.txt", headers=ALICE)
        assert saved.headers["Content-Disposition"] == 'attachment; filename="a b.txt"'
        assert saved.body == CONTENT

    def test_nothing_is_shown_that_may_not_be(self, build: Build) -> None:
        app = build(extensions="any")
        attach(app, filename="a.html", content_type="text/html")
        url = f"{RECORD}/attachment?disposition=inline&filename=a.txt"
        header = app.get(url, headers=ALICE).headers["Content-Disposition"]
        assert header.startswith("attachment;")

    @pytest.mark.parametrize(
        "query", ["disposition=form-data", "disposition=", "filename=", "filename=a%0Ab"]
    )
    def test_what_is_not_understood(self, app: Any, query: str) -> None:
        attach(app)
        answer = app.get(f"{RECORD}/attachment?{query}", headers=ALICE, status=400)
        assert error(answer)[0] in (107, 109)


@ON_DATABASES
class TestRename:
    def rename(self, app: Any, data: Any, status: int = 200, **headers: str) -> Any:
        headers = {**ALICE, **headers}
        url = f"{RECORD}/attachment"
        return app.patch_json(url, {"data": data}, headers=headers, status=status)

    def test_without_an_upload(self, app: Any) -> None:
        before = attach(app, data={"title": "A"}).json
        answer = self.rename(app, {"filename": "new.csv", "mimetype": "text/csv"})
        assert answer.json == {**before, "filename": "new.csv", "mimetype": "text/csv"}
        record = app.get(RECORD, headers=ALICE)
        assert record.json["data"]["attachment"] == answer.json
        assert record.json["data"]["title"] == "A"
        assert answer.headers["ETag"] == record.headers["ETag"]
        for url in (f"{RECORD}/attachment", before["location"]):
            shown = app.get(url, headers=ALICE)
            if shown.status_int == 200:
                assert 'filename="new.csv"' in shown.headers["Content-Disposition"]
                assert shown.headers["Content-Type"].startswith("text/csv")
        assert read(app) == CONTENT

    def test_of_a_compressed_file(self, build: Build) -> None:
        app = build(gzipped="true")
        attach(app)
        renamed = self.rename(app, {"filename": "new.txt"}).json
        assert renamed["filename"] == "new.txt.gz"
        assert renamed["original"]["filename"] == "new.txt"
        assert renamed["mimetype"] == "application/gzip"

    @pytest.mark.parametrize(
        "data",
        [
            {"filename": "a.exe"},
            {"filename": ""},
            {"filename": 1},
            {"mimetype": "none"},
            {"size": 1},
            {"filename": "a.txt", "location": "x"},
            {},
            [],
            None,
        ],
    )
    def test_that_is_refused(self, app: Any, data: Any) -> None:
        before = attach(app).json
        assert error(self.rename(app, data, 400))[0] in (107, 109)
        assert attachment_of(app) == before

    def test_needs_write(self, app: Any) -> None:
        attach(app, permissions={"read": ["system.Everyone"]})
        url, body = f"{RECORD}/attachment", {"data": {"filename": "a.txt"}}
        app.patch_json(url, body, headers=ANONYMOUS, status=401)

    def test_of_nothing(self, app: Any) -> None:
        self.rename(app, {"filename": "a.txt"}, 404)

    def test_honours_preconditions(self, app: Any) -> None:
        attach(app)
        self.rename(app, {"filename": "a.txt"}, 412, **{"If-Match": '"1"'})
