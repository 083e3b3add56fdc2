"""``GET C/attachments/rules``: what a page checks before it sends a file."""

from __future__ import annotations

from typing import Any

from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    COLLECTION,
    attach,
    put,
    put_collection,
    userid,
)
from tests.support.backends import ON_MEMORY, Build

URL = f"{COLLECTION}/attachments/rules"


def rules(app: Any, url: str = URL) -> dict[str, Any]:
    found: dict[str, Any] = app.get(url, headers=ALICE).json["data"]
    return found


@ON_MEMORY
class TestRules:
    def test_are_the_settings(self, build: Build) -> None:
        app = build(
            max_size=10, min_size=2, extensions="txt+png", gzipped="true", content_encodings="gzip"
        )
        assert rules(app) == {
            "max_size": 10,
            "min_size": 2,
            "extensions": ["png", "txt"],
            "gzipped": True,
            "content_encodings": ["gzip"],
            "versions": False,
            "quota_bytes": 0,
            "used_bytes": None,
            "quota_files": 0,
            "used_files": None,
            "locked": False,
            "hold": 0,
            "direct": True,
            "resumable": [],  # The server compresses only whole files.
        }

    def test_by_default(self, app: Any) -> None:
        found = rules(app)
        assert (found["max_size"], found["min_size"], found["gzipped"]) == (0, 0, False)
        assert {"txt", "png"} <= set(found["extensions"])
        assert "exe" not in found["extensions"]
        assert found["resumable"] == ["tus/1.0.0", "ietf/8"]

    def test_with_quotas(self, build: Build) -> None:
        """The rules have the quota of the bucket or collection, whichever leaves less space."""
        app = build(**{"resources.b.quota_bytes": 30, "resources.b.c.quota_bytes": 25})
        names = ("quota_bytes", "used_bytes", "quota_files", "used_files")
        assert [rules(app)[name] for name in names] == [25, 0, 0, 0]
        other = f"{COLLECTION}2"
        put_collection(app, other)
        attach(app, content=b"x" * 10)
        attach(app, f"{other}/records/r", b"x" * 8)
        assert [rules(app)[name] for name in names] == [30, 18, 0, 2]
        head = app.head(f"{COLLECTION}/attachments", headers=ALICE).headers
        assert (head["Quota-Bytes"], head["Quota-Left"]) == ("30", "12")
        get = app.get(f"{COLLECTION}/attachments", headers=ALICE).headers
        assert "Quota-Left" not in get

    def test_without_quotas(self, app: Any) -> None:
        attach(app)
        head = app.head(f"{COLLECTION}/attachments", headers=ALICE).headers
        assert not {"Quota-Bytes", "Quota-Left"} & {*head}

    def test_of_the_collection(self, build: Build) -> None:
        app = build(
            **{"resources.b.max_size": 7, "resources.b.c.extensions": "any", "max_size": 9}
        )
        other = f"{COLLECTION}2"
        put_collection(app, other)
        assert (rules(app)["max_size"], rules(app)["extensions"]) == (7, [])
        assert rules(app, f"{other}/attachments/rules")["extensions"]

    def test_of_the_default_bucket(self, build: Build) -> None:
        app = build(**{"resources.default.max_size": 7})
        collection = "/buckets/default/collections/c"
        app.get(f"{collection}/attachments/rules", headers=ALICE, status=404)
        attach(app, f"{collection}/records/r", b"x")
        assert rules(app, f"{collection}/attachments/rules")["max_size"] == 7
        app.get(f"{collection}/attachments/rules", headers=ANONYMOUS, status=401)

    def test_for_those_who_may_only_create(self, app: Any) -> None:
        app.get(URL, headers=BOB, status=403)
        put(app, COLLECTION, permissions={"record:create": [userid(app, BOB)]})
        assert app.get(URL, headers=BOB).json["data"] == rules(app)

    def test_other_methods_are_kinto_s(self, app: Any) -> None:
        for method in ("post", "put", "patch", "delete"):
            for url in (URL, f"{COLLECTION}/attachments.zip"):
                response = getattr(app, f"{method}_json")(url, {}, headers=ALICE, status=405)
                assert response.json["errno"] == 115

    def test_pages_of_other_origins(self, app: Any) -> None:
        for url in (URL, f"{COLLECTION}/attachments.zip"):
            assert app.options(url, status=204).headers["Allow"] == "GET, HEAD, OPTIONS"
            response = app.get(url, headers={"Origin": "https://page.example.com"}, status=401)
            assert response.headers["Access-Control-Allow-Origin"] == "*"
