"""A page of another origin uploads, reads the headers it needs, and downloads."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.application import (
    ALICE,
    DEFAULT,
    RECORD,
    attach,
    attachment_of,
    put_raw,
)
from tests.support.backends import ON_MEMORY, Build

pytestmark = ON_MEMORY

PAGE = "https://page.example.com"
ORIGIN = {"Origin": PAGE}
URL = f"{RECORD}/attachment"


def exposed(response: Any) -> set[str]:
    assert response.headers["Access-Control-Allow-Origin"] in ("*", PAGE)
    header = response.headers["Access-Control-Expose-Headers"]
    return {name.strip().lower() for name in header.split(",")}


@pytest.mark.parametrize("record", [RECORD, DEFAULT])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "GET"])
def test_preflight(app: Any, record: str, method: str) -> None:
    headers = {
        **ORIGIN,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization, content-type, if-match, content-digest",
    }
    response = app.options(f"{record}/attachment", headers=headers, status=200)
    assert response.headers["Access-Control-Allow-Origin"] in ("*", PAGE)
    allowed = response.headers["Access-Control-Allow-Methods"].replace(" ", "").split(",")
    assert {"GET", "HEAD", "POST", "PUT", "DELETE"} <= set(allowed)
    named = response.headers["Access-Control-Allow-Headers"].lower()
    for name in ("authorization", "content-type", "if-match"):
        assert name in named


def test_preflight_of_a_location(app: Any) -> None:
    location = attach(app).json["location"]
    headers = {**ORIGIN, "Access-Control-Request-Method": "GET"}
    response = app.options(location, headers=headers, status=200)
    assert response.headers["Access-Control-Allow-Origin"] in ("*", PAGE)


@pytest.mark.parametrize("upload", [attach, put_raw])
@pytest.mark.parametrize("record", [RECORD, DEFAULT])
def test_an_upload_shows_where_it_went(app: Any, upload: Any, record: str) -> None:
    response = upload(app, record, headers={**ALICE, **ORIGIN})
    assert {"location", "etag", "last-modified"} <= exposed(response)


@pytest.mark.parametrize("record", [RECORD, DEFAULT])
def test_a_download_shows_what_it_is(app: Any, record: str) -> None:
    attach(app, record)
    for url in (f"{record}/attachment", attachment_of(app, record)["location"]):
        response = app.get(url, headers={**ALICE, **ORIGIN})
        assert {
            "etag",
            "last-modified",
            "content-disposition",
            "content-range",
            "accept-ranges",
            "repr-digest",
        } <= exposed(response)
        assert response.headers.getall("Access-Control-Allow-Origin") == [
            response.headers["Access-Control-Allow-Origin"]
        ]


@pytest.mark.parametrize("record", [RECORD, DEFAULT])
def test_refusals_can_be_read_too(app: Any, record: str) -> None:
    headers = {**ALICE, **ORIGIN}
    for response in (
        attach(app, record, headers=ORIGIN, status=401),
        attach(app, record, filename="a.exe", headers=headers, status=400),
        attach(app, record, data="nope", headers=headers, status=400),
        put_raw(app, record, filename=None, headers=headers, status=400),
        app.get(f"{record}x/attachment", headers=headers, status=404),
        app.delete(f"{record}x/attachment", headers=headers, status=404),
        app.get("/attachments/ghost.txt", headers=headers, status=404),
        attach(app, record, headers={**headers, "If-Match": '"1"'}, status=412),
    ):
        assert response.headers["Access-Control-Allow-Origin"] in ("*", PAGE)
        assert {"retry-after", "backoff"} <= exposed(response)


def test_of_origins_that_kinto_does_not_know(build: Build) -> None:
    app = build({"cors_origins": "https://known.example.com"})
    response = attach(app, headers={**ALICE, "Origin": "https://known.example.com"})
    assert response.headers["Access-Control-Allow-Origin"] == "https://known.example.com"
    response = attach(app, headers={**ALICE, **ORIGIN}, status="*")
    assert response.headers.get("Access-Control-Allow-Origin") != PAGE


def test_backoff_is_kinto_s(build: Build) -> None:
    app = build({"backoff": "12"})
    assert attach(app).headers["Backoff"] == "12"
    assert app.get(URL, headers=ALICE).headers["Backoff"] == "12"
