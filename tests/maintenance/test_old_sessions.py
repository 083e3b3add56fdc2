"""gc and uploads in several requests, both unfinished and finished ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
import transaction
from kinto.core.events import ResourceChanged

from kinto_attachment.errors import AttachmentGone, StorageUnavailable
from kinto_attachment.maintenance.gc import GcReport, gc
from kinto_attachment.maintenance.selection import Selection
from kinto_attachment.maintenance.uploads import UploadsReport, uploads
from tests.support import waiting
from tests.support.application import (
    ALICE,
    CONTENT,
    RECORD,
    digest,
    on_event,
    put_raw,
    read,
    stored_files,
)
from tests.support.backends import (
    EVERYWHERE,
    ON_DATABASES,
    ON_MEMORY,
    ON_POSTGRESQL,
    Build,
    runs_on,
)
from tests.support.tus import append, begin, head, offset

SIZE = len(CONTENT)
AT_ONCE = timedelta(seconds=-5)


def collect(app: Any, **options: Any) -> GcReport:
    """Run gc as if everything were old."""
    now = {"grace": AT_ONCE, "orphan_age": timedelta(0), "pause": timedelta(0), **options}
    return waiting.elsewhere(gc, app.app.registry, **now)


def age(app: Any, **changes: Any) -> None:
    """Change the rows of all sessions, as if time had passed."""
    sessions = app.app.registry.attachment_sessions
    with transaction.manager:
        for session in [each for page in sessions.pages() for each in page]:
            sessions.put(replace(session, **changes))


def sessions_of(app: Any) -> list[Any]:
    with transaction.manager:
        return [each for page in app.app.registry.attachment_sessions.pages() for each in page]


@EVERYWHERE
def test_what_belongs_to_an_upload_that_goes_on_stays(app: Any) -> None:
    url = begin(app, SIZE, content=CONTENT[:5])
    assert not collect(app).found
    assert offset(app, url) == 5
    append(app, url, 5, CONTENT[5:])
    assert read(app) == CONTENT


@EVERYWHERE
def test_an_upload_that_has_expired_is_removed(app: Any) -> None:
    url = begin(app, SIZE, content=CONTENT[:5])
    age(app, expires=1)
    assert len(collect(app, dry_run=True).uploads) == 1
    head(app, url, status=410)
    assert len(collect(app).uploads) == 1
    head(app, url, status=410)
    assert not collect(app).found
    head(app, url, status=404)
    assert sessions_of(app) == []


@ON_POSTGRESQL
def test_a_file_that_waits_for_its_record_stays(app: Any) -> None:
    """All bytes have arrived, but the record could not be written."""
    url = begin(app, SIZE)

    def fail(event: Any) -> None:
        raise AttachmentGone()

    on_event(app, ResourceChanged, fail)
    append(app, url, 0, CONTENT, status=409)
    app.app.registry.on_event = None
    assert len(stored_files(app)) == 1
    assert not collect(app).found
    append(app, url, SIZE - 1, CONTENT[-1:])
    assert read(app) == CONTENT


@ON_POSTGRESQL
def test_a_file_that_has_waited_too_long_is_removed(app: Any) -> None:
    url = begin(app, SIZE)

    def fail(event: Any) -> None:
        raise AttachmentGone()

    on_event(app, ResourceChanged, fail)
    append(app, url, 0, CONTENT, status=409)
    app.app.registry.on_event = None
    age(app, expires=1)
    assert len(collect(app).uploads) == 1
    assert stored_files(app) == set()
    append(app, url, SIZE - 1, CONTENT[-1:], status=410)


@ON_MEMORY
def test_a_name_is_reserved_as_long_as_its_upload_goes_on(build: Build) -> None:
    app = build(randomize=False)
    url = begin(app, SIZE, content=CONTENT[:5])
    assert not collect(app).found
    put_raw(app)
    assert stored_files(app) == {"notes-1.txt"}
    age(app, expires=1)
    collect(app)
    put_raw(app)
    assert "notes.txt" in stored_files(app)
    head(app, url, status=410)


# Not on moto, where all multipart uploads have the start time 2010.
@runs_on("seaweedfs")
def test_what_was_sent_and_not_kept_is_removed_when_the_file_is_linked(build: Build) -> None:
    """A part, here with a wrong checksum, of a multipart upload that nobody continues."""
    app = build(randomize=False)
    files = app.app.registry.attachment_storages.default.files
    content = bytes(9 * 1024 * 1024)
    url = begin(app, len(content))
    wrong = {**ALICE, "Upload-Checksum": f"sha1 {digest(CONTENT, 'sha1')}"}
    append(app, url, 0, content, wrong, status=460)
    append(app, url, 0, content)
    assert stored_files(app) == {"notes.txt"}
    assert len(list(files.list_unfinished())) == 1
    assert not collect(app, grace=timedelta(hours=1)).unfinished
    assert len(collect(app).unfinished) == 1
    assert not list(files.list_unfinished())
    assert stored_files(app) == {"notes.txt"}


@ON_MEMORY
def test_what_could_not_be_removed_is_removed_later(app: Any) -> None:
    url = begin(app, SIZE, content=CONTENT[:5])
    files = app.app.registry.attachment_storages.default.files
    with mock.patch.object(files, "discard", side_effect=StorageUnavailable()):
        app.delete(url, headers=ALICE, status=204)
        assert collect(app).errors
    assert len(collect(app).uploads) == 1
    assert not collect(app).found


@ON_MEMORY
def test_an_upload_lasts_at_most_so_long(build: Build) -> None:
    app = build(**{"uploads.max_age": "1h", "uploads.idle_age": "1d"})
    begin(app, SIZE, content=CONTENT[:5])
    (session,) = sessions_of(app)
    assert session.expires == session.created + 3_600_000


@ON_MEMORY
def test_metrics(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    metrics = app.app.registry.metrics
    monkeypatch.setattr(metrics, "count", lambda key, *args, **more: counted.append(key))
    url = begin(app, SIZE, content=CONTENT[:5])
    age(app, writer="of a request that hangs")
    assert offset(app, url) == 5
    assert "attachments.uploads_resumed" in counted
    age(app, expires=1)
    collect(app)
    assert "attachments.uploads_expired" in counted


@ON_MEMORY
def test_unfinished_uploads_are_listed(app: Any) -> None:
    begin(app, SIZE, content=CONTENT[:5])
    begin(app, SIZE, content=CONTENT)
    registry = app.app.registry

    def listed(**chosen: str) -> UploadsReport:
        return waiting.elsewhere(uploads, registry, Selection(**chosen))

    report = listed()
    (line,) = report.uploads
    assert (line["record"], line["offset"], line["size"]) == (RECORD, 5, SIZE)
    assert str(line).startswith(f"{RECORD} notes.txt: 5 of 21 bytes, open until 20")
    assert (report.bytes, report.found) == (5, False)
    assert listed(bucket="b", collection="c").uploads == [line]
    assert listed(collection="c").uploads == [line]
    assert not listed(bucket="b", collection="other").uploads
    assert not listed(bucket="other").uploads
    assert not listed(collection="other").uploads
    age(app, expires=1)
    assert not listed().uploads


@ON_DATABASES
def test_the_heartbeat_tells_the_metrics_what_is_unfinished(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed: dict[str, float] = {}
    metrics = app.app.registry.metrics
    monkeypatch.setattr(
        metrics, "observe", lambda key, value, **more: observed.update({key: value})
    )
    begin(app, SIZE, content=CONTENT[:5])
    begin(app, SIZE)
    begin(app, SIZE, content=CONTENT)
    app.get("/__heartbeat__")
    found = {key: value for key, value in observed.items() if key.startswith("attachments.unf")}
    assert found == {"attachments.unfinished_uploads": 2, "attachments.unfinished_bytes": 5}
    age(app, expires=1)
    app.get("/__heartbeat__")
    assert observed["attachments.unfinished_uploads"] == 0
