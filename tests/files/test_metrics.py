"""Kinto's metrics: uploads by result, bytes, storage timings, failed deletes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from kinto_attachment.errors import StorageUnavailable
from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BUCKET,
    COLLECTION,
    CONTENT,
    OTHER,
    RECORD,
    attach,
    empty_outbox,
    put_collection,
    put_raw,
    read,
)
from tests.support.backends import ON_MEMORY, Build
from tests.support.interruptions import failing_deletes

# Counters continue from one run to the next.
pytestmark = [ON_MEMORY, pytest.mark.one_way]

URL = f"{RECORD}/attachment"


@pytest.fixture
def app(build: Build) -> Any:
    return metered(build)


def metered(build: Build, **options: str) -> Any:
    """A server with metrics; the figures belong to the process, so only changes are compared."""
    app = build({"includes": "kinto.plugins.prometheus"}, downloads="proxy", **options)
    app.before = {}
    app.before = figures(app)
    return app


def figures(app: Any) -> dict[str, float]:
    """The increases of the samples about attachments."""
    text = app.get("/__metrics__").text
    lines = re.findall(r"^kinto_(attachments_\S+) (\S+)$", text, re.M)
    grown = {name: float(value) - app.before.get(name, 0) for name, value in lines}
    return {name: value for name, value in grown.items() if value}


def test_uploads_by_result(app: Any) -> None:
    attach(app)
    put_raw(app)
    attach(app, OTHER)
    attach(app, data="nope", status=400)
    attach(app, headers={**ALICE, "If-Match": '"1"'}, status=412)
    found = figures(app)
    assert found['attachments_uploads_total{result="created"}'] == 2
    assert found['attachments_uploads_total{result="updated"}'] == 1
    assert found['attachments_uploads_total{result="refused"}'] == 2


def test_refused_changes(app: Any) -> None:
    attach(app)
    app.put_json(f"{URL}/hold", {"data": {"until": None}}, headers=ALICE)
    app.delete(URL, headers=ALICE, status=423)
    app.delete(RECORD, headers=ALICE, status=423)
    app.put_json(COLLECTION, {"data": {"attachment": {"locked": True}}}, headers=ALICE)
    attach(app, OTHER, status=423)
    found = figures(app)
    assert found['attachments_refused_total{by="hold"}'] == 2
    assert found['attachments_refused_total{by="lock"}'] == 1


def test_of_several_storages(build: Build, tmp_path: Path) -> None:
    cold = {"storages.cold.base_path": str(tmp_path), "resources.b.other.storage": "cold"}
    app = metered(build, **cold)
    put_collection(app, f"{BUCKET}/collections/other")
    record = f"{BUCKET}/collections/other/records/r"
    attach(app, record)
    read(app, f"{record}/attachment")
    with failing_deletes(app, storage="cold"):
        app.delete(record, headers=ALICE)
    found = figures(app)
    assert found["attachments_cold_bytes_in_total"] == len(CONTENT)
    assert found["attachments_cold_bytes_out_total"] == len(CONTENT)
    assert found["attachments_cold_delete_failed_total"] == 1
    assert found['attachments_cold_localstorage_seconds_count{method="write"}'] == 1
    assert not [name for name in found if re.match("attachments_(bytes|delete|local)", name)]
    empty_outbox(app)


def test_uploads_that_the_storage_fails(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StorageUnavailable()

    with monkeypatch.context() as patch:
        patch.setattr(app.app.registry.attachment_storages.default.files, "write", fail)
        attach(app, status=503)
    assert figures(app)['attachments_uploads_total{result="failed"}'] == 1


def test_uploads_that_a_quota_refuses(build: Build) -> None:
    app = metered(build, quota_bytes=1)
    attach(app, status=507)
    assert figures(app)['attachments_uploads_total{result="refused"}'] == 1


def test_bytes(app: Any) -> None:
    attach(app)
    read(app)
    app.get(URL, headers={**ALICE, "Range": "bytes=0-4"}, status=206)
    app.head(URL, headers=ALICE)
    app.get(URL, headers=ANONYMOUS, status=401)
    found = figures(app)
    assert found["attachments_bytes_in_total"] == len(CONTENT)
    assert found["attachments_bytes_out_total"] == len(CONTENT) + 5


def test_bytes_of_compressed_files_are_those_sent(build: Build) -> None:
    app = metered(build, gzipped="true")
    attach(app, content=b"x" * 10_000)
    assert figures(app)["attachments_bytes_in_total"] == 10_000


def test_storage_timings(app: Any) -> None:
    attach(app)
    read(app)
    app.delete(URL, headers=ALICE)
    found = figures(app)
    for method in ("write", "open", "stat", "delete"):
        assert found[f'attachments_localstorage_seconds_count{{method="{method}"}}'] >= 1


def test_failed_deletes(app: Any) -> None:
    attach(app)
    with failing_deletes(app):
        app.delete(URL, headers=ALICE)
    assert figures(app)["attachments_delete_failed_total"] == 1
    empty_outbox(app)


def test_what_is_left_to_gc(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no")

    attach(app)
    with monkeypatch.context() as patch:
        patch.setattr(app.app.registry.attachment_links.outbox, "take", fail)
        attach(app, content=b"new")
    assert figures(app)["attachments_settle_failed_total"] == 1
    empty_outbox(app)


def test_nothing_by_users_or_records(app: Any) -> None:
    """Labels must have few values, to limit the size of the metrics."""
    for number in range(3):
        attach(app, f"{RECORD}{number}")
    labels = {label for name in figures(app) for label in re.findall(r'(\w+)="', name)}
    assert labels <= {"result", "method", "le"}
