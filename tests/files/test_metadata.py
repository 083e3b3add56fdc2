"""The attachment object: its location in every mode, and the key of a location."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urljoin

import pytest

from kinto_attachment.metadata import Attachment, Original, same_json
from tests.support.application import (
    ALICE,
    ANONYMOUS,
    CONTENT,
    RECORD,
    attach,
    attachment_of,
    put,
    read,
    stored_content,
    stored_files,
)
from tests.support.backends import EVERYWHERE, ON_MEMORY, ON_POSTGRESQL, Build

pytestmark = EVERYWHERE

URL = f"{RECORD}/attachment"
CDN = "https://cdn.example.com/files/"


class TestJson:
    def test_without_an_original(self) -> None:
        attachment = Attachment("a.txt", "0" * 64, "/x", "text/plain", 3)
        assert attachment.to_json() == {
            "filename": "a.txt",
            "hash": "0" * 64,
            "location": "/x",
            "mimetype": "text/plain",
            "size": 3,
        }

    def test_with_an_original(self) -> None:
        original = Original("a.txt", "1" * 64, "text/plain", 9)
        attachment = Attachment("a.txt.gz", "0" * 64, "/x", "application/gzip", 3, original)
        assert attachment.to_json()["original"] == {
            "filename": "a.txt",
            "hash": "1" * 64,
            "mimetype": "text/plain",
            "size": 9,
        }


class TestSameJson:
    @pytest.mark.parametrize(
        "text",
        ["null", "true", "0", "1", "1.0", '"1"', "[]", "{}", "[1, [true, {}]]", '{"a": {"b": 1}}'],
    )
    def test_is_what_was_read_twice(self, text: str) -> None:
        assert same_json(json.loads(text), json.loads(text))

    def test_is_in_any_order_of_members(self) -> None:
        assert same_json({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1})

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("1", "1.0"),
            ("1", "true"),
            ("0", "false"),
            ("0.0", "false"),
            ("0", "null"),
            ("1", '"1"'),
            ("[]", "{}"),
            ("{}", "null"),
            ("[1]", "[1.0]"),
            ("[1]", "[1, 1]"),
            ("[1, 2]", "[2, 1]"),
            ('{"a": 1}', '{"a": true}'),
            ('{"a": 1}', '{"b": 1}'),
            ('{"a": null}', "{}"),
            ('{"a": [{"b": 1}]}', '{"a": [{"b": 1.0}]}'),
        ],
    )
    def test_is_not(self, one: str, other: str) -> None:
        assert not same_json(json.loads(one), json.loads(other))
        assert not same_json(json.loads(other), json.loads(one))


class TestBaseUrl:
    @pytest.mark.parametrize("base_url", [CDN, CDN.rstrip("/")])
    def test_is_what_locations_start_with(self, build: Build, base_url: str) -> None:
        app = build(base_url=base_url, randomize="false", folder="{bucket_id}")
        attachment = attach(app, filename="тест.txt").json
        assert attachment["location"] == f"{CDN}b/%D1%82%D0%B5%D1%81%D1%82.txt"
        capability = app.get("/").json["capabilities"]["attachments"]
        assert capability["base_url"] == CDN
        (key,) = stored_files(app)
        assert stored_content(app, key) == CONTENT
        assert read(app) == CONTENT

    def test_that_is_empty_makes_them_relative(self, build: Build) -> None:
        app = build(base_url="", folder="{bucket_id}")
        location = attach(app).json["location"]
        (key,) = stored_files(app)
        assert location == key
        capability = app.get("/").json["capabilities"]["attachments"]
        assert capability["base_url"] == ""
        assert urljoin("https://anywhere.example.com/", location).endswith(f"/{key}")
        assert read(app) == CONTENT

    def test_that_is_not_set_leads_to_the_server_itself(self, app: Any) -> None:
        location = attach(app).json["location"]
        (key,) = stored_files(app)
        assert location == f"http://localhost/v1/attachments/{key}"
        assert read(app, location) == CONTENT
        assert app.get("/").json["capabilities"]["attachments"]["base_url"] == ""

    @ON_MEMORY
    def test_the_server_s_address_is_the_one_asked(self, app: Any) -> None:
        headers = {**ALICE, "Host": "kinto.example.com:8888"}
        attachment = attach(app, headers=headers).json
        assert attachment["location"].startswith("http://kinto.example.com:8888/v1/attachments/")
        assert read(app, attachment["location"], headers=headers) == CONTENT

    @ON_MEMORY
    def test_the_server_s_address_is_kinto_s_setting(self, build: Build) -> None:
        app = build({"http_scheme": "https", "http_host": "kinto.example.com"})
        location = attach(app).json["location"]
        assert location.startswith("https://kinto.example.com/v1/attachments/")

    @ON_MEMORY
    def test_extra_is_what_the_capability_says(self, build: Build) -> None:
        extra = "https://other.example.com/x"
        app = build(**{"base_url": CDN, "extra.base_url": extra})
        assert app.get("/").json["capabilities"]["attachments"]["base_url"] == f"{extra}/"
        assert attach(app).json["location"].startswith(CDN)

    @ON_MEMORY
    @pytest.mark.parametrize("options", [{}, {"base_url": CDN}, {"base_url": ""}])
    def test_replaces_and_deletes_in_every_mode(
        self, build: Build, options: dict[str, str]
    ) -> None:
        app = build(**options)
        attach(app)
        attach(app, content=b"second")
        assert len(stored_files(app)) == 1
        assert read(app) == b"second"
        app.delete(URL, headers=ALICE)
        assert not stored_files(app)

    def test_a_public_url_does_not_open_the_record(self, build: Build) -> None:
        app = build(base_url=CDN)
        attach(app)
        app.get(URL, headers=ANONYMOUS, status=401)


@ON_POSTGRESQL
class TestMoved:
    """Files keep working for the server after their public URL has changed."""

    @pytest.fixture(params=["https://old.example.com", "", None])
    def moved(self, build: Build, request: pytest.FixtureRequest) -> Any:
        attach(build(**({} if request.param is None else {"base_url": request.param})))
        return build(base_url=CDN)

    def test_are_read(self, moved: Any) -> None:
        assert read(moved) == CONTENT

    def test_are_read_and_kept_ones_are_not(self, build: Build) -> None:
        before = build(base_url="https://old.example.com", keep_old_files="true")
        for number in range(5):
            attach(before, content=b"%d" % number)
        moved = build(base_url=CDN, keep_old_files="true")
        assert len(stored_files(moved)) == 5
        assert read(moved) == b"4"
        moved.delete(URL, headers=ALICE)
        moved.get(URL, headers=ALICE, status=404)

    def test_stay_when_the_record_is_written(self, moved: Any) -> None:
        before = attachment_of(moved)
        moved.patch_json(RECORD, {"data": {"title": "A"}}, headers=ALICE)
        put(moved, RECORD, data={"attachment": before, "title": "B"})
        assert attachment_of(moved) == before
        assert read(moved) == CONTENT

    def test_are_replaced(self, moved: Any) -> None:
        assert attach(moved, content=b"new").json["location"].startswith(CDN)
        assert read(moved) == b"new"
        assert len(stored_files(moved)) == 1

    @pytest.mark.parametrize("path", [URL, RECORD])
    def test_are_deleted(self, moved: Any, path: str) -> None:
        moved.delete(path, headers=ALICE)
        assert not stored_files(moved)

    def test_are_not_forged(self, moved: Any) -> None:
        before = attachment_of(moved)
        (key,) = stored_files(moved)
        changed = {**before, "location": f"{CDN}{key}"}
        moved.put_json(RECORD, {"data": {"attachment": changed}}, headers=ALICE, status=400)
        assert attachment_of(moved) == before


@ON_MEMORY
def test_a_location_of_another_server_is_nothing_of_ours(app: Any) -> None:
    """Such a record is older than the plugin, or from another one."""
    storage = app.app.registry.storage
    location = "https://elsewhere.example.com/a.txt"
    elsewhere = {"attachment": {"filename": "a.txt", "location": location}}
    storage.update("record", "/buckets/b/collections/c", "r", elsewhere)
    app.get(URL, headers=ALICE, status=404)
    # It may be kept, and it may be dropped.
    put(app, RECORD, data={**elsewhere, "title": "A"})
    assert attachment_of(app) == elsewhere["attachment"]
    app.delete(URL, headers=ALICE, status=204)
    assert attachment_of(app) is None
