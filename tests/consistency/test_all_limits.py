"""Quotas, locks, holds and rules for files, combined with each way in which a file arrives.

A cell of the table is the expected response. After it, nothing has changed: the record, the files
and their content, the links, and the quota usage.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import transaction
from kinto.core.events import ResourceChanged
from pyramid.httpexceptions import HTTPException

from kinto_attachment import attach as attach_by_code
from kinto_attachment.errors import AttachmentError
from kinto_attachment.maintenance.importing import import_
from kinto_attachment.parsers import extensions
from tests.support import direct, exports, tus
from tests.support.application import (
    ALICE,
    BUCKET,
    COLLECTION,
    OTHER,
    RECORD,
    attach,
    on_event,
    put,
    put_collection,
    put_raw,
    records,
    stored_content,
    stored_files,
    stored_links,
)
from tests.support.backends import ON_DATABASES, ON_MEMORY, Build
from tests.support.protected import (
    IN_BATCHES,
    UNLOCKED,
    WAYS as PROTECTED,
    WHOLE,
    Place,
    changed_setting,
)
from tests.support.sampling import sampled
from tests.support.snapshots import begin
from tests.support.usage import held, miscounted

URL = f"{RECORD}/attachment"
SOURCE = "/buckets/s/collections/c/records/source"  # It has no quota.
TRIGGER = "/buckets/s/collections/c/records/trigger"
FAR = 4_102_444_800_000  # The year 2100.
QUOTA = {"resources.b.quota_bytes": "40"}
USED = 18  # By the record's file and another one.
SMALL, LARGE = 20, 35  # Only the large one exceeds the quota.
SCHEMA = {"properties": {"attachment": {"properties": {"filename": {"pattern": "^old"}}}}}


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any]


@dataclass(frozen=True)
class Incoming:
    """A file with which a client wants to replace the file of the record."""

    size: int = SMALL
    filename: str = "new.png"

    @property
    def content(self) -> bytes:
        return b"n" * self.size


Way = Callable[[Any, Incoming], Answer]


def answered(response: Any) -> Answer:
    return Answer(response.status_code, response.json if response.body else {})


def form(app: Any, new: Incoming) -> Answer:
    return answered(attach(app, RECORD, new.content, new.filename, status="*"))


def raw(app: Any, new: Incoming) -> Answer:
    return answered(put_raw(app, RECORD, new.content, new.filename, status="*"))


def resumable(app: Any, new: Incoming) -> Answer:
    answer = tus.create(app, new.size, filename=new.filename, status="*")
    if answer.status_code == 201:
        answer = tus.append(app, answer.headers["Location"], 0, new.content, status="*")
    return answered(answer)


def directly(app: Any, new: Incoming) -> Answer:
    named = {"filename": new.filename}
    answer = direct.create(app, new.size, status="*", attachment=named, via="kinto")
    if answer.status_code == 201:
        answer = direct.put_own(app, answer.json["data"], new.content, status="*")
    return answered(answer)


def copy(app: Any, new: Incoming) -> Answer:
    return answered(app.post_json(URL, {"copy_from": SOURCE}, headers=ALICE, status="*"))


def copy_in_batch(app: Any, new: Incoming) -> Answer:
    """Between unrelated parts, which are not refused."""
    title = {"method": "PUT", "path": TRIGGER, "body": {"data": {"title": "x"}}}
    part = {"method": "POST", "path": URL, "body": {"copy_from": SOURCE}}
    requests = [title, part, title]
    answers = app.post_json("/batch", {"requests": requests}, headers=ALICE).json["responses"]
    assert {answers[0]["status"], answers[2]["status"]} <= {200, 201}
    return Answer(answers[1]["status"], answers[1]["body"])


def restore(app: Any, new: Incoming) -> Answer:
    *_, oldest = app.get(f"{URL}/versions", headers=ALICE).json["data"]
    url = f"{URL}/versions/{oldest['id']}/restore"
    return answered(app.post(url, headers=ALICE, status="*"))


def server_code(app: Any, new: Incoming) -> Answer:
    outcome: list[Answer] = []

    def act(event: Any) -> None:
        ids = [each.get("new", {}).get("id") for each in event.impacted_objects]
        if event.payload["resource_name"] != "record" or "trigger" not in ids:
            return
        try:
            attach_by_code(event.request, RECORD, new.content, new.filename)
        except AttachmentError as error:
            told = {"errno": error.errno.value, "details": error.details}
            outcome.append(Answer(error.status, told))
        except HTTPException as error:
            outcome.append(Answer(error.status_code, error.json))

    on_event(app, ResourceChanged, act)
    put(app, TRIGGER, data={"n": 1})
    app.app.registry.on_event = None
    return outcome[0] if outcome else Answer(200, {})


def importing(app: Any, new: Incoming) -> Answer:
    """The record comes from an export and replaces the existing one."""
    with tempfile.TemporaryDirectory() as folder:
        exports.write(Path(folder), exports.line("r", new.content, new.filename))
        registry = app.app.registry
        report = import_(registry, folder, replace=True, server="http://localhost")
    assert not report.invalid
    assert report.replaced == (not report.refused)
    refused = [dict(each) for each in report.refused]
    return Answer(refused[0]["code"], refused[0]) if refused else Answer(200, {})


# Each way in which a file arrives has its row here.
WAYS: dict[str, Way] = {
    "form": form,
    "raw": raw,
    "resumable": resumable,
    "direct": directly,
    "copy": copy,
    "copy in batch": copy_in_batch,
    "restore": restore,
    "code": server_code,
    "import": importing,
}


@dataclass(frozen=True)
class Limit:
    """Something that refuses a file, and the refusal; ``details`` are some of its details."""

    status: int
    errno: int
    details: dict[str, Any] | None = None
    setting: tuple[str, Any] | None = None  # A setting of the server.
    collection: dict[str, Any] | None = None  # The collection's data.

    def is_told_by(self, answer: Answer) -> bool:
        told = answer.body.get("details")
        details = told if isinstance(told, dict) else {}
        return (answer.status, answer.body.get("errno")) == (self.status, self.errno) and (
            self.details is None
            or {name: details.get(name) for name in self.details} == self.details
        )


LIMITS = {
    "locked": Limit(
        423,
        121,
        {"reason": "The collection's data have attachment.locked.", "until": None},
        collection={"attachment": {"locked": True}},
    ),
    "held": Limit(423, 121, {"reason": "An audit", "until": FAR, "record": RECORD}),
    "extensions": Limit(400, 109, setting=("extensions", extensions("txt"))),
    "max_size": Limit(413, 113, setting=("max_size", SMALL - 1)),
    "quota": Limit(
        507,
        121,
        {
            "reason": "quota",
            "limit": "quota_bytes",
            "of": BUCKET,
            "setting": "kinto.attachment.resources.b.quota_bytes",
            "quota": 40,
            "used": USED,
            "left": 40 - USED,
        },
    ),
    "schema": Limit(400, 107, collection={"schema": SCHEMA}),
}
# A version already belongs to the record.
PASSING = {("restore", "quota"), ("restore", "max_size"), ("restore", "extensions")}


def make(app: Any, new: Incoming, *, is_restored: bool) -> None:
    """Set up what exists before a file arrives in this way."""
    put_collection(app)
    put_collection(app, "/buckets/s/collections/c")
    attach(app, SOURCE, new.content, new.filename)
    if is_restored:
        with changed_setting(app, "keep_old_files", value=True):
            attach(app, RECORD, new.content, new.filename)
            attach(app, RECORD, b"0123456789", "old.txt")
    else:
        attach(app, RECORD, b"0123456789", "old.txt")
    attach(app, OTHER, b"01234567", "old.txt")


@contextmanager
def limited(app: Any, *names: str) -> Iterator[None]:
    """Apply some of the limits within the block."""
    data: dict[str, Any] = {}
    with ExitStack() as stack:
        for name in names:
            limit = LIMITS[name]
            data |= limit.collection or {}
            if limit.setting:
                stack.enter_context(changed_setting(app, *limit.setting))
        if "held" in names:
            wanted = {"until": FAR, "reason": "An audit"}
            app.put_json(f"{URL}/hold", {"data": wanted}, headers=ALICE, status=200)
        put(app, COLLECTION, data=data)
        yield


def everything(app: Any) -> dict[str, Any]:
    registry = app.app.registry
    with transaction.manager:
        counted = registry.attachment_usage.known(registry.attachment_usage.scopes())
    files = stored_files(app)
    return {
        "records": {uri: row for uri, row in records(app).items() if uri != TRIGGER},
        "content": {key: stored_content(app, key) for key in files},
        "links": stored_links(app),
        "counted": counted,
        "held": held(registry, BUCKET),
    }


def attempt(app: Any, way: str, *names: str) -> Answer:
    """The response while some of the limits apply, after checking the remaining state."""
    new = Incoming(LARGE if "quota" in names and way != "restore" else SMALL)
    begin(app, make, new, is_restored=way == "restore")
    with limited(app, *names):
        before = everything(app)
        answer = WAYS[way](app, new)
        after = everything(app)
    assert not miscounted(app.app.registry)
    assert answer.status < 300 or after == before
    return answer


@sampled(2, "backends", "limit", "way")
@ON_DATABASES
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("way", WAYS)
def test_each_way_meets_each_limit(build: Build, way: str, limit: str) -> None:
    answer = attempt(build(**QUOTA), way, limit)
    if (way, limit) in PASSING:
        assert answer.status == 200
    else:
        assert LIMITS[limit].is_told_by(answer), answer


# Of two limits, the first in this order refuses; a request's headers tell a file's size.
ORDER = ("locked", "held", "extensions", "max_size", "quota", "schema")
SIZE_FIRST = ("locked", "held", "max_size", "extensions", "quota", "schema")
# Code on the server adds a file, and then writes the record.
RECORD_LAST = ("extensions", "max_size", "quota", "locked", "held", "schema")
ORDERS = {
    **dict.fromkeys(WAYS, ORDER),
    **dict.fromkeys(("raw", "resumable", "direct"), SIZE_FIRST),
    "code": RECORD_LAST,
}


@sampled(4, "way", "pair")
@ON_MEMORY
@pytest.mark.parametrize("pair", [*combinations(LIMITS, 2)], ids=" and ".join)
@pytest.mark.parametrize("way", WAYS)
def test_which_of_two_limits_answers(build: Build, way: str, pair: tuple[str, str]) -> None:
    answer = attempt(build(**QUOTA), way, *pair)
    left = [each for each in ORDERS[way] if each in pair and (way, each) not in PASSING]
    if left:
        assert LIMITS[left[0]].is_told_by(answer), answer
    else:
        assert answer.status == 200


@ON_DATABASES
class TestHeldAndLocked:
    """A hold refuses what a lock does not."""

    @sampled(2, "backends", "way")
    @pytest.mark.parametrize("way", [*IN_BATCHES, *WHOLE, "withdraw", "flush"])
    def test_a_file_is_not_lost(self, build: Build, way: str) -> None:
        app = build({"includes": "tests.support.publishing"}, **QUOTA)
        attach(app, RECORD, b"0123456789")
        with limited(app, "locked", "held"):
            before = everything(app)
            answer = answered(PROTECTED[way](app, Place(BUCKET, BUCKET)))
            expected = LIMITS["held" if way in UNLOCKED else "locked"]
            assert expected.is_told_by(answer), answer
            assert everything(app) == before
