"""Downloads that are redirected to a bucket, with the CORS rules of docs/storage.rst."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.support import live
from tests.support.application import ALICE, sha256
from tests.support.browser import Pages, fetch, png, put_rules, show, upload, wait
from tests.support.services import S3

SECRET = {"headers": ALICE}


@pytest.fixture(scope="module")
def bucket(seaweedfs: S3) -> str:
    return seaweedfs.create_bucket()


@pytest.fixture(scope="module")
def server(seaweedfs: S3, bucket: str) -> Iterator[live.Server]:
    with live.kinto(seaweedfs.options(bucket)) as server:
        yield server


@pytest.fixture
def rules(seaweedfs: S3, bucket: str) -> Any:
    """Set the rules of the page, with changes."""
    return partial(put_rules, seaweedfs, bucket)


def test_scripts_read_files_of_the_bucket(page: Any, server: live.Server, rules: Any) -> None:
    rules()
    attachment = upload(server, "docs/read", b"Hello!\n", "hello.txt")
    for url in (attachment["url"], attachment["location"]):
        answer = fetch(page, url, **SECRET)
        assert (answer["status"], answer["text"]) == (200, "Hello!\n")
        assert "hello.txt" in answer["headers"]["content-disposition"]
        assert answer["headers"]["etag"] != f'"{sha256(b"Hello!")}"'  # The bucket's own ETag.
    part = fetch(page, attachment["url"], headers={**ALICE, "Range": "bytes=1-2"})
    assert (part["status"], part["text"]) == (206, "el")
    assert part["headers"]["content-range"] == "bytes 1-2/7"


def test_a_rule_for_one_origin_refuses_pages_of_it(
    page: Any, pages: Pages, server: live.Server, rules: Any
) -> None:
    origins: list[str] = []
    session = page.context.new_cdp_session(page)
    session.on(
        "Network.requestWillBeSentExtraInfo",
        lambda event: origins.append(event["headers"].get("Origin")),
    )
    session.send("Network.enable")
    rules(AllowedOrigins=[pages.origin])
    attachment = upload(server, "docs/refused", b"Hello!\n", "hello.txt")
    assert "Failed to fetch" in fetch(page, attachment["url"], **SECRET)
    # Of the request to the bucket. The browser reports requests later than the page.
    wait(page, lambda: "null" in origins, lambda: origins)
    assert pages.origin in origins


def test_pictures_need_no_rules(
    page: Any, server: live.Server, seaweedfs: S3, bucket: str
) -> None:
    seaweedfs.client().delete_bucket_cors(Bucket=bucket)
    attachment = upload(server, "docs/shown", png(width=8), "a.png")
    with live.Client(server) as alice:
        body = '{"permissions": {"read": ["system.Everyone"]}}'
        path = attachment["url"].removeprefix(server.url).removesuffix("/attachment")
        json_type = {"Content-Type": "application/json"}
        assert alice.request("PATCH", path, body, json_type)[0] == 200
        owner = alice.request("GET", "/")[2]["user"]["bucket"]
    assert show(page, attachment["url"].replace("default", owner)) == 8
    assert show(page, attachment["location"]) == 8


def test_a_picture_does_not_spoil_the_script(page: Any, server: live.Server, rules: Any) -> None:
    rules()
    attachment = upload(server, "docs/both", png(width=9), "a.png")
    assert show(page, attachment["location"]) == 0  # Private.
    assert fetch(page, attachment["location"], **SECRET)["status"] == 200
