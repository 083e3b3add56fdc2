"""gc and direct uploads, whose progress only the storage knows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from kinto_attachment.errors import StorageUnavailable
from tests.maintenance.test_old_sessions import age, collect, sessions_of
from tests.support.application import ALICE, CONTENT, RECORD, attachment_of, sha256, stored_files
from tests.support.backends import Build, runs_on
from tests.support.direct import MIB, begin, complete, create, send, send_all, state

# Not on moto, where all multipart uploads have the start time 2010.
pytestmark = runs_on("seaweedfs")


def left(app: Any) -> list[Any]:
    return [*app.app.registry.attachment_storages.default.files.list_unfinished()]


def forget_activity(app: Any) -> None:
    """Change the times as if the upload and all its requests were long ago."""
    age(app, created=1, expires=1)


def test_one_that_goes_on_is_left_alone(build: Build) -> None:
    app = build(**{"direct.part_size": "5M"})
    upload = begin(app, 5 * MIB + 3)
    for part in upload["parts"]:
        assert not collect(app).found
        assert send(part, bytes(part["size"])).status_code == 200
    assert not collect(app).found
    complete(app, upload, status=201)
    assert not collect(app).found
    assert attachment_of(app)["hash"] == sha256(bytes(5 * MIB + 3))


@pytest.mark.parametrize("sent", [b"", CONTENT])
def test_one_that_is_never_completed_leaves_nothing(app: Any, sent: bytes) -> None:
    upload = begin(app)
    if sent:
        send_all(upload, sent)
    forget_activity(app)
    assert len(left(app)) == 1
    assert len(collect(app, dry_run=True).uploads) == 1
    assert len(left(app)) == 1
    assert len(collect(app, grace=timedelta(hours=1)).uploads) == 1
    assert (left(app), stored_files(app)) == ([], set())
    assert state(app, upload)["state"] == "expired"
    assert send(upload["parts"][0], CONTENT).status_code == 404
    assert not collect(app).found
    assert sessions_of(app) == []


def test_bytes_that_came_lately_prolong_it(app: Any) -> None:
    """The row does not show this: a client need not contact the server while it sends."""
    upload = begin(app)
    send_all(upload, CONTENT)
    age(app, expires=1)
    assert not collect(app, dry_run=True).found
    assert sessions_of(app)[0].expires == 1
    assert not collect(app).found
    assert sessions_of(app)[0].expires > 1
    age(app, expires=1)
    assert state(app, upload)["state"] == "open"
    age(app, expires=1)
    complete(app, upload, status=201)


def test_without_bytes_it_expires(app: Any) -> None:
    upload = begin(app)
    age(app, expires=1)
    assert state(app, upload)["state"] == "expired"
    assert len(collect(app).uploads) == 1
    complete(app, upload, status=410)


def test_a_file_that_nobody_attaches_is_removed(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is complete in the storage, but its client has not finished the upload."""
    upload = begin(app)
    send_all(upload, CONTENT)

    def fail(*_: Any) -> Any:
        raise StorageUnavailable() from ConnectionResetError("played")

    files = app.app.registry.attachment_storages.default.files
    with monkeypatch.context() as broken:
        broken.setattr(files, "open", fail)
        complete(app, upload, status=503)
    assert state(app, upload)["state"] == "finishing"
    assert len(stored_files(app)) == 1
    assert not collect(app).found
    forget_activity(app)
    assert len(collect(app).uploads) == 1
    assert (left(app), stored_files(app)) == ([], set())
    app.get(RECORD, headers=ALICE, status=404)


def test_what_a_creation_has_left_that_died_is_removed(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The creation failed before its row was written."""

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(app.app.registry.attachment_sessions, "put", die)
        with pytest.raises(KeyboardInterrupt):
            create(app)
    assert len(left(app)) == 1
    assert not collect(app, grace=timedelta(hours=1)).found
    assert len(collect(app).unfinished) == 1
    assert left(app) == []


def test_a_storage_that_does_not_answer_is_reported(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(app)
    forget_activity(app)

    def fail(*_: Any) -> Any:
        raise StorageUnavailable() from ConnectionResetError("played")

    with monkeypatch.context() as broken:
        files = app.app.registry.attachment_storages.default.files
        broken.setattr(files, "arrived_parts", fail)
        assert "not removed" in collect(app).errors[0]
    assert len(collect(app).uploads) == 1
