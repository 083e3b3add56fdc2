"""Attacks on links: forged URLs, and links that leak to other places."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    BUCKET,
    COLLECTION,
    CONTENT,
    RECORD,
    ask,
    attach,
    put,
    put_collection,
    userid,
)
from tests.support.backends import ON_MEMORY, ON_OBJECT_STORES, Build, runs_on
from tests.support.links import KEYS, URL, claims_of, link, own_path

pytestmark = ON_MEMORY

LIST = f"{COLLECTION}/attachments?_urls=600"
VERSIONS = f"{RECORD}/attachment/versions"
ARCHIVE = f"{COLLECTION}/attachments.zip/url"
MAKERS = [URL, LIST, f"{VERSIONS}?_urls=600", ARCHIVE]


def made_by(body: Any) -> str:
    """The link in a response, or in its first item."""
    data = body["data"]
    url: str = (data[0] if isinstance(data, list) else data)["url"]
    return url


def attach_packed(app: Any) -> None:
    headers = {**ALICE, "Content-Encoding": "gzip", "Content-Type": "text/plain"}
    uri = f"{RECORD}/attachment?filename=a.txt"
    app.put(uri, gzip.compress(CONTENT), headers=headers, status=201)


class TestNames:
    @pytest.mark.parametrize("name", ["a\r\nSet-Cookie: x=1", "a\nb", "a\x00b", "a\x7fb", ""])
    def test_no_header_is_made_of_one(self, app: Any, name: str) -> None:
        attach(app)
        for uri in (URL, f"{RECORD}/attachment"):
            app.get(f"{uri}?filename={quote(name)}", headers=ALICE, status=400)

    @pytest.mark.parametrize(
        "name", ['a"; filename="b.html', "a;b", "a%0d%0ab", "a'b", "a\\b", "//evil.example/a"]
    )
    def test_is_a_name_in_the_header(self, app: Any, name: str) -> None:
        attach(app)
        made = link(app, filename=name)
        assert urlsplit(made["url"]).netloc == "localhost"
        header = app.get(own_path(made["url"])).headers["Content-Disposition"]
        assert header.count('filename="') == 1
        assert header.partition("filename=")[2].count('"') == 2

    def test_does_not_make_a_file_shown_in_place(self, app: Any) -> None:
        attach(app, content=b"<script>", filename="a.svg", content_type="image/svg+xml")
        made = link(app, filename="a.png", disposition="inline")
        headers = app.get(own_path(made["url"])).headers
        assert headers["Content-Disposition"] == 'attachment; filename="a.png"'
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in headers["Content-Security-Policy"]


@ON_OBJECT_STORES
class TestPresigned:
    def test_names_stay_names(self, app: Any) -> None:
        attach(app)
        for name in ('a"; filename="b.html', "a&response-content-type=text/html", "é%0D%0A"):
            answer = ask(link(app, filename=name)["url"])
            assert answer.content == CONTENT
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert answer.headers["Content-Disposition"].count('filename="') == 1

    @runs_on("moto", "seaweedfs")  # Google's emulator does not send the encoding.
    def test_of_compressed_files(self, build: Build) -> None:
        app = build(content_encodings="gzip")
        attach_packed(app)
        answer = ask(link(app)["url"])
        assert answer.content == CONTENT  # requests decompresses it.


class TestHosts:
    @pytest.mark.parametrize("uri", [*MAKERS, f"{VERSIONS}/{'0' * 64}/url"])
    @pytest.mark.parametrize("host", ["evil.example?", "evil.example/", "user@evil.example"])
    def test_that_are_none(self, app: Any, uri: str, host: str) -> None:
        attach(app)
        app.get(uri, headers={**ALICE, "Host": host}, status=400)

    @pytest.mark.parametrize("uri", MAKERS)
    def test_of_a_part_of_a_batch_are_not_in_the_url(self, app: Any, uri: str) -> None:
        attach(app)
        part = {"path": f"/v1{uri}", "headers": {"Host": "evil.example"}}
        (answer,) = app.post_json("/batch", {"requests": [part]}, headers=ALICE).json["responses"]
        assert urlsplit(made_by(answer["body"])).netloc == "localhost"

    @pytest.mark.parametrize("uri", MAKERS)
    def test_of_the_server_are_those_of_its_setting(self, build: Build, uri: str) -> None:
        app = build({"http_host": "kinto.example.com", "http_scheme": "https"})
        attach(app)
        url = made_by(app.get(uri, headers={**ALICE, "Host": "evil.example"}).json)
        assert url.startswith("https://kinto.example.com/v1/")


class TestOtherBuckets:
    def test_a_link_is_for_one_record_of_one_bucket(self, build: Build) -> None:
        app = build(signing_keys=KEYS[0])
        attach(app)
        other = "/buckets/other/collections/c"
        put_collection(app, other, BOB)
        attach(app, f"{other}/records/r", content=b"bob's", headers=BOB)
        url = link(app)["url"]
        token = urlsplit(url).query
        for uri in (f"{other}/records/r/attachment", f"{other}/attachments.zip"):
            app.get(f"{uri}?{token}", headers=ANONYMOUS, status=401)
            app.get(f"{uri}?{token}", headers=ALICE, status=403)
        app.get(f"{other}/records/r/attachment/url", headers=ALICE, status=403)
        assert claims_of(url).record == RECORD

    def test_the_default_bucket_is_named_by_its_id(self, build: Build) -> None:
        app = build(signing_keys=KEYS[0])
        uri = "/buckets/default/collections/c/records/r"
        attach(app, uri, content=b"alice's")
        attach(app, uri, content=b"bob's", headers=BOB)
        urls = [link(app, f"{uri}/attachment/url", user)["url"] for user in (ALICE, BOB)]
        assert [app.get(own_path(url), headers=BOB).body for url in urls] == [b"alice's", b"bob's"]
        records = [claims_of(url).record for url in urls]
        assert len({*records}) == 2
        assert not any("/buckets/default/" in record for record in records)


class TestCompressed:
    @pytest.mark.parametrize("downloads", ["proxy", "x-accel-redirect:/files/", "x-sendfile"])
    def test_files_keep_their_encoding(self, build: Build, downloads: str) -> None:
        app = build(downloads=downloads, content_encodings="gzip")
        attach_packed(app)
        answer = app.get(own_path(link(app)["url"]))
        assert not {"X-Accel-Redirect", "X-Sendfile"} & set(answer.headers)
        assert answer.body == CONTENT  # WebTest decompresses by the header.


class TestSecrets:
    @pytest.fixture
    def logged(self) -> Iterator[list[logging.LogRecord]]:
        """What Kinto logs for each request."""
        records: list[logging.LogRecord] = []
        logger, handler = logging.getLogger("request.summary"), logging.Handler()
        handler.emit = records.append  # type: ignore[method-assign]
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        yield records
        logger.removeHandler(handler)
        logger.setLevel(level)

    def test_tokens_are_not_in_the_log(self, app: Any, logged: list[logging.LogRecord]) -> None:
        attach(app)
        urls = [made_by(app.get(uri, headers=ALICE).json) for uri in MAKERS]
        for url in urls:
            (token,) = parse_qs(urlsplit(url).query)["token"]
            path = own_path(url)
            app.get(path, headers=ANONYMOUS, status=200)
            # Also a wrong token, and URLs at which no token is read.
            app.get(f"{path}x", headers=ANONYMOUS, status=401)
            app.get(path.removeprefix("/v1"), headers=ANONYMOUS, status="*")
            app.get(f"{RECORD}/attachment?token={token}", headers=ANONYMOUS, status=401)
            app.get(f"{BUCKET}/attachments/x?token={token}", headers=ANONYMOUS, status=404)
            said = [vars(record).get("querystring") for record in logged]
            assert {"token": "***"} in said
            assert token not in str([vars(record) for record in logged])

    def test_no_page_sends_the_url_on(self, app: Any) -> None:
        attach(app)
        for uri in MAKERS:
            path = own_path(made_by(app.get(uri, headers=ALICE).json))
            tag = app.head(path).headers.get("ETag", '"none"')
            for headers in ({}, {"If-None-Match": tag}, {"Range": "bytes=0-1"}):
                answer = app.get(path, headers=headers, status="*")
                assert answer.status_code in (200, 206, 304)
                assert answer.headers["Referrer-Policy"] == "no-referrer"

    def test_nobody_else_gets_a_link_from_a_cache(self, app: Any) -> None:
        attach(app)
        put(app, COLLECTION, permissions={"read": [userid(app, BOB)]})
        for uri in MAKERS:
            answer = app.get(uri, headers=BOB)
            assert answer.headers["Cache-Control"] == "no-store"
