"""Pages of other origins read allowed files, regardless of the browser's cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import live
from tests.support.application import ALICE
from tests.support.browser import Pages, Traffic, fetch, png, show, upload

PNG = png(width=3)


@pytest.fixture
def location(public_server: live.Server, request: pytest.FixtureRequest) -> str:
    """The location of a public file that no other test has requested."""
    name = request.node.name.replace("[", "-").replace("]", "")
    return str(upload(public_server, f"docs/{name}", PNG, "a.png")["location"])


def test_a_script_reads_the_file_that_a_picture_has_shown(page: Any, location: str) -> None:
    traffic = Traffic(page)
    assert show(page, location) == 3
    answer = fetch(page, location)
    assert answer["status"] == 200
    assert answer["headers"]["etag"]
    traffic.are(location, 200)  # The second time, it came from the cache.


def test_a_picture_shows_the_file_that_a_script_has_read(page: Any, location: str) -> None:
    traffic = Traffic(page)
    assert fetch(page, location)["status"] == 200
    assert show(page, location) == 3
    traffic.are(location, 200)


def test_a_script_revalidates_and_reads_parts(page: Any, location: str) -> None:
    traffic = Traffic(page)
    assert show(page, location) == 3
    assert fetch(page, location, cache="no-cache")["status"] == 200
    traffic.are(location, 200, 304)
    part = fetch(page, location, headers={"Range": "bytes=1-3"}, cache="no-store")
    assert (part["status"], part["text"]) == (206, "PNG")
    assert part["headers"]["content-range"] == f"bytes 1-3/{len(PNG)}"


def test_two_origins_read_one_file(
    context: Any, page: Any, pages: Pages, other_pages: Pages, tmp_path: Path
) -> None:
    settings = {"kinto.cors_origins": f"{pages.origin} {other_pages.origin}"}
    attachment = {"base_path": str(tmp_path), "public": "true"}
    with live.kinto(attachment, settings=settings) as server:
        location = upload(server, "docs/r", PNG, "a.png")["location"]
        assert show(page, location) == 3
        assert fetch(page, location)["status"] == 200
        other = context.new_page()
        other.goto(f"{other_pages.origin}/page.html")
        assert fetch(other, location)["status"] == 200


def test_a_third_origin_reads_nothing(page: Any, other_pages: Pages, tmp_path: Path) -> None:
    settings = {"kinto.cors_origins": other_pages.origin}
    attachment = {"base_path": str(tmp_path), "public": "true"}
    with live.kinto(attachment, settings=settings) as server:
        location = upload(server, "docs/r", PNG, "a.png")["location"]
        assert "Failed to fetch" in fetch(page, location)


def test_refusals_in_the_default_bucket_can_be_read(page: Any, server: live.Server) -> None:
    attachment = upload(server, "docs/refusals", b"Hello!\n", "hello.txt")
    url = attachment["url"]
    assert fetch(page, url)["status"] == 401
    put = {"method": "PUT", "body": "x"}
    answer = fetch(page, f"{url}?filename=a.txt", **put, headers=ALICE | {"If-Match": '"1"'})
    assert answer["status"] == 412
    etag = fetch(page, url.removesuffix("/attachment"), headers=ALICE)["headers"]["etag"]
    assert answer["headers"]["etag"] == etag
    assert fetch(page, url.replace("refusals", "nothing"), headers=ALICE)["status"] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_preflights_let_pages_write(page: Any, server: live.Server, method: str) -> None:
    url = upload(server, f"docs/{method}", b"Hello!\n", "hello.txt")["url"]
    answer = fetch(page, f"{url}?filename=a.txt", method=method, headers=ALICE)
    assert answer["status"] in (200, 204, 400, 415)  # Answered, not blocked.


def test_a_private_picture_is_not_shown_and_asks_for_no_password(
    page: Any, server: live.Server
) -> None:
    attachment = upload(server, "docs/private", PNG, "a.png")
    for url in (attachment["location"], attachment["url"]):
        assert show(page, url) == 0
