"""Requests generated from ``/v1/__api__``: it describes every answer, and none is a 5xx.

The requests are the same each time. The variable ``SCHEMATHESIS_EXAMPLES`` sets the number of
valid requests per operation; there are as many invalid ones. ``5000`` takes minutes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.support import sampling
from tests.support.application import (
    ALICE,
    BOB,
    CONTENT,
    Headers,
    attach,
    digest,
    key_of,
    put,
    put_collection_behind,
    sha256,
)
from tests.support.backends import ON_MEMORY, Build
from tests.support.description import (
    ARCHIVE,
    ATTACHMENT,
    ATTACHMENTS,
    FILE,
    RESTORE,
    RULES,
    VERSION,
    VERSIONS,
    described,
    only_ours,
)
from tests.support.snapshots import begin

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "6"))

# The answers that the requests of the table have to receive.
REACHED = {
    ("POST", ATTACHMENT): {200, 201, 400, 401, 403, 404, 412, 415},
    ("POST", ATTACHMENTS): {201, 400, 401, 403, 404, 412, 415},
    ("PUT", ATTACHMENT): {200, 201, 400, 401, 403, 404, 412, 415},
    ("DELETE", ATTACHMENT): {204, 400, 401, 403, 404, 412},
    ("GET", ATTACHMENT): {200, 206, 304, 400, 401, 403, 404, 412, 416},
    ("GET", ATTACHMENTS): {200, 304, 401, 403, 404},
    ("GET", ARCHIVE): {200, 401, 403, 404},
    ("GET", RULES): {200, 401, 403, 404},
    ("GET", VERSIONS): {200, 401, 403, 404},
    ("GET", VERSION): {200, 206, 304, 400, 401, 403, 404, 412, 416},
    ("DELETE", VERSION): {204, 400, 401, 403, 404, 409, 412},
    ("POST", RESTORE): {200, 201, 400, 401, 403, 404, 412},
    ("GET", FILE): {200, 206, 304, 404, 412, 416},
}

# Generated ids do not exist, and few generated headers are meaningful. In some of the requests,
# these values replace the generated ones.
PLACES = [
    {"bucket_id": bucket, "collection_id": collection, "id": record}
    for bucket, collection, record in (
        ("b", "c", "attached"),
        ("b", "c", "bare"),
        ("b", "c", "new"),
        ("b", "c", "n\u00f6"),
        ("b", "new", "new"),
        ("default", "c", "attached"),
        ("default", "new", "new"),
    )
]
USERS: list[Headers] = [ALICE, BOB, {}, {"Authorization": "Basic nonsense"}]
FILENAMES = ("a.txt", "тест.png", "a.exe", "\r\n.txt", "/", "")
TEXTS = ('{"n": 1}', '{"read": ["system.Everyone"]}', "[]", '{"attachment": {}}', "null", "{")
FORMS = [{}, *({name: text} for name in ("data", "permissions") for text in TEXTS)]
WRITING: list[Headers] = [
    {},
    {"If-Match": '"RECORD"'},
    {"If-Match": '"1"'},
    {"If-Match": '"HASH"'},
    {"If-None-Match": "*"},
    {"If-Match": "*", "If-None-Match": "*"},
    {"Content-Digest": f"sha-256=:{digest(CONTENT)}:"},
    {"Content-MD5": "nonsense"},
    {"Content-Disposition": "attachment; filename*=UTF-8''%e2%82%ac.txt"},
    {"Content-Disposition": "attachment; filename="},
    {"Content-Type": "multipart/form-data; boundary="},
    {"Content-Type": "application/json"},
    {"Content-Encoding": "gzip"},
    {"Accept": "text/html"},
]
READING: list[Headers] = [
    {},
    {"If-Match": '"HASH"'},
    {"If-Match": '"1"'},
    {"If-None-Match": "*"},
    {"If-None-Match": '"HASH"'},
    {"If-None-Match": '"RECORDS"'},
    {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"},
    {"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
    {"Range": "bytes=1-3"},
    {"Range": "bytes=-1", "If-Range": '"HASH"'},
    {"Range": "bytes=999-"},
    {"Range": "bytes=0-0,2-2"},
    {"Accept": "text/html"},
]


class Closing:
    """A WSGI application whose answers are read and closed, as by a server."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        answer = self.app(environ, start_response)
        try:
            return list(answer)
        finally:
            if hasattr(answer, "close"):
                answer.close()


@dataclass(frozen=True)
class Changes:
    """Replacements for generated values; None keeps the generated value."""

    place: dict[str, str] | None = None
    user: Headers = field(default_factory=dict)
    headers: Headers = field(default_factory=dict)
    filename: str | None = None
    form: dict[str, str] | None = None
    only_these: bool = False  # Leaves out generated headers.


def all_changes(method: str) -> Iterator[Changes]:
    """The table: each place with each header, each user, each name and each form.

    ``make tests`` uses every other header and user for each place, and the others for the next.
    """
    usual: dict[str, Any] = {"user": ALICE, "filename": "a.txt", "form": {}}
    one_in = sampling.one_in(2)
    for number, place in enumerate(PLACES):
        for headers in headers_of(method)[number % one_in :: one_in]:
            yield Changes(place, headers=headers, **usual)
        for user in USERS[1:][number % one_in :: one_in]:
            yield Changes(place, **{**usual, "user": user})
    for filename in FILENAMES if method == "PUT" else ():
        yield Changes(PLACES[0], **{**usual, "filename": filename})
    for form in FORMS if method == "POST" else ():
        yield Changes(PLACES[0], **{**usual, "form": form})


def some_changes(method: str) -> st.SearchStrategy[Changes]:
    return st.builds(
        Changes,
        place=st.sampled_from([*PLACES, None]),
        user=st.sampled_from([ALICE, ALICE, *USERS]),
        headers=st.sampled_from([{}, {}, *headers_of(method)]),
        filename=st.none() | st.sampled_from(FILENAMES),
        form=st.sampled_from([{}, {}, None, *FORMS]),
        only_these=st.booleans(),
    )


def headers_of(method: str) -> list[Headers]:
    return READING if method == "GET" else WRITING


class Server:
    """An application that is reset after each request that changed it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    @classmethod
    def of(cls, app: Any) -> Server:
        """The same server in all tests that share the application."""
        if not hasattr(app, "server"):
            app.server = cls(app)
        server: Server = app.server
        server.reset()
        return server

    def reset(self) -> None:
        self.versions: dict[tuple[str, str], str] = begin(self.app, self.make)

    def make(self, app: Any) -> dict[tuple[str, str], str]:
        """Create the objects; returns the versions by bucket and record."""
        put_collection_behind(app)
        versions = {}
        for bucket in ("b", "default"):
            records = f"/buckets/{bucket}/collections/c/records"
            versions[bucket, "new"] = self.attach(f"{records}/new")
            self.app.delete(f"{records}/new", headers=ALICE)
            versions[bucket, "attached"] = self.attach(f"{records}/attached")
            uploaded = attach(self.app, f"{records}/attached")
            versions[bucket, "current"] = uploaded.headers["Attachment-Version"]
            bare = put(self.app, f"{records}/bare")
            if bucket == "b":
                self.records = str(bare["data"]["last_modified"])
                self.key = key_of(uploaded.json)
                self.record = uploaded.headers["ETag"].strip('"')
        return versions

    def attach(self, record: str) -> str:
        return str(attach(self.app, record).headers["Attachment-Version"])

    def version_of(self, changes: Changes) -> str:
        """An earlier version of the records ``attached`` and ``new``, or the current one."""
        is_current = changes.user == ALICE and changes.headers == {"Accept": "text/html"}
        name = "current" if is_current else (changes.place or {}).get("id", "")
        return self.versions.get((changes.place["bucket_id"], name), "x")

    def answer(self, case: Any, changes: Changes) -> int:
        """Send the request, and check the answer."""
        if changes.place:
            key = self.key if changes.place["bucket_id"] == "b" else "gone.txt"
            place = {"key": key} if case.path == FILE else dict(changes.place)
            if case.path in (ATTACHMENTS, ARCHIVE, RULES):
                del place["id"]
            if case.path in (VERSION, RESTORE):
                place["version"] = self.version_of(changes)
            case.path_parameters = place
        if changes.filename is not None and case.method == "PUT":
            case.query = {"filename": changes.filename}
        if changes.form is not None and isinstance(case.body, dict):
            file = {name: value for name, value in case.body.items() if name == "attachment"}
            case.body = {**file, **changes.form}
        headers = {
            name: value.replace("RECORDS", self.records)
            .replace("RECORD", self.record)
            .replace("HASH", sha256(CONTENT))
            for name, value in {**changes.headers, **changes.user}.items()
        }
        if changes.only_these:
            case.headers.clear()
        response = case.call_and_validate(checks=checks(), headers=headers)
        if case.method != "GET" and response.status_code < 400:
            self.reset()
        return response.status_code


def type_is_described(ctx: Any, response: Any, case: Any) -> None:
    """Answers without a body are exempt: OpenAPI 2.0 names media types per operation."""
    from schemathesis.specs.openapi.checks import content_type_conformance

    if response.status_code not in (204, 304):
        content_type_conformance(ctx, response, case)


def error_is_kinto_s(ctx: Any, response: Any, case: Any) -> None:
    """Whatever the file's media type, errors are JSON, and answers without a body have no type."""
    content_type = response.headers.get("content-type")
    if response.status_code >= 400:
        assert content_type == ["application/json"]
        assert response.json()["code"] == response.status_code
    if response.status_code in (204, 304):
        assert (response.content, content_type) == (b"", None)


@cache
def checks() -> list[Any]:
    # Every process that runs tests imports this file, but only one needs this package.
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    return [
        not_a_server_error,
        checks.status_code_conformance,
        type_is_described,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
        error_is_kinto_s,
    ]


OF_VERSIONS = ["versions", "version", "delete-version", "restore"]
# The generated requests are random.
pytestmark = pytest.mark.one_way

OPERATIONS = pytest.mark.parametrize(
    ("method", "path"),
    REACHED,
    ids=[
        "form",
        "new",
        "put",
        "delete",
        "get",
        "list",
        "archive",
        "rules",
        *OF_VERSIONS,
        "get-file",
    ],
)


Describe = Callable[..., Any]


@pytest.fixture
def describe(monkeypatch: pytest.MonkeyPatch, method: str, path: str) -> Describe:
    """``describe(app)`` is the operation as that application describes it.

    If the description has ``credentials``, Schemathesis generates them, and leaves out ours.
    """

    def operation(app: Any, credentials: bool = False) -> Any:
        known = vars(app).setdefault("schemas", {})
        if credentials not in known:
            known[credentials] = schema_of(app, monkeypatch, credentials)
        return known[credentials][path][method]

    return operation


def schema_of(app: Any, monkeypatch: pytest.MonkeyPatch, credentials: bool) -> Any:
    """The schema that Schemathesis makes of the description, which takes 0.05 seconds."""
    import schemathesis

    description = only_ours(described(app, monkeypatch))
    if not credentials:
        for method, path in REACHED:
            del description["paths"][path][method.lower()]["security"]
    schema = schemathesis.openapi.from_dict(description)
    schema.app = Closing(app.app)
    return schema


@ON_MEMORY
@OPERATIONS
def test_the_table_is_answered_as_described(
    build: Build, describe: Describe, method: str, path: str
) -> None:
    app = build(keep_old_files="true")
    operation, server = describe(app), Server.of(app)
    bodies: dict[str, Any] = {
        # Because of these bytes, the part is named "attachment.png".
        "POST": {
            "body": {"attachment": b"\x89PNG\r\n\x1a\n"},
            "media_type": "multipart/form-data",
        },
        "PUT": {"body": b"new", "media_type": "application/octet-stream"},
    }
    statuses = {
        server.answer(
            operation.Case(**(bodies.get(method, {}) if path != RESTORE else {})), changes
        )
        for changes in all_changes(method)
    }
    assert statuses >= REACHED[method, path]


@ON_MEMORY
@OPERATIONS
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_what_is_generated_is_answered_as_described(
    build: Build, describe: Describe, method: str, mode: str
) -> None:
    from schemathesis import GenerationMode

    app = build(extensions="any", keep_old_files="true")  # Few generated names have any.
    # Only the credentials of these can be invalid.
    credentials = mode == "negative" and method in ("GET", "DELETE")
    operation, server = describe(app, credentials), Server.of(app)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=operation.as_strategy(generation_mode=GenerationMode(mode)),
        changes=some_changes(method),
    )
    def answer(case: Any, changes: Changes) -> None:
        assert server.answer(case, changes)

    answer()
