"""``GET C/attachments``: the files of a collection."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
import transaction

from kinto_attachment.files import list_queries
from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    BUCKET,
    COLLECTION,
    RECORD,
    Headers,
    attach,
    attachment_of,
    error,
    key_of,
    links_of,
    put,
    put_collection,
    sha256,
    userid,
    write_behind,
)
from tests.support.backends import (
    ON_DATABASES,
    ON_EACH_DATABASE,
    ON_MEMORY,
    ON_POSTGRESQL,
    Build,
)
from tests.support.statements import statements

URL = f"{COLLECTION}/attachments"
DEFAULT = "/buckets/default/collections/c"
# Occurs only in the statements that use a private method of Kinto's storage.
OWN_SQL = re.compile(r"json_build_object|SUM\(")


def record(name: str, collection: str = COLLECTION) -> str:
    return f"{collection}/records/{name}"


def fill(app: Any, count: int, collection: str = COLLECTION) -> list[str]:
    """Create records with files of growing size; returns their ids, the newest first."""
    names = [f"r{number}" for number in range(count)]
    for number, name in enumerate(names):
        attach(app, record(name, collection), b"x" * (number + 1), f"doc{number}.txt")
    return names[::-1]


def listed(app: Any, query: str = "", headers: Headers = ALICE, url: str = URL) -> list[Any]:
    found: list[Any] = app.get(f"{url}?{query}", headers=headers).json["data"]
    return found


def ids(app: Any, query: str = "", **options: Any) -> list[str]:
    return [item["id"] for item in listed(app, query, **options)]


MISSING = object()
# Changes that other code may have made to a record's attachment.
UNUSUAL: dict[str, dict[str, Any]] = {
    "usual": {},
    "more": {"author": "somebody", "record": "none", "key": "none"},
    "less": {"filename": MISSING, "mimetype": MISSING},
    "nulls": {"filename": None, "location": None},
    "nowhere": {"location": MISSING},
    "elsewhere": {"location": {"url": "https://example.com/"}},
    "no-size": {"size": MISSING},
    "null-size": {"size": None},
    "float": {"size": 4.0},
    "text": {"size": "4"},
    "false": {"size": False},
    "another": {"hash": "0" * 64},
    "hash": {"hash": [4]},
    "no-hash": {"hash": MISSING},
    "encoded": {"encoding": "gzip"},
    "not-encoded": {"encoding": None, "original": {}},
    "original": {"original": {"filename": "a.txt", "size": 1}},
    "large": {"size": 10**40, "hash": "0" * 64},
}


@ON_EACH_DATABASE
class TestLists:
    def test_what_is_known_of_a_file(self, app: Any) -> None:
        attachment = attach(app, content=b"abc").json
        found = app.get(RECORD, headers=ALICE).json["data"]
        (link,) = links_of(app)
        assert listed(app) == [
            {
                "record": RECORD,
                "id": "r",
                "last_modified": found["last_modified"],
                **attachment,
                "key": key_of(attachment),
                "created": link.created,
                "state": "current",
            }
        ]
        assert link.created > 0

    def test_what_is_stored_in_another_form(self, build: Build) -> None:
        app = build(gzipped="true")
        original = attach(app).json["original"]
        (item,) = listed(app)
        assert item["original"] == original

    def test_the_newest_first(self, app: Any) -> None:
        names = fill(app, 3)
        assert ids(app) == names
        app.patch_json(record("r1"), {"data": {"title": "new"}}, headers=ALICE)
        assert ids(app) == ["r1", "r2", "r0"]

    def test_no_records_without_a_file(self, app: Any) -> None:
        put(app, record("bare"))
        attach(app)
        attach(app, record("gone"))
        app.delete(f"{record('gone')}/attachment", headers=ALICE)
        write_behind(app, record("odd"), {"attachment": "a text"})
        write_behind(app, record("list"), {"attachment": [{"size": 1}]})
        assert ids(app) == ["r"]
        for name in ("odd", "list"):
            write_behind(app, record(name), {})

    def test_records_of_before_the_index(self, app: Any) -> None:
        attachment = attach(app).json
        (link,) = links_of(app)
        with transaction.manager:
            app.app.registry.attachment_links._rows.delete(link.parent, link.id)
        (item,) = listed(app)
        assert (item["key"], item["created"]) == (None, None)
        assert item["location"] == attachment["location"]
        with transaction.manager:
            app.app.registry.attachment_links._put(link)

    def test_the_same_with_links_and_without(self, build: Build) -> None:
        """PostgreSQL itself formats items without links; unusual items are not lost."""
        app = build(keep_old_files="true", extensions="any")
        attach(app, record("again"), b"12", "old.txt")
        app.delete(record("again"), headers=ALICE)
        attach(app, record("again"), b"1", "new.txt")
        replaced = ("replaced", "also-replaced", "replaced-too")
        for version in range(4):
            for name in replaced:
                attach(app, record(name), b"1" * (version + 2))
        before = {}
        for name, changes in UNUSUAL.items():
            attach(app, record(name), b"1234", '\u00e9\U0001f600".png')
            before[name] = attachment_of(app, record(name))
            changed = {**before[name], **changes}
            kept = {key: value for key, value in changed.items() if value is not MISSING}
            write_behind(app, record(name), {"attachment": kept})
        with_links = listed(app, "_urls=600")
        for item in with_links:
            del item["url"], item["url_expires_at"]
        items = listed(app)
        assert items == with_links
        assert repr(items) == repr(with_links)  # In Python, 4 == 4.0.
        found = {item["id"]: item for item in items}
        assert found.keys() == {*UNUSUAL, *replaced, "again"} - {"no-size"}
        for name in replaced:
            assert found[name]["size"] == 5
            assert found[name]["key"] == key_of(attachment_of(app, record(name)))
        for name, attachment in before.items():
            write_behind(app, record(name), {"attachment": attachment})

    @pytest.mark.parametrize("links", ["", "_urls=600"])
    def test_only_what_is_known(self, app: Any, links: str) -> None:
        attach(app)
        (link,) = links_of(app)
        put = app.app.registry.attachment_links._put
        with transaction.manager:
            put(replace(link, created=0))  # As in rows of earlier releases.
        (item,) = listed(app, links)
        assert (item["key"], item["created"]) == (link.key, None)
        with transaction.manager:
            put(replace(link, ended="record"))
        (item,) = listed(app, links)
        assert (item["key"], item["created"]) == (None, None)
        with transaction.manager:
            put(link)

    def test_nothing(self, app: Any) -> None:
        response = app.get(URL, headers=ALICE)
        assert response.json == {"data": []}
        assert "Next-Page" not in response.headers

    def test_page_by_page(self, app: Any) -> None:
        names = fill(app, 5)
        found, url = [], f"{URL}?_limit=2&min_size=2&like_filename=d%2A"
        for page in (1, 2):
            response = app.get(url, headers=ALICE)
            found += [item["id"] for item in response.json["data"]]
            if page == 1:
                url = response.headers["Next-Page"].removeprefix("http://localhost")
        assert "Next-Page" not in response.headers
        assert found == names[:4]

    def test_pages_while_others_write(self, app: Any) -> None:
        """Each record is on one page, unless it is written in between."""
        names = fill(app, 4)
        first = app.get(f"{URL}?_limit=2", headers=ALICE)
        attach(app, record("new"))
        app.delete(record("r3"), headers=ALICE)
        url = first.headers["Next-Page"].removeprefix("http://localhost")
        rest = app.get(url, headers=ALICE)
        found = [item["id"] for page in (first, rest) for item in page.json["data"]]
        assert found == names
        assert "Next-Page" not in rest.headers

    def test_a_page_ends_where_the_server_says(self, build: Build) -> None:
        app = build({"paginate_by": "2"})
        fill(app, 3)
        for query in ("", "_limit=1000000000000000000"):
            response = app.get(f"{URL}?{query}", headers=ALICE)
            assert len(response.json["data"]) == 2
            assert "Next-Page" in response.headers

    def test_a_page_is_as_long_as_asked_for(
        self, app: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(list_queries, "PAGE", 2)
        monkeypatch.setattr(list_queries, "MAX_PAGE", 3)
        fill(app, 5)
        for query, length in (("", 2), ("_limit=1", 1), ("_limit=3", 3), ("_limit=9", 3)):
            assert len(listed(app, query)) == length

    def test_in_the_default_bucket(self, app: Any) -> None:
        url = f"{DEFAULT}/attachments"
        app.get(url, headers=ALICE, status=404)
        names = fill(app, 3, DEFAULT)
        response = app.get(f"{url}?_limit=2", headers=ALICE)
        assert [item["id"] for item in response.json["data"]] == names[:2]
        bucket = app.get("/", headers=ALICE).json["user"]["bucket"]
        assert response.json["data"][0]["record"].startswith(f"/buckets/{bucket}/")
        following = response.headers["Next-Page"].removeprefix("http://localhost")
        assert [item["id"] for item in app.get(following, headers=ALICE).json["data"]] == ["r0"]
        app.get(url, headers=ANONYMOUS, status=401)

    def test_in_a_batch(self, app: Any) -> None:
        names = fill(app, 2)
        requests = [
            {"method": "GET", "path": f"/v1{URL}?_limit=1"},
            {"method": "HEAD", "path": f"/v1{URL}"},
            {"method": "GET", "path": f"/v1{DEFAULT}/attachments"},
            {"method": "GET", "path": f"/v1{URL}?gt_size=many"},
        ]
        body = {"requests": requests}
        first, head, missing, bad = app.post_json("/batch", body, headers=ALICE).json["responses"]
        assert [item["id"] for item in first["body"]["data"]] == names[:1]
        assert first["headers"]["Next-Page"].startswith(f"http://localhost/v1{URL}?")
        assert head["headers"]["Total-Objects"] == "2"
        assert (missing["status"], bad["status"]) == (404, 400)
        strangers = app.post_json("/batch", body, headers=BOB).json["responses"]
        assert [response["status"] for response in strangers] == [403, 403, 404, 403]


# Queries, and the ids of the records that they select.
SELECTED = [
    ("filename=doc1.txt", "small"),
    ('filename="doc1.txt"', "small"),
    ("filename=2025", "number"),
    ("filename=DOC1.txt", ""),
    ("not_filename=doc1.txt", "large number picture"),
    ("like_filename=doc*", "large small"),
    ("like_filename=DOC", "large small"),
    ("like_filename=*.txt", "large small"),
    ("like_filename=a_b%25c", "picture"),
    ("like_filename=a%25", ""),
    ("like_filename=d_c", ""),
    ("like_filename=d.c", ""),
    ("like_filename=2(", "large"),
    ("like_filename=[", ""),
    ("like_filename=%5C", ""),
    ("like_filename=", "large number picture small"),
    ("like_filename=***", "large number picture small"),
    ("in_filename=doc1.txt,2025", "number small"),
    ("exclude_filename=doc1.txt,2025", "large picture"),
    ("mimetype=image/png", "picture"),
    ("like_mimetype=image/*", "picture"),
    (f"hash={sha256(b'x')}", "small"),
    ("size=20", "picture"),
    ('size="20"', "picture"),
    ("gt_size=4", "large picture"),
    ("min_size=4", "large number picture"),
    ("lt_size=20", "number small"),
    ("max_size=20", "number picture small"),
    ("in_size=1,4", "number small"),
    ("gt_size=4&lt_size=300", "picture"),
    ("min_size=2&min_size=5", "large picture"),
    ("in_id=small,large,none", "large small"),
    ("id=small", "small"),
    ("like_id=LAR", "large"),
    ("state=current", "large number picture small"),
    ("_since=0", "large number picture small"),
    ("_before=1", ""),
]

REFUSED = [
    "gt_size=many",
    "size=-1",
    "size=1.5",
    "size=NaN",
    "gt_size=Infinity",
    "gt_size=1e999",
    f"gt_size={'9' * 400}",
    f"size={'9' * 5000}",
    "size=%D9%A3",
    "size=null",
    "size=true",
    "size=[1]",
    "in_size=1,,2",
    "like_size=1",
    "has_size=true",
    "contains_filename=a",
    "contains_any_size=[1]",
    "filename=%00",
    'filename="%5Cu0000"',
    'filename="%5Cud800"',
    'like_filename="%5Cud800"',
    "in_filename=a,%00",
    "%00=1",
    "like_%00=1",
    "filename=%ff",
    "%ff=1",
    "like_filename=*a*a*a*a*a*a*",
    "like_last_modified=1",
    "_since=soon",
    "_since=-1",
    f"_since={'9' * 30}",
    "_before=true",
    "in_last_modified=a",
    "_limit=0",
    "_limit=-1",
    "_limit=ten",
    f"_limit={'9' * 5000}",
    "_token=forged",
    "_token=%00",
    "_token=-1",
    f"_token={'9' * 30}",
    "_token=eyJsYXN0X29iamVjdCI6IHt9fQ==",
    "_sort=size",
    "_fields=id",
    "_urls=0",
    "unknown=1",
    "key=a",
    "created=1",
    "gt_created=1",
    "attachment.size=1",
    "size.x=1",
    "=1",
    "state=deleted",
    "state=",
]


@ON_EACH_DATABASE
class TestFilters:
    @pytest.fixture
    def app(self, build: Build) -> Any:
        app = build(extensions="any")
        for name, content, filename in (
            ("small", b"x", "doc1.txt"),
            ("picture", b"x" * 20, "a_b%c.png"),
            ("large", b"x" * 300, "Doc2(.txt"),
            ("number", b"x" * 4, "2025"),
        ):
            attach(app, record(name), content, filename)
        put(app, record("bare"))
        return app

    def test_select(self, app: Any) -> None:
        for query, expected in SELECTED:
            assert sorted(ids(app, query)) == expected.split(), query
            head = app.head(f"{URL}?{query}", headers=ALICE)
            assert head.headers["Total-Objects"] == f"{len(expected.split())}", query

    def test_the_time_of_a_change(self, app: Any) -> None:
        everything = listed(app)
        for newer, item in enumerate(everything):
            when = item["last_modified"]
            assert listed(app, f"_since={when}") == everything[:newer]
            assert listed(app, f'_since="{when}"') == everything[:newer]
            assert listed(app, f"_before={when}") == everything[newer + 1 :]
            assert listed(app, f"last_modified={when}") == [item]
            assert listed(app, f"min_last_modified={when}") == everything[: newer + 1]

    def test_a_location(self, app: Any) -> None:
        location = attachment_of(app, record("small"))["location"]
        assert ids(app, f"location={quote(location)}") == ["small"]

    def test_refuse(self, app: Any) -> None:
        for query in REFUSED:
            errno, _ = error(app.get(f"{URL}?{query}", headers=ALICE, status=400))
            assert errno == 107, query
            if not query.startswith("_token"):  # It means nothing to HEAD.
                app.head(f"{URL}?{query}", headers=ALICE, status=400)
            app.get(f"{COLLECTION}/attachments.zip?{query}", headers=ALICE, status=400)


@ON_EACH_DATABASE
class TestTotals:
    def test_on_head_only(self, app: Any) -> None:
        fill(app, 4)
        put(app, record("bare"))
        response = app.head(f"{URL}?_limit=1", headers=ALICE)
        assert response.headers["Total-Objects"] == response.headers["Total-Records"] == "4"
        assert response.headers["Total-Bytes"] == "10"
        assert response.body == b""
        assert not {name for name in app.get(URL, headers=ALICE).headers if "Total" in name}

    def test_of_what_is_selected(self, app: Any) -> None:
        fill(app, 4)
        response = app.head(f"{URL}?gt_size=2", headers=ALICE)
        assert (response.headers["Total-Objects"], response.headers["Total-Bytes"]) == ("2", "7")

    def test_of_nothing(self, app: Any) -> None:
        response = app.head(URL, headers=ALICE)
        assert (response.headers["Total-Objects"], response.headers["Total-Bytes"]) == ("0", "0")

    def test_of_sizes_that_are_none(self, app: Any) -> None:
        fill(app, 2)
        write_behind(app, record("odd"), {"attachment": {"size": "large"}})
        response = app.head(URL, headers=ALICE)
        assert (response.headers["Total-Objects"], response.headers["Total-Bytes"]) == ("3", "3")
        assert [item["size"] for item in listed(app)] == ["large", 2, 1]
        write_behind(app, record("odd"), {})


@ON_EACH_DATABASE
class TestTimestamps:
    def test_are_those_of_the_records(self, app: Any) -> None:
        fill(app, 2)
        response = app.get(URL, headers=ALICE)
        etag = app.get(f"{COLLECTION}/records", headers=ALICE).headers["ETag"]
        assert response.headers["ETag"] == etag == f'"{response.json["data"][0]["last_modified"]}"'
        for method in ("GET", "HEAD"):
            headers = {**ALICE, "If-None-Match": etag}
            app.request(URL, method=method, headers=headers, status=304)
        attach(app, record("new"))
        assert ids(app, f"_since={etag[1:-1]}") == ["new"]
        app.get(URL, headers={**ALICE, "If-None-Match": etag}, status=200)

    def test_private_answers_stay_with_their_reader(self, app: Any) -> None:
        for headers, status in ((ALICE, 200), (ANONYMOUS, 401)):
            response = app.get(URL, headers=headers, status=status)
            assert "Authorization" in response.headers["Vary"]
            assert "public" not in response.headers.get("Cache-Control", "")

    @ON_MEMORY
    def test_other_origins_may_read_them(self, app: Any) -> None:
        response = app.get(URL, headers={**ALICE, "Origin": "https://page.example.com"})
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        exposed = response.headers["Access-Control-Expose-Headers"]
        for name in ("Next-Page", "ETag", "Total-Bytes", "Total-Objects", "Total-Records"):
            assert name in exposed

    def test_of_an_empty_collection_of_a_readonly_server(self, build: Build) -> None:
        build()
        app = build({"readonly": "true"})
        assert app.get(URL, headers=ALICE, status="*").status_code in (200, 401, 403)


# Who may do what: the permission, the object that it is granted on, and the statuses of the
# listing, of kept files, of the archive and of the rules.
RIGHTS = [
    ("nobody", "", (401, 401, 401, 401)),
    ("stranger", "", (403, 403, 403, 403)),
    ("read", RECORD, (403, 403, 403, 403)),
    ("write", RECORD, (403, 403, 403, 403)),
    ("record:create", COLLECTION, (403, 403, 403, 200)),
    ("read", COLLECTION, (200, 403, 200, 200)),
    ("write", COLLECTION, (200, 200, 200, 200)),
    ("collection:create", BUCKET, (403, 403, 403, 403)),
    ("read", BUCKET, (200, 403, 200, 200)),
    ("write", BUCKET, (200, 200, 200, 200)),
]
URLS = (URL, f"{URL}?state=kept", f"{COLLECTION}/attachments.zip", f"{URL}/rules")


@ON_DATABASES
class TestPermissions:
    @pytest.mark.parametrize(("permission", "uri", "expected"), RIGHTS)
    def test_are_kinto_s(
        self, app: Any, permission: str, uri: str, expected: tuple[int, ...]
    ) -> None:
        attach(app)
        headers = ANONYMOUS if permission == "nobody" else BOB
        if uri:
            body = {"permissions": {permission: [userid(app, BOB)]}}
            app.patch_json(uri, body, headers=ALICE)
        for url, status in zip(URLS, expected, strict=True):
            for method in ("GET", "HEAD"):
                app.request(url, method=method, headers=headers, status=status)
        requests = [{"method": "HEAD", "path": f"/v1{url}"} for url in URLS]
        answers = app.post_json("/batch", {"requests": requests}, headers=headers).json
        assert [answer["status"] for answer in answers["responses"]] == [*expected]

    @pytest.mark.parametrize(
        "collection", [f"{BUCKET}/collections/none", "/buckets/no/collections/c"]
    )
    def test_collections_that_are_not_there_as_kinto_does(self, app: Any, collection: str) -> None:
        for headers in (ALICE, BOB, ANONYMOUS):
            kinto = app.get(f"{collection}/records", headers=headers, status="4*")
            for url in URLS:
                url = url.replace(COLLECTION, collection)
                response = app.get(url, headers=headers, status="4*")
                assert response.status_code == kinto.status_code
                assert response.json["errno"] == kinto.json["errno"]

    def test_readers_of_the_bucket_do_not_see_kept_files_of_no_collection(self, app: Any) -> None:
        app.patch_json(BUCKET, {"permissions": {"read": [userid(app, BOB)]}}, headers=ALICE)
        app.get(f"{BUCKET}/collections/none/attachments?state=kept", headers=BOB, status=404)

    @ON_MEMORY
    def test_of_the_settings(self, build: Build) -> None:
        app = build({"record_read_principals": "system.Everyone"})
        attach(app)
        assert ids(app, headers=ANONYMOUS) == ["r"]
        app.get(f"{URL}?state=kept", headers=ANONYMOUS, status=401)

    @ON_MEMORY
    def test_ids_that_are_none(self, app: Any) -> None:
        for url in (
            "/buckets/b/collections/%C3%B6/attachments",
            f"/buckets/{'x' * 300}/collections/c/attachments",
        ):
            app.get(url, headers=ALICE, status="4*")

    @ON_MEMORY
    def test_a_forged_host(self, app: Any) -> None:
        fill(app, 2)
        headers = {**ALICE, "Host": "evil.example.com/x?"}
        app.get(f"{URL}?_limit=1", headers=headers, status=400)


@ON_EACH_DATABASE
class TestKept:
    @pytest.fixture
    def app(self, build: Build) -> Any:
        return build(keep_old_files="true")

    def test_replaced_and_deleted_ones(self, app: Any) -> None:
        first = attach(app, content=b"1").json
        attach(app, content=b"22")
        attach(app, record("gone"), b"333")
        app.delete(record("gone"), headers=ALICE)
        found = {item["id"]: item for item in listed(app, "state=kept")}
        assert {name: item["size"] for name, item in found.items()} == {"r": 1, "gone": 3}
        kept = found["r"]
        assert kept["key"] == key_of(first)
        assert {name: kept[name] for name in first} == first
        assert (kept["record"], kept["state"]) == (RECORD, "kept")
        assert kept["created"] > 0
        # Files of an ended life cannot be read.
        assert found["gone"]["location"] is None
        assert ids(app) == ["r"]
        head = app.head(f"{URL}?state=kept", headers=ALICE)
        assert (head.headers["Total-Objects"], head.headers["Total-Bytes"]) == ("2", "4")

    def test_page_by_page(self, app: Any) -> None:
        for number in range(6):
            attach(app, content=b"x" * (number + 1))
        url, sizes = f"{URL}?state=kept&_limit=2", []
        for _ in range(3):
            response = app.get(url, headers=ALICE)
            sizes += [item["size"] for item in response.json["data"]]
            url = response.headers.get("Next-Page", "").removeprefix("http://localhost")
        assert not url
        assert sorted(sizes) == [1, 2, 3, 4, 5]

    def test_shared_ones_page_by_page(self, app: Any) -> None:
        """The links of one file have the same id."""
        attach(app)
        (link,) = links_of(app)
        links = app.app.registry.attachment_links
        uris = [record(f"copy{number}") for number in range(4)]
        with transaction.manager:
            for uri in uris:
                links.share(replace(link, record=uri, state="kept"))
        url, found = f"{URL}?state=kept&_limit=1", []
        while url:
            response = app.get(url, headers=ALICE)
            found += [item["record"] for item in response.json["data"]]
            url = response.headers.get("Next-Page", "").removeprefix("http://localhost")
        assert sorted(found) == uris

    def test_not_those_of_other_collections(self, app: Any) -> None:
        """In PostgreSQL's LIKE, ``_`` matches any character."""
        put(app, f"{BUCKET}/collections/a_b")
        put(app, f"{BUCKET}/collections/axb")
        for content in (b"1", b"2"):
            attach(app, f"{BUCKET}/collections/axb/records/r", content)
        assert listed(app, "state=kept", url=f"{BUCKET}/collections/a_b/attachments") == []
        head = app.head(f"{BUCKET}/collections/a_b/attachments?state=kept", headers=ALICE)
        assert head.headers["Total-Objects"] == "0"
        for content in (b"3", b"4"):
            attach(app, f"{BUCKET}/collections/a_b/records/r", content)
        page = app.get(f"{BUCKET}/collections/a_b/attachments?state=kept&_limit=1", headers=ALICE)
        assert [item["size"] for item in page.json["data"]] == [1]
        assert "Next-Page" not in page.headers

    @pytest.mark.parametrize("parent", [COLLECTION, BUCKET])
    def test_not_those_of_a_namesake(self, app: Any, parent: str) -> None:
        attach(app)
        attach(app, content=b"new")
        app.delete(parent, headers=ALICE)
        put_collection(app)
        assert listed(app, "state=kept") == []

    def test_not_those_of_who_knows_which_life(self, app: Any) -> None:
        attach(app)
        attach(app, content=b"new")
        links = app.app.registry.attachment_links
        (old,) = [link for link in links_of(app) if link.state == "kept"]
        with transaction.manager:
            links._put(replace(old, life=""))
        assert listed(app, "state=kept") == []
        assert app.head(f"{URL}?state=kept", headers=ALICE).headers["Total-Objects"] == "0"

    @pytest.mark.parametrize(
        "query",
        [
            "_token=1",
            "_token=%00",
            f"_token={'a' * 64}",
            f"_token={'a' * 64}~",
            f"_token={'a' * 64}~a/b",
            f"_token={'A' * 64}~r",
            "gt_size=1",
            "_since=1",
            "state=current",
            "_limit=0",
        ],
    )
    def test_refuse(self, app: Any, query: str) -> None:
        app.get(f"{URL}?state=kept&{query}", headers=ALICE, status=400)

    def test_a_forged_token_shows_nothing_else(self, app: Any) -> None:
        attach(app)
        attach(app, content=b"new")
        token = f"{'0' * 64}~{'z' * 200}"
        (item,) = listed(app, f"state=kept&_token={token}")
        assert item["record"] == RECORD


@ON_POSTGRESQL
def test_are_the_same_with_a_version_of_kinto_that_was_not_tested(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lists() -> list[Any]:
        head = app.head(URL, headers=ALICE)
        return [
            listed(app),
            {name: head.headers[name] for name in head.headers if "Total" in name},
        ]

    fill(app, 3)
    expected = lists()
    assert expected[1]
    assert [each for each in statements(app, lists) if OWN_SQL.search(each)]
    monkeypatch.setattr("kinto_attachment.index.tested_versions.TESTED", ())
    assert lists() == expected
    assert not [each for each in statements(app, lists) if OWN_SQL.search(each)]
