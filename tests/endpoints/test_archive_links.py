"""Links to the archive of a collection's files."""

from __future__ import annotations

import io
import time
import zipfile
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest

from kinto_attachment import AttachmentRead
from kinto_attachment.files.archive_links import PURPOSE
from kinto_attachment.files.signatures import Signatures
from kinto_attachment.files.signed_links import PURPOSE as OF_FILES
from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    BUCKET,
    COLLECTION,
    CONTENT,
    OTHER,
    RECORD,
    attach,
    key_of,
    put,
    put_collection,
    seen,
    userid,
)
from tests.support.backends import ON_DATABASES, ON_MEMORY, ON_OBJECT_STORES, Build
from tests.support.links import KEYS, link, own_path

pytestmark = ON_MEMORY

ARCHIVE = f"{COLLECTION}/attachments.zip"
URL = f"{ARCHIVE}/url"
HOUR = 3600


@pytest.fixture
def app(build: Build) -> Any:
    return build(signing_keys=" ".join(KEYS))


def names(app: Any, path: str) -> list[str]:
    """The files in the archive at a path, without credentials."""
    response = app.get(path, headers=ANONYMOUS)
    found = zipfile.ZipFile(io.BytesIO(b"".join(response.app_iter)))
    assert found.testzip() is None
    return sorted(name for name in found.namelist() if not name.endswith(".json"))


def claims_of(url: str) -> dict[str, Any]:
    (token,) = parse_qs(urlsplit(url).query)["token"]
    claims = Signatures([KEYS[0].encode()]).read(PURPOSE, token)
    assert claims is not None
    return claims


def signed(claims: dict[str, Any], key: str = KEYS[0], purpose: str = PURPOSE) -> str:
    return Signatures([key.encode()]).sign(purpose, claims)


def with_token(url: str, token: str) -> str:
    query = [pair for pair in parse_qsl(urlsplit(url).query) if pair[0] != "token"]
    return f"{urlsplit(url).path}?{urlencode([*query, ('token', token)])}"


@ON_DATABASES
class TestLink:
    def test_needs_no_credentials(self, app: Any) -> None:
        attach(app)
        attach(app, OTHER)
        made = app.get(URL, headers=ALICE)
        assert made.headers["Cache-Control"] == "no-store"
        assert made.headers["Access-Control-Allow-Origin"] == "*"
        path = own_path(made.json["data"]["url"])
        assert names(app, path) == ["other", "r"]
        head = app.head(path)
        assert head.headers["Referrer-Policy"] == "no-referrer"
        assert "private" in head.headers["Cache-Control"]
        app.get(ARCHIVE, headers=ANONYMOUS, status=401)

    def test_shows_what_the_collection_has_by_then(self, app: Any) -> None:
        attach(app)
        path = own_path(link(app, URL)["url"])
        attach(app, OTHER)
        app.delete(RECORD, headers=ALICE)
        assert names(app, path) == ["other"]

    def test_has_the_filters_of_its_request(self, app: Any) -> None:
        for name, content in (("a", b"1"), ("b", b"22"), ("c", b"333")):
            attach(app, f"{COLLECTION}/records/{name}", content=content)
        query = "gt_size=1&not_id=c&not_id=%C3%A9"
        made = app.get(f"{URL}?{query}&expires_in=1h", headers=ALICE).json["data"]
        assert names(app, own_path(made["url"])) == ["b"]
        # Those who may read the collection get the same without the token.
        plain = own_path(made["url"]).rpartition("&token=")[0]
        response = app.get(plain, headers=ALICE)
        assert "b" in zipfile.ZipFile(io.BytesIO(b"".join(response.app_iter))).namelist()

    def test_is_the_same_for_half_of_its_validity(
        self, app: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        attach(app)
        begin = (int(time.time()) // HOUR + 1) * HOUR
        made = []
        for seconds in (1, 1799, 1801):
            monkeypatch.setattr(time, "time", lambda now=begin + seconds: float(now))
            made.append(link(app, URL, expires_in="1h"))
        assert made[0] == made[1] != made[2]
        end = made[0]["expires_at"] / 1000
        assert end - begin == 1.5 * HOUR
        monkeypatch.setattr(time, "time", lambda: end - 1)
        assert names(app, own_path(made[0]["url"])) == ["r"]
        monkeypatch.setattr(time, "time", lambda: end)
        app.get(own_path(made[0]["url"]), status=401)

    @pytest.mark.one_way  # The length of a link in a batch is random.
    def test_in_the_default_bucket_and_a_batch(self, app: Any) -> None:
        uri = "/buckets/default/collections/c"
        attach(app, f"{uri}/records/mine")
        path = f"{uri}/attachments.zip/url"
        assert names(app, own_path(link(app, path)["url"])) == ["mine"]
        body = {"requests": [{"path": path}]}
        (answer,) = app.post_json("/batch", body, headers=ALICE).json["responses"]
        assert names(app, own_path(answer["body"]["data"]["url"])) == ["mine"]
        app.get(path, headers=ANONYMOUS, status=401)

    def test_tells_other_plugins(self, app: Any) -> None:
        attach(app)
        path = own_path(link(app, URL)["url"])
        seen(app, AttachmentRead)
        names(app, path)
        assert [event.record_uri for event in seen(app, AttachmentRead)] == [RECORD]


@ON_OBJECT_STORES
def test_is_the_server_s_own_where_files_are_in_a_bucket(app: Any) -> None:
    attach(app)
    url = link(app, URL)["url"]
    assert urlsplit(url).path == f"/v1{ARCHIVE}"
    assert names(app, own_path(url)) == ["r"]


class TestWhoMay:
    @pytest.mark.parametrize(
        ("permission", "uri", "status"),
        [
            ("read", RECORD, 403),
            ("record:create", COLLECTION, 403),
            ("read", COLLECTION, 200),
            ("read", BUCKET, 200),
        ],
    )
    def test_needs_what_the_archive_needs(
        self, app: Any, permission: str, uri: str, status: int
    ) -> None:
        attach(app)
        app.get(URL, headers=BOB, status=403)
        app.get(URL, headers=ANONYMOUS, status=401)
        put(app, uri, permissions={permission: [userid(app, BOB)]})
        app.get(URL, headers=BOB, status=status)

    @pytest.mark.parametrize(
        "query",
        [
            *("expires_in=0", "expires_in=8d", "expires_in=x", "_limit=1", "state=kept"),
            *("_urls=600", "filename=a%00", "nothing=1", "token=x", "gt_size=x"),
        ],
    )
    def test_bad_queries(self, app: Any, query: str) -> None:
        attach(app)
        assert app.get(f"{URL}?{query}", headers=ALICE, status=400).json["errno"] == 107

    def test_of_no_collection(self, app: Any) -> None:
        put(app, BUCKET, permissions={"read": [userid(app, BOB)]})
        app.get(f"{BUCKET}/collections/none/attachments.zip/url", headers=BOB, status=404)

    def test_on_a_server_that_cannot_sign(self, app: Any) -> None:
        registry = app.app.registry
        before, registry.attachment_signatures = registry.attachment_signatures, None
        try:
            app.get(URL, headers=ALICE, status=501)
            app.get(f"{ARCHIVE}?token=x", headers=ANONYMOUS, status=401)
        finally:
            registry.attachment_signatures = before

    def test_ends_when_the_permissions_change(self, app: Any) -> None:
        attach(app)
        put(app, COLLECTION, permissions={"read": [userid(app, BOB)]})
        path = own_path(link(app, URL, BOB)["url"])
        app.patch_json(RECORD, {"data": {"title": "Records may change."}}, headers=ALICE)
        assert names(app, path) == ["r"]
        put(app, COLLECTION, permissions={"read": []})
        app.get(path, status=401)

    @pytest.mark.parametrize("parent", [COLLECTION, BUCKET])
    def test_is_not_for_a_namesake(self, app: Any, parent: str) -> None:
        attach(app)
        path = own_path(link(app, URL)["url"])
        app.delete(parent, headers=ALICE)
        app.get(path, status=401)
        put_collection(app)
        attach(app)
        app.get(path, status=401)


class TestTampered:
    """They are ignored: strangers get 401, and those who may read the archive get it."""

    @pytest.mark.parametrize(
        "changes",
        [
            {"collection": f"{BUCKET}/collections/other"},
            {"changed": 1},
            {"filters": []},
            {"filters": [["gt_size", "1"]]},
            {"expires": 0},
            {"expires": "never"},
            {"expires": None},
            {"more": 1},
        ],
        ids=lambda changes: "-".join(map(str, *changes.items())),
    )
    def test_each_field(self, app: Any, changes: dict[str, Any]) -> None:
        attach(app)
        url = link(app, URL, gt_size=0)["url"]
        claims = claims_of(url)
        assert names(app, with_token(url, signed(claims))) == ["r"]
        path = with_token(url, signed({**claims, **changes}))
        app.get(path, headers=ANONYMOUS, status=401)
        app.get(path, headers=ALICE, status=200)

    @pytest.mark.parametrize("lacking", ["collection", "changed", "filters", "expires"])
    def test_a_field_that_lacks(self, app: Any, lacking: str) -> None:
        url = link(app, URL)["url"]
        said = {name: value for name, value in claims_of(url).items() if name != lacking}
        app.get(with_token(url, signed(said)), status=401)

    @pytest.mark.parametrize("query", ["", "gt_size=1&", "gt_size=0&gt_size=0&", "id=r&"])
    def test_other_filters(self, app: Any, query: str) -> None:
        attach(app)
        token = parse_qs(urlsplit(link(app, URL, gt_size=0)["url"]).query)["token"][0]
        assert names(app, f"{ARCHIVE}?gt_size=0&token={token}") == ["r"]
        app.get(f"{ARCHIVE}?{query}token={token}", status=401)

    def test_other_purposes(self, app: Any) -> None:
        location = attach(app).json["location"]
        url = link(app, URL)["url"]
        claims = claims_of(url)
        app.get(with_token(url, signed(claims, purpose=OF_FILES)), status=401)
        # A link to the archive opens neither a file nor a list; one to a file opens no archive.
        (token,) = parse_qs(urlsplit(url).query)["token"]
        app.get(f"/attachments/{key_of({'location': location})}?token={token}", status=401)
        app.get(f"{RECORD}/attachment?token={token}", status=401)
        app.get(f"{COLLECTION}/attachments?token={token}", status=401)
        app.get(f"{URL}?token={token}", status=401)
        file_url = link(app, f"{RECORD}/attachment/url")["url"]
        assert app.get(own_path(file_url)).body == CONTENT
        (of_file,) = parse_qs(urlsplit(file_url).query)["token"]
        app.get(f"{ARCHIVE}?token={of_file}", status=401)

    def test_another_collection(self, app: Any) -> None:
        other = f"{BUCKET}/collections/other"
        put_collection(app, other)
        query = urlsplit(link(app, URL)["url"]).query
        app.get(f"{other}/attachments.zip?{query}", status=401)

    def test_another_server_and_keys_that_come_and_go(self, app: Any) -> None:
        attach(app)
        url = link(app, URL)["url"]
        claims = claims_of(url)
        app.get(with_token(url, signed(claims, "another-key-" + "3" * 32)), status=401)
        assert names(app, with_token(url, signed(claims, KEYS[1]))) == ["r"]

    @pytest.mark.parametrize("token", ["", "x", "é", "a.b", "\x00", "x" * 5000])
    def test_no_token_at_all(self, app: Any, token: str) -> None:
        attach(app)
        app.get(f"{ARCHIVE}?{urlencode({'token': token})}", headers=ANONYMOUS, status=401)
        app.get(f"{ARCHIVE}?{urlencode({'token': token})}", headers=ALICE, status=200)
