"""Links to many files at once, with ``?_urls=``, and to the versions of one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    BUCKET,
    COLLECTION,
    CONTENT,
    OTHER,
    RECORD,
    ask,
    attach,
    auth,
    put,
    userid,
    write_behind,
)
from tests.support.backends import ON_MEMORY, ON_OBJECT_STORES, ON_POSTGRESQL, Build
from tests.support.links import KEYS, claims_of, link, own_path, signed
from tests.support.statements import counted

pytestmark = ON_MEMORY

FILES = f"{COLLECTION}/attachments"
VERSIONS = f"{RECORD}/attachment/versions"
Headers = Mapping[str, str]


def listed(app: Any, query: str = "", uri: str = FILES, headers: Headers = ALICE) -> list[Any]:
    data: list[Any] = app.get(f"{uri}?{query}", headers=headers).json["data"]
    return data


def fill(app: Any, count: int) -> dict[str, bytes]:
    contents = {f"r{number}": b"%d" % number for number in range(count)}
    for name, content in contents.items():
        attach(app, f"{COLLECTION}/records/{name}", content=content, filename=f"{name}.txt")
    return contents


class TestListing:
    def test_has_a_link_to_each_file(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        contents = fill(app, 3)
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now)  # Links change with time.
        items = listed(app, "_urls=600")
        assert {item["id"] for item in items} == {*contents}
        for item in items:
            assert 600 <= item["url_expires_at"] / 1000 - now <= 900
            answer = app.get(own_path(item["url"]), headers=ANONYMOUS)
            assert answer.body == contents[item["id"]]
            assert f'{item["id"]}.txt"' in answer.headers["Content-Disposition"]
            # The link is the same as that for the single file, so that caches serve both.
            single = link(app, f"{item['record']}/attachment/url")
            assert single == {"url": item["url"], "expires_at": item["url_expires_at"]}

    def test_only_where_it_is_asked_for(self, app: Any) -> None:
        attach(app)
        (item,) = listed(app)
        assert {"url", "url_expires_at"}.isdisjoint(item)

    def test_is_not_kept_by_caches(self, app: Any) -> None:
        attach(app)
        plain = app.get(FILES, headers=ALICE)
        app.get(FILES, headers={**ALICE, "If-None-Match": plain.headers["ETag"]}, status=304)
        conditional = {**ALICE, "If-None-Match": plain.headers["ETag"]}
        answer = app.get(f"{FILES}?_urls=1m", headers=conditional, status=200)
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["ETag"] == plain.headers["ETag"]
        assert answer.json["data"][0]["url"]

    def test_page_by_page(self, app: Any) -> None:
        fill(app, 3)
        url, found = f"{FILES}?_urls=90&_limit=2", []
        while url:
            answer = app.get(url, headers=ALICE)
            found += answer.json["data"]
            url = answer.headers.get("Next-Page", "")
        assert len({item["url"] for item in found}) == 3

    def test_in_a_batch_and_the_default_bucket(self, app: Any) -> None:
        uri = "/buckets/default/collections/c"
        attach(app, f"{uri}/records/r", content=b"mine")
        body = {"requests": [{"path": f"{uri}/attachments?_urls=600"}]}
        (answer,) = app.post_json("/batch", body, headers=ALICE).json["responses"]
        (item,) = answer["body"]["data"]
        assert app.get(own_path(item["url"])).body == b"mine"

    @pytest.mark.parametrize("uri", [FILES, VERSIONS])
    @pytest.mark.parametrize("validity", ["", "0", "-1", "8d", "x", "1e9", "604801"])
    def test_bounds(self, app: Any, uri: str, validity: str) -> None:
        attach(app)
        refused = app.get(f"{uri}?_urls={validity}", headers=ALICE, status=400)
        assert "_urls in querystring" in refused.json["message"]

    @ON_POSTGRESQL
    def test_costs_no_statement(self, app: Any) -> None:
        fill(app, 5)
        with counted(app) as plain:
            listed(app)
        with counted(app) as with_links:
            listed(app, "_urls=600")
        assert with_links == plain

    def test_records_of_before_the_index_have_none(self, app: Any) -> None:
        location = attach(app).json["location"]
        write_behind(app, OTHER, {"attachment": {"location": f"{location}x", "size": 1}})
        by_id = {item["id"]: item for item in listed(app, "_urls=600")}
        assert by_id["r"]["url"]
        assert (by_id["other"]["url"], by_id["other"]["url_expires_at"]) == (None, None)
        app.delete(OTHER, headers=ALICE)

    def test_needs_what_the_list_needs(self, app: Any) -> None:
        attach(app)
        app.get(f"{FILES}?_urls=600", headers=ANONYMOUS, status=401)
        put(app, RECORD, permissions={"read": [userid(app, BOB)]})
        app.get(f"{FILES}?_urls=600", headers=BOB, status=403)
        put(app, BUCKET, permissions={"read": [userid(app, BOB)]})
        (item,) = listed(app, "_urls=600", headers=BOB)
        assert app.get(own_path(item["url"])).body == CONTENT

    def test_kept_files(self, build: Build) -> None:
        app = build(keep_old_files="true")
        for name, content in ((RECORD, b"first"), (RECORD, b"second"), (OTHER, b"deleted")):
            attach(app, name, content=content)
        app.delete(OTHER, headers=ALICE)
        by_id = {item["id"]: item for item in listed(app, "state=kept&_urls=600")}
        assert app.get(own_path(by_id["r"]["url"])).body == b"first"
        # The links to a record's files end with the record.
        assert by_id["other"]["url"] is by_id["other"]["url_expires_at"] is None
        put(app, COLLECTION, permissions={"read": [userid(app, BOB)]})
        app.get(f"{FILES}?state=kept&_urls=600", headers=BOB, status=403)

    def test_on_a_server_that_cannot_sign(self, app: Any) -> None:
        registry = app.app.registry
        attach(app)
        before, registry.attachment_signatures = registry.attachment_signatures, None
        try:
            app.get(f"{FILES}?_urls=600", headers=ALICE, status=501)
            assert listed(app)
        finally:
            registry.attachment_signatures = before


class TestVersion:
    @pytest.fixture
    def app(self, build: Build) -> Any:
        return build(keep_old_files="true", signing_keys=KEYS[0])

    def test_each_has_a_link(self, app: Any) -> None:
        for content in (b"first", b"second"):
            attach(app, content=content)
        items = listed(app, "_urls=600", VERSIONS)
        assert [app.get(own_path(item["url"])).body for item in items] == [b"second", b"first"]
        for item in items:
            single = link(app, f"{VERSIONS}/{item['id']}/url")
            assert single == {"url": item["url"], "expires_at": item["url_expires_at"]}
        answer = app.get(f"{VERSIONS}?_urls=600", headers=ALICE)
        assert answer.headers["Cache-Control"] == "no-store"
        assert {"url", "url_expires_at"}.isdisjoint(listed(app, "", VERSIONS)[0])

    def test_has_the_name_and_the_disposition_that_were_asked_for(self, app: Any) -> None:
        version = attach(app).headers["Attachment-Version"]
        asked = {"disposition": "attachment", "filename": "b.txt", "expires_in": "1h"}
        made = link(app, f"{VERSIONS}/{version}/url", **asked)
        answer = app.get(own_path(made["url"]))
        assert answer.headers["Content-Disposition"] == 'attachment; filename="b.txt"'
        for bad in ("expires_in=0", "disposition=x", "filename=%0D%0A"):
            app.get(f"{VERSIONS}/{version}/url?{bad}", headers=ALICE, status=400)

    def test_lives_as_long_as_the_version(self, app: Any) -> None:
        version = attach(app, content=b"first").headers["Attachment-Version"]
        path = own_path(link(app, f"{VERSIONS}/{version}/url")["url"])
        attach(app, content=b"second")
        assert app.get(path).body == b"first"
        app.post(f"{VERSIONS}/{version}/restore", headers=ALICE)
        assert app.get(path).body == b"first"
        attach(app, content=b"third")
        app.delete(f"{VERSIONS}/{version}", headers=ALICE)
        app.get(path, status=401)

    def test_is_for_nobody_after_the_record(self, app: Any) -> None:
        version = attach(app).headers["Attachment-Version"]
        path = own_path(link(app, f"{VERSIONS}/{version}/url")["url"])
        app.delete(RECORD, headers=ALICE)
        app.get(path, status=401)
        refused = app.get(f"{VERSIONS}/{version}/url", headers=ALICE, status=404)
        assert "deleted" in refused.json["message"]
        (item,) = listed(app, "_urls=600", VERSIONS)
        assert item["url"] is item["url_expires_at"] is None
        app.post(f"{VERSIONS}/{version}/restore", headers=ALICE)
        assert app.get(path).body == CONTENT

    @pytest.mark.parametrize("who", ["write", "read"])
    def test_needs_what_the_version_needs(self, build: Build, who: str) -> None:
        app = build(keep_old_files="true", versions_permission=who)
        old, new = (
            attach(app, content=content).headers["Attachment-Version"]
            for content in (b"first", b"second")
        )
        put(app, RECORD, permissions={"read": [userid(app, BOB)]})
        statuses = [
            app.get(f"{VERSIONS}/{version}/url", headers=headers, status="*").status_code
            for headers in (ANONYMOUS, BOB)
            for version in (old, new)
        ]
        assert statuses == [401, 401, 404 if who == "write" else 200, 200]
        items = listed(app, "_urls=600", VERSIONS, headers=BOB)
        assert len(items) == (1 if who == "write" else 2)
        app.get(f"{VERSIONS}/{new}/url", headers=auth("mallory"), status=403)

    def test_is_of_one_record_only(self, app: Any) -> None:
        version = attach(app).headers["Attachment-Version"]
        attach(app, OTHER, content=b"another")
        app.get(f"{OTHER}/attachment/versions/{version}/url", headers=ALICE, status=404)
        app.get(f"{VERSIONS}/{'0' * 64}/url", headers=ALICE, status=404)
        # A token with the version of one file and the key of another one opens neither.
        claims = claims_of(link(app, f"{VERSIONS}/{version}/url")["url"])
        other = link(app, f"{OTHER}/attachment/url")["url"]
        mixed = replace(claims, key=claims_of(other).key)
        app.get(signed(other, mixed), status=401)

    def test_in_the_default_bucket_and_a_batch(self, app: Any) -> None:
        uri = "/buckets/default/collections/c/records/r"
        version = attach(app, uri, content=b"mine").headers["Attachment-Version"]
        path = f"{uri}/attachment/versions/{version}/url"
        assert app.get(own_path(link(app, path)["url"])).body == b"mine"
        body = {"requests": [{"path": path}]}
        (answer,) = app.post_json("/batch", body, headers=ALICE).json["responses"]
        assert app.get(own_path(answer["body"]["data"]["url"])).body == b"mine"
        app.get(path, headers=ANONYMOUS, status=401)

    def test_other_origins_may_read_it(self, app: Any) -> None:
        version = attach(app).headers["Attachment-Version"]
        path = f"{VERSIONS}/{version}/url"
        answer = app.get(path, headers=ALICE)
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "GET" in app.options(path).headers["Allow"]


@ON_OBJECT_STORES
class TestPresigned:
    def test_many_at_once(self, build: Build) -> None:
        app = build(keep_old_files="true")
        contents = fill(app, 3)
        before = time.time()
        for item in listed(app, "_urls=100"):
            assert before - 1 <= item["url_expires_at"] / 1000 - 100 <= time.time()
            assert ask(item["url"]).content == contents[item["id"]]

    def test_versions(self, build: Build) -> None:
        app = build(keep_old_files="true")
        for content in (b"first", b"second"):
            attach(app, content=content)
        items = listed(app, "_urls=100", VERSIONS)
        assert [ask(item["url"]).content for item in items] == [b"second", b"first"]
        single = link(app, f"{VERSIONS}/{items[1]['id']}/url", filename="old.txt")
        assert 'filename="old.txt"' in ask(single["url"]).headers["Content-Disposition"]
