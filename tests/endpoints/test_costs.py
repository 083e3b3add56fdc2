"""The number of statements of requests: unused features cost nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.support import tus
from tests.support.application import (
    ALICE,
    BUCKET,
    COLLECTION,
    RECORD,
    attach,
    put_collection,
    put_raw,
)
from tests.support.backends import ON_MEMORY, ON_POSTGRESQL, Build
from tests.support.links import own_path
from tests.support.statements import counted

pytestmark = [ON_POSTGRESQL, pytest.mark.one_way]

URL = f"{RECORD}/attachment"
REQUESTS = {
    "upload": lambda app: attach(app, content=b"one"),
    "replacement": lambda app: put_raw(app, content=b"two"),
    "download": lambda app: app.get(URL, headers=ALICE),
    "deletion": lambda app: app.delete(URL, headers=ALICE),
    "upload again": lambda app: attach(app, content=b"three"),
    "record": lambda app: app.delete(RECORD, headers=ALICE),
}
PLAIN = {
    "upload": 9,
    "replacement": 10,
    "download": 4,
    "deletion": 23,
    "upload again": 9,
    "record": 20,
}
# The record's earlier life has four files; keeping one takes an update.
KEEPING = {**PLAIN, "replacement": 13, "deletion": 24, "record": 29}


def costs(app: Any, requests: Mapping[str, Callable[[Any], Any]] = REQUESTS) -> dict[str, int]:
    """The number of statements of each request. The first requests of a process need more."""
    for request in requests.values():
        request(app)
    found = {}
    for name, request in requests.items():
        with counted(app) as statements:
            request(app)
        found[name] = sum(statements.values())
    return found


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, PLAIN),
        ({"keep_old_files": "true"}, KEEPING),
        ({"keep_old_files": "true", "max_versions": "9"}, KEEPING),
    ],
    ids=["plain", "keeping", "limited"],
)
def test_of_requests_are_known(
    build: Build, settings: dict[str, str], expected: dict[str, int]
) -> None:
    assert costs(build(**settings)) == expected


# Kinto's own plugins and schemas read and write more.
BARE = {"experimental_collection_schema_validation": "false", "history.exclude_resources": BUCKET}


def test_of_uploads_are_few(build: Build) -> None:
    found = costs(build(BARE))
    assert (found["upload"], found["replacement"]) == (5, 6)


WITHOUT = {"data": {"title": "x"}}
# Only the statements of each request itself are counted, not those of its preparation.
MORE: dict[str, Callable[[Any], Any]] = {
    "upload": lambda app: attach(app),
    "put": lambda app: app.put_json(RECORD, WITHOUT, headers=ALICE),
    "upload again": lambda app: attach(app),
    "patch": lambda app: app.patch_json(RECORD, {"data": {"title": "y"}}, headers=ALICE),
    "batch": lambda app: app.post_json("/batch", {"requests": [DETACH]}, headers=ALICE),
    "third upload": lambda app: attach(app),
    "creation": lambda app: tus.create(app, 0),
    "records": lambda app: app.delete(f"{COLLECTION}/records", headers=ALICE),
    "upload to go": lambda app: attach(app),
    "collection": lambda app: app.delete(COLLECTION, headers=ALICE),
    "bucket": lambda app: app.delete(BUCKET, headers=ALICE),
    "bucket again": lambda app: put_collection(app),
}
DETACH = {"method": "DELETE", "path": f"/v1{URL}"}
EXPECTED = {
    "put": 22,
    "patch": 20,
    "batch": 23,
    "creation": 32,
    "records": 17,
    "collection": 24,
    "bucket": 26,
}


def test_of_other_requests_are_known(build: Build) -> None:
    found = costs(build(), MORE)
    assert {name: found[name] for name in EXPECTED} == EXPECTED


BELOW = "/buckets/default/collections/d"
DELETIONS: dict[str, Callable[[Any], Any]] = {
    "uploads": lambda app: [attach(app, f"{BELOW}/records/{each}") for each in "ab"],
    "record": lambda app: app.delete(f"{BELOW}/records/a", headers=ALICE),
    "records": lambda app: app.delete(f"{BELOW}/records", headers=ALICE),
    "no records": lambda app: app.delete(f"{BELOW}/records", headers=ALICE),
}
# Kinto asks whether the collection exists. The plugin reads it instead, for locks.
OF_DELETIONS = {"record": 23, "records": 20, "no records": 13}


def test_of_deletions_below_a_default_bucket_are_known(app: Any) -> None:
    found = costs(app, DELETIONS)
    assert {name: found[name] for name in OF_DELETIONS} == OF_DELETIONS


def test_of_links_are_known(build: Build) -> None:
    """A token replaces credentials and permissions: only the index is queried."""
    app = build()
    attach(app)
    made = app.get(f"{URL}/url", headers=ALICE).json["data"]["url"]
    requests: dict[str, Callable[[Any], Any]] = {
        "link": lambda app: app.get(f"{URL}/url", headers=ALICE),
        "download by link": lambda app: app.get(own_path(made)),
        "part by link": lambda app: app.get(own_path(made), headers={"Range": "bytes=0-1"}),
        "size by link": lambda app: app.head(own_path(made)),
    }
    found = costs(app, requests)
    assert found.pop("link") == 4
    assert set(found.values()) == {1}


def called(request: Callable[[], Any]) -> int:
    """How many functions a request calls, including those written in C."""
    count = 0

    def count_calls(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count_calls)
    try:
        request()
    finally:
        sys.setprofile(before)
    return count


@ON_MEMORY
def test_of_replacements_do_not_grow_with_the_attachments_in_memory(build: Build) -> None:
    app, more = build(BARE), 100
    found = []
    for count in (0, more):
        for number in range(count):
            attach(app, f"{COLLECTION}/records/r{number}")
        attach(app)
        put_raw(app)
        found.append(called(lambda: put_raw(app)))
    assert abs(found[1] - found[0]) < more / 2, "nothing is done for each of them"
