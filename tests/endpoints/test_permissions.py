"""The permissions, and their objects, that endpoints for versions, copies and lists need."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    BUCKET,
    COLLECTION,
    attach,
    userid,
)
from tests.support.backends import ON_DATABASES, Build

# The precondition fails for permitted users, so that nothing changes.
WRONG = {"If-Match": '"1"'}
FORBIDDEN, OK, ABSENT, FAILED, MADE = 403, 200, 404, 412, 201
# Method and path of each endpoint, with a body and headers.
ENDPOINTS: dict[str, tuple[str, str, Any, dict[str, str]]] = {
    "versions": ("GET", "{record}/attachment/versions", None, {}),
    "earlier file": ("HEAD", "{record}/attachment/versions/{version}", None, {}),
    "restore": ("POST", "{record}/attachment/versions/{version}/restore", {}, WRONG),
    "delete": ("DELETE", "{record}/attachment/versions/{version}", None, WRONG),
    "copy over": ("POST", "{record}/attachment", {"copy_from": "{source}"}, WRONG),
    "copy": ("POST", "{record}2/attachment", {"copy_from": "{source}"}, WRONG),
    "copy to a new one": ("POST", "{collection}/attachments", {"copy_from": "{source}"}, {}),
    "list": ("HEAD", "{collection}/attachments", None, {}),
    "kept": ("GET", "{collection}/attachments?state=kept", None, {}),
    "archive": ("HEAD", "{collection}/attachments.zip", None, {}),
    "rules": ("GET", "{collection}/attachments/rules", None, {}),
}
NO = dict.fromkeys(ENDPOINTS, FORBIDDEN)
READS = {"versions": OK, "earlier file": ABSENT}
CREATES = {"copy": FAILED, "copy to a new one": MADE, "rules": OK}
WRITES = {"versions": OK, "earlier file": OK} | dict.fromkeys(
    ("restore", "delete", "copy over"), FAILED
)
LISTS = dict.fromkeys(("list", "archive", "rules"), OK)
# The permission, its object, and what becomes possible.
GRANTS: dict[str, tuple[str, str, dict[str, int]]] = {
    "stranger": ("", "", {}),
    "reader of the record": ("read", "record", READS),
    "writer of the record": ("write", "record", WRITES),
    "creator of records": ("record:create", "collection", CREATES),
    "reader of the collection": ("read", "collection", READS | LISTS),
    "writer of the collection": (
        "write",
        "collection",
        WRITES | CREATES | LISTS | {"kept": OK},
    ),
    "creator of collections": ("collection:create", "bucket", {}),
    "reader of the bucket": ("read", "bucket", READS | LISTS),
    "writer of the bucket": ("write", "bucket", WRITES | CREATES | LISTS | {"kept": OK}),
}


@pytest.fixture(params=["bucket", "default bucket"])
def names(request: pytest.FixtureRequest, build: Build) -> dict[str, Any]:
    """A record of alice's with an earlier file, and one with a file that everybody may read."""
    app = build(keep_old_files="true")
    if request.param == "bucket":
        bucket, collection = BUCKET, COLLECTION
    else:
        app.put("/buckets/default/collections/c", headers=ALICE)
        bucket = f"/buckets/{app.get('/buckets/default', headers=ALICE).json['data']['id']}"
        collection = f"{bucket}/collections/c"
    record, source = f"{collection}/records/r", f"{collection}/records/source"
    version = attach(app, record, b"one").headers["Attachment-Version"]
    attach(app, record, b"two")
    attach(app, source, b"of the source")
    everyone = {"permissions": {"read": ["system.Everyone"]}}
    app.patch_json(source, everyone, headers=ALICE)
    return locals()


def grant(names: dict[str, Any], permission: str, where: str) -> None:
    if permission:
        app = names["app"]
        body = {"permissions": {permission: [userid(app, BOB)]}}
        app.patch_json(names[where], body, headers=ALICE)


def asked(names: dict[str, Any], endpoint: str) -> tuple[str, str, Any, dict[str, str]]:
    method, path, body, headers = ENDPOINTS[endpoint]
    filled = None if body is None else {key: each.format(**names) for key, each in body.items()}
    return method, path.format(**names), filled, headers


def status_of(names: dict[str, Any], endpoint: str, headers: dict[str, str]) -> int:
    method, path, body, also = asked(names, endpoint)
    app = names["app"]
    options: Any = {"headers": {**headers, **also}, "status": "*"}
    if body is not None:
        return int(app.post_json(path, body, **options).status_int)
    return int(app.request(path, method=method, **options).status_int)


def statuses_in_a_batch(names: dict[str, Any], headers: dict[str, str]) -> dict[str, int]:
    requests = []
    for endpoint in ENDPOINTS:
        method, path, body, also = asked(names, endpoint)
        part = {"method": method, "path": f"/v1{path}", "headers": also}
        requests.append(part if body is None else {**part, "body": body})
    answer = names["app"].post_json("/batch", {"requests": requests}, headers=headers)
    found = [part["status"] for part in answer.json["responses"]]
    return dict(zip(ENDPOINTS, found, strict=True))


@ON_DATABASES
class TestPermissions:
    @pytest.mark.parametrize("user", GRANTS)
    def test_of(self, names: dict[str, Any], user: str) -> None:
        permission, where, expected = GRANTS[user]
        grant(names, permission, where)
        found = {each: status_of(names, each, BOB) for each in ENDPOINTS}
        assert found == NO | expected
        assert statuses_in_a_batch(names, BOB) == NO | expected

    def test_of_nobody(self, names: dict[str, Any]) -> None:
        found = {each: status_of(names, each, ANONYMOUS) for each in ENDPOINTS}
        assert found == dict.fromkeys(ENDPOINTS, 401)
        assert statuses_in_a_batch(names, ANONYMOUS) == found
