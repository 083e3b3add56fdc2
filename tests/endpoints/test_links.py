"""Links to files without credentials: with the server's own token, or by the storage."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, fields, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests

from kinto_attachment.files.signatures import Signatures, derived_key
from kinto_attachment.files.signed_links import PURPOSE, LinkClaims, rounded_expiry
from kinto_attachment.index.objects import digest_of
from tests.support import lingering
from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    COLLECTION,
    CONTENT,
    MEMORY,
    OTHER,
    RECORD,
    ask,
    attach,
    make_app,
    put,
    put_collection,
    userid,
)
from tests.support.backends import ON_MEMORY, ON_OBJECT_STORES, Build, runs_on
from tests.support.links import KEYS, URL, claims_of, forged, link, own_path, signed
from tests.support.services import S3

pytestmark = ON_MEMORY

HOUR = 3600


@pytest.fixture
def linked(build: Build) -> Any:
    """A server that signs with the first of two keys, with a file."""
    app = build(signing_keys=" ".join(KEYS))
    attach(app)
    return app


class TestOwnLinks:
    def test_needs_no_credentials(self, linked: Any) -> None:
        made = linked.get(URL, headers=ALICE)
        assert made.headers["Cache-Control"] == "no-store"
        data = made.json["data"]
        answer = linked.get(own_path(data["url"]), headers=ANONYMOUS)
        assert answer.body == CONTENT
        assert answer.headers["Content-Type"] == "text/plain"
        assert answer.headers["Content-Disposition"] == 'inline; filename="notes.txt"'
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["Referrer-Policy"] == "no-referrer"

    def test_has_ranges_and_heads(self, linked: Any) -> None:
        path = own_path(link(linked)["url"])
        part = linked.get(path, headers={"Range": "bytes=1-3"}, status=206)
        assert part.body == CONTENT[1:4]
        head = linked.head(path)
        assert int(head.headers["Content-Length"]) == len(CONTENT)
        linked.get(path, headers={"If-None-Match": head.headers["ETag"]}, status=304)

    def test_is_the_same_for_half_of_its_validity(
        self, linked: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begin = (int(time.time()) // HOUR + 1) * HOUR
        urls, left = set(), []
        for seconds in (1, 1700, 1799, 1801):
            monkeypatch.setattr(time, "time", lambda now=begin + seconds: float(now))
            made = link(linked, expires_in=HOUR)
            urls.add(made["url"])
            left.append(made["expires_at"] / 1000 - begin - seconds)
            answer = linked.get(own_path(made["url"]))
            caching = answer.headers["Cache-Control"]
            assert caching == f"private, max-age={int(left[-1])}, immutable"
        assert len(urls) == 2
        assert all(HOUR <= each <= 1.5 * HOUR for each in left)

    def test_expires(self, linked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        made = link(linked, expires_in="90s")
        end = made["expires_at"] / 1000
        monkeypatch.setattr(time, "time", lambda: end - 1)
        assert linked.get(own_path(made["url"])).body == CONTENT
        monkeypatch.setattr(time, "time", lambda: end)
        linked.get(own_path(made["url"]), status=401)

    def test_has_the_name_and_the_disposition_that_were_asked_for(self, linked: Any) -> None:
        made = link(linked, disposition="attachment", filename="ö.txt")
        answer = linked.get(own_path(made["url"]))
        assert answer.headers["Content-Disposition"].startswith("attachment; ")
        assert "UTF-8''%C3%B6.txt" in answer.headers["Content-Disposition"]
        # The query cannot override them.
        changed = linked.get(own_path(made["url"]) + "&disposition=inline&filename=b.html")
        assert changed.headers["Content-Disposition"] == answer.headers["Content-Disposition"]

    def test_shows_in_place_what_the_settings_allow_only(self, linked: Any) -> None:
        attach(linked, content=b"<script>", filename="a.svg", content_type="image/svg+xml")
        made = link(linked, disposition="inline")
        answer = linked.get(own_path(made["url"]))
        assert answer.headers["Content-Disposition"].startswith("attachment; ")

    def test_in_the_default_bucket(self, linked: Any) -> None:
        uri = "/buckets/default/collections/c/records/r"
        attach(linked, uri, content=b"mine")
        made = link(linked, f"{uri}/attachment/url")
        assert linked.get(own_path(made["url"])).body == b"mine"
        linked.get(f"{uri}/attachment/url", headers=ANONYMOUS, status=401)
        linked.get(f"{uri}/attachment/url", headers=BOB, status=404)

    @pytest.mark.parametrize(
        ("downloads", "header", "expected"),
        [
            ("x-accel-redirect:/files/", "X-Accel-Redirect", "/files/{key}"),
            ("x-sendfile", "X-Sendfile", "{path}"),
            ("proxy", "Content-Length", str(len(CONTENT))),
        ],
    )
    def test_in_each_mode(self, build: Build, downloads: str, header: str, expected: str) -> None:
        app = build(downloads=downloads)
        location = attach(app).json["location"]
        key = urlsplit(location).path.removeprefix("/v1/attachments/")
        path = app.app.registry.attachment_storages.default.files.path(key)
        answer = app.get(own_path(link(app)["url"]))
        assert answer.headers[header] == expected.format(key=key, path=path)


class TestEnds:
    def test_with_the_record_s_file(self, linked: Any) -> None:
        paths = [own_path(link(linked)["url"])]
        attach(linked, content=b"other")
        paths.append(own_path(link(linked)["url"]))
        assert linked.get(paths[1]).body == b"other"
        linked.get(paths[0], status=401)
        linked.delete(f"{RECORD}/attachment", headers=ALICE)
        linked.get(paths[1], status=401)

    def test_with_the_record_s_file_that_lingers(self, build: Build) -> None:
        app = build(linger="1h")
        location = attach(app).json["location"]
        path = own_path(link(app)["url"])
        attach(app, content=b"other")
        assert app.get(location, headers=ALICE).body == CONTENT
        app.get(path, status=401)
        lingering.end(app)

    def test_with_the_record_and_not_for_a_namesake(self, build: Build) -> None:
        app = build(keep_old_files="true")
        attach(app)
        path = own_path(link(app)["url"])
        attach(app, content=b"other")
        assert app.get(path).body == CONTENT  # The file was kept.
        app.delete(RECORD, headers=ALICE)
        app.get(path, status=401)
        attach(app, content=b"of a namesake")
        app.get(path, status=401)

    def test_not_with_the_right_to_read(self, linked: Any) -> None:
        put(linked, COLLECTION, permissions={"read": [userid(linked, BOB)]})
        made = link(linked, headers=BOB)
        put(linked, COLLECTION, permissions={"read": []})
        linked.get(f"{RECORD}/attachment", headers=BOB, status=403)
        assert linked.get(own_path(made["url"])).body == CONTENT

    def test_of_a_shared_file_with_the_own_record_s_link(self, build: Build) -> None:
        app = build({"includes": "tests.support.publishing"}, signing_keys=" ".join(KEYS))
        attach(app)
        app.post_json("/publish", {"copies": {RECORD: OTHER}})
        path = own_path(link(app)["url"])
        app.delete(RECORD, headers=ALICE)
        app.get(path, status=401)
        assert app.get(own_path(link(app, f"{OTHER}/attachment/url")["url"])).body == CONTENT


class TestTampered:
    """They are ignored: strangers get 401, and those who may read the file get it.

    The storage is not compared: the file may have been moved.
    """

    @pytest.mark.parametrize(
        "changes",
        [
            {"key": "another.txt"},
            {"record": OTHER},
            {"version": digest_of("another.txt")},
            {"expires": 0},
            {"expires": "never"},
            {"expires": None},
        ],
        ids=lambda changes: "-".join(map(str, *changes.items())),
    )
    def test_each_field(self, linked: Any, changes: dict[str, Any]) -> None:
        attach(linked, OTHER, content=b"another")
        url = link(linked)["url"]
        claims = claims_of(url)
        assert linked.get(signed(url, claims)).body == CONTENT
        path = signed(url, replace(claims, **changes))
        linked.get(path, headers=ANONYMOUS, status=401)
        assert linked.get(path, headers=ALICE).body == CONTENT

    @pytest.mark.parametrize("name", [each.name for each in fields(LinkClaims)])
    def test_each_field_by_somebody_without_a_key(self, linked: Any, name: str) -> None:
        path, _, token = own_path(link(linked)["url"]).partition("?token=")
        assert linked.get(f"{path}?token={token}").body == CONTENT
        linked.get(f"{path}?token={forged(token, name)}", status=401)

    @pytest.mark.parametrize("lacking", [each.name for each in fields(LinkClaims)])
    def test_a_field_that_lacks(self, linked: Any, lacking: str) -> None:
        url = link(linked)["url"]
        said = {k: v for k, v in asdict(claims_of(url)).items() if k != lacking}
        linked.get(signed(url, said), status=401)

    def test_a_field_too_much(self, linked: Any) -> None:
        url = link(linked)["url"]
        linked.get(signed(url, {**asdict(claims_of(url)), "more": 1}), status=401)

    def test_another_purpose(self, linked: Any) -> None:
        url = link(linked)["url"]
        linked.get(signed(url, claims_of(url), purpose="upload"), status=401)

    def test_another_server_s_key(self, linked: Any) -> None:
        url = link(linked)["url"]
        linked.get(signed(url, claims_of(url), key="another-key-" + "3" * 32), status=401)

    def test_another_file_s_path(self, linked: Any) -> None:
        other = attach(linked, OTHER, content=b"another").json["location"]
        query = urlsplit(link(linked)["url"]).query
        linked.get(f"{urlsplit(other).path}?{query}", status=401)

    @pytest.mark.parametrize("token", ["", "x", "é", "a.b", "\x00", "x" * 5000])
    def test_no_token_at_all(self, linked: Any, token: str) -> None:
        path = urlsplit(link(linked)["url"]).path
        linked.get(f"{path}?{urlencode({'token': token})}", status=401)

    def test_every_character(self, linked: Any) -> None:
        path, _, token = own_path(link(linked)["url"]).partition("?token=")
        for position in range(0, len(token), 7):
            other = "A" if token[position] != "A" else "B"
            changed = token[:position] + other + token[position + 1 :]
            linked.get(f"{path}?token={changed}", status=401)


class TestKeys:
    def test_the_first_signs_and_all_verify(self, build: Build) -> None:
        app = build(signing_keys=KEYS[1])
        attach(app)
        path = own_path(link(app)["url"])
        signatures = app.app.registry.attachment_signatures
        app.app.registry.attachment_signatures = Signatures([key.encode() for key in KEYS])
        assert app.get(path).body == CONTENT
        new = link(app)["url"]
        assert own_path(new) != path
        assert claims_of(new).record == RECORD  # claims_of knows the first key only.
        app.app.registry.attachment_signatures = Signatures([KEYS[0].encode()])
        app.get(path, status=401)
        app.app.registry.attachment_signatures = signatures

    def test_is_made_of_kinto_s_secret_if_there_is_none(self, app: Any) -> None:
        attach(app)
        url = link(app)["url"]
        (token,) = parse_qs(urlsplit(url).query)["token"]
        own = Signatures([derived_key(b"secret")])
        assert own.read(PURPOSE, token) is not None
        # Kinto's secret itself is used to sign other things.
        assert Signatures([b"secret"]).read(PURPOSE, token) is None

    def test_derived_as_the_rfc_says(self) -> None:
        # RFC 5869 A.3: SHA-256 without salt and info; the first block of the output.
        derived = derived_key(b"\x0b" * 22, b"")
        expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
        assert derived.hex() == expected

    def test_without_any_secret_there_are_no_links(self, build: Build) -> None:
        app = build(downloads="proxy")
        registry = app.app.registry
        attach(app)
        before, registry.attachment_signatures = registry.attachment_signatures, None
        try:
            refused = app.get(URL, headers=ALICE, status=501)
            assert "signing_keys" in refused.json["message"]
        finally:
            registry.attachment_signatures = before


class TestWhoMay:
    def test_needs_read(self, linked: Any) -> None:
        linked.get(URL, headers=ANONYMOUS, status=401)
        linked.get(URL, headers=BOB, status=403)
        put(linked, COLLECTION, permissions={"read": ["system.Authenticated"]})
        assert linked.get(own_path(link(linked, headers=BOB)["url"])).body == CONTENT

    def test_a_record_without_a_file(self, linked: Any) -> None:
        put(linked, OTHER)
        refused = linked.get(f"{OTHER}/attachment/url", headers=ALICE, status=404)
        assert refused.json["errno"] == 110
        linked.get(f"{COLLECTION}/records/ghost/attachment/url", headers=ALICE, status=404)

    @pytest.mark.parametrize(
        "query",
        [
            *("expires_in=0", "expires_in=-1", "expires_in=8d", "expires_in=x", "expires_in=1e9"),
            *("disposition=both", "filename=", "filename=%00"),
        ],
    )
    def test_bad_queries(self, linked: Any, query: str) -> None:
        refused = linked.get(f"{URL}?{query}", headers=ALICE, status=400)
        assert refused.json["code"] == 400

    def test_the_longest_validity(self, build: Build) -> None:
        app = build(**{"links.max_age": "1h"})
        attach(app)
        made = link(app, expires_in="1h")
        assert made["expires_at"] / 1000 <= time.time() + HOUR
        app.get(f"{URL}?expires_in=3601", headers=ALICE, status=400)

    def test_in_a_batch(self, linked: Any) -> None:
        body = {"requests": [{"method": "GET", "path": f"/v1{URL}"}]}
        (answer,) = linked.post_json("/batch", body, headers=ALICE).json["responses"]
        assert answer["status"] == 200
        assert linked.get(own_path(answer["body"]["data"]["url"])).body == CONTENT

    def test_the_capability(self, linked: Any) -> None:
        assert linked.get("/").json["capabilities"]["attachments"]["links"] is True


@ON_OBJECT_STORES
class TestPresigned:
    def test_is_the_storage_s_own_url(self, app: Any) -> None:
        attach(app)
        before = time.time()
        made = link(app, expires_in=100, disposition="attachment", filename="b.txt")
        assert before - 1 <= made["expires_at"] / 1000 - 100 <= time.time()
        assert urlsplit(made["url"]).path != urlsplit(URL).path
        answer = ask(made["url"])
        assert answer.content == CONTENT
        assert answer.headers["Content-Disposition"] == 'attachment; filename="b.txt"'

    def test_has_ranges(self, app: Any) -> None:
        attach(app)
        answer = ask(link(app)["url"], Range="bytes=2-4")
        assert (answer.status_code, answer.content) == (206, CONTENT[2:5])

    def test_ends_with_the_credentials(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        attach(app)
        end = datetime.now(timezone.utc) + timedelta(seconds=50)
        files = app.app.registry.attachment_storages.default.files
        monkeypatch.setattr(files, "signs_until", lambda: end)
        assert link(app, expires_in=100)["expires_at"] / 1000 <= end.timestamp()


@pytest.mark.moto
def test_a_presigned_link_ends_with_temporary_credentials(
    moto: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(hours=1)
    given = {"AccessKeyId": "key", "SecretAccessKey": "secret", "SessionToken": "token"}
    answer = {"Version": 1, **given, "Expiration": end.isoformat()}
    (tmp_path / "credentials.json").write_text(json.dumps(answer))
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = cat {tmp_path / 'credentials.json'}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    options = moto.options(moto.create_bucket())
    keys = ("aws.access_key", "aws.secret_key")
    app = make_app({k: v for k, v in options.items() if k not in keys}, MEMORY)
    put_collection(app)
    attach(app)
    (item,) = app.get(f"{COLLECTION}/attachments?_urls=1d", headers=ALICE).json["data"]
    listed = {"url": item["url"], "expires_at": item["url_expires_at"]}
    for made in (link(app, expires_in="1d"), listed):
        assert 0 <= end.timestamp() - made["expires_at"] / 1000 <= 1
        assert "X-Amz-Security-Token=token" in made["url"]
        assert ask(made["url"]).content == CONTENT
    assert time.time() + 50 <= link(app, expires_in=60)["expires_at"] / 1000 < end.timestamp()


@runs_on("seaweedfs")
def test_a_presigned_link_is_for_get_alone(app: Any) -> None:
    """The method is signed, but moto checks no signatures. Kinto itself answers HEAD."""
    attach(app)
    with requests.Session() as session:
        session.trust_env = False
        assert session.head(link(app)["url"], timeout=90).status_code == 403
    assert int(app.head(f"{RECORD}/attachment", headers=ALICE).headers["Content-Length"]) > 0


@ON_OBJECT_STORES
def test_there_is_no_link_by_credentials_that_have_ended(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(app)
    files = app.app.registry.attachment_storages.default.files
    monkeypatch.setattr(files, "signs_until", lambda: datetime.now(timezone.utc))
    app.get(URL, headers=ALICE, status=503)


@pytest.mark.parametrize(
    ("now", "expires_in", "expected"),
    [(0, 600, 600), (1, 600, 900), (300, 600, 900), (301, 600, 1200), (5.5, 1, 7), (0, 7, 9)],
)
def test_the_end_is_a_multiple_of_half_the_validity(
    now: float, expires_in: int, expected: int
) -> None:
    assert rounded_expiry(now, expires_in, 10_000) == expected
    assert rounded_expiry(now, expires_in, expires_in) <= now + expires_in
