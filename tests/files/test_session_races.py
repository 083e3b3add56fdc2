"""Concurrent requests for uploads in several requests."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
import transaction
from kinto.core.utils import msec_time

from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.index import reservations
from kinto_attachment.maintenance.gc import gc
from kinto_attachment.storage import Partial
from tests.support import invariants, waiting
from tests.support.application import (
    ALICE,
    ANONYMOUS,
    COLLECTION,
    CONTENT,
    Headers,
    put,
    read,
    send,
    stored_files,
)
from tests.support.backends import ON_DATABASES, Build, runs_on
from tests.support.tus import BYTES, TUS, append, begin, create

SIZE = len(CONTENT)
MOST, CLIENTS = 3, 8
MIB = 1024 * 1024


def elsewhere(action: Callable[[], object]) -> None:
    """Call a function in another thread, which has its own transactions."""
    with ThreadPoolExecutor(1) as other:
        other.submit(action).result(waiting.SECONDS)


def storage_of(app: Any) -> Any:
    return app.app.registry.attachment_storages.default.files


@pytest.mark.one_way
@ON_DATABASES
@pytest.mark.parametrize("headers", [ALICE, ANONYMOUS], ids=["a user", "anonymous writers"])
def test_together_they_begin_no_more_uploads_than_one_by_one(
    build: Build, headers: Headers
) -> None:
    app = build(randomize=False, **{"uploads.max_unfinished": MOST})
    put(app, COLLECTION, data={}, permissions={"record:create": ["system.Everyone"]})
    files, together = storage_of(app), threading.Barrier(CLIENTS, timeout=waiting.SECONDS)
    really = files.begin

    def begin_together(*args: Any, **options: Any) -> Partial:
        """Wait until each request has found that there is room, and none has used it."""
        together.wait(waiting.SECONDS)
        partial: Partial = really(*args, **options)
        return partial

    with (
        mock.patch.object(files, "begin", begin_together),
        ThreadPoolExecutor(CLIENTS) as threads,
    ):
        answers = [
            threads.submit(create, app, SIZE, headers=headers, status="*") for _ in range(CLIENTS)
        ]
        statuses = sorted(answer.result(waiting.SECONDS).status_code for answer in answers)
    with transaction.manager:
        found = [each for page in app.app.registry.attachment_sessions.pages() for each in page]
        names = app.app.registry.attachment_links.reservations.before(2**62)
    going_on = [session for session in found if session.is_unfinished]
    assert {session.key for session in going_on} == set(names)
    if headers is ALICE:
        assert len(going_on) == MOST
        assert statuses == [201] * MOST + [429] * (CLIENTS - MOST)
    else:  # Two may be removed for one new upload.
        assert 0 < len(going_on) <= MOST
        assert set(statuses) <= {201, 429}


class Interrupted(io.BytesIO):
    """A body that calls a function in the middle."""

    def __init__(self, content: bytes, at: int, action: Callable[[], object]) -> None:
        super().__init__(content)
        self.at, self.action = at, action

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= self.at:
            self.at = len(self.getvalue()) + 1
            elsewhere(self.action)
        return super().read(size)


@runs_on("local", "seaweedfs", "gcs")
def test_what_a_writer_stores_after_the_cancellation_is_found(build: Build) -> None:
    """Its name is from the client, and does not show gc that the file is ours."""
    app = build(randomize=False)
    content = bytes(9 * MIB)
    url = begin(app, len(content))
    body = Interrupted(content, 2 * MIB, lambda: app.delete(url, headers=ALICE, status=204))
    headers = {**ALICE, **TUS, **BYTES, "Upload-Offset": "0"}
    send(app, "PATCH", url, body, length=len(content), headers=headers, status=423)
    elsewhere(lambda: invariants.collect(app.app.registry))
    assert not list(storage_of(app).list_unfinished())
    url = begin(app, SIZE)
    append(app, url, 0, CONTENT)
    assert stored_files(app) == {"notes.txt"}


@runs_on("moto", "seaweedfs")
@pytest.mark.parametrize("fails", [False, True], ids=["by the request", "by gc"])
def test_what_is_stored_after_the_cancellation_is_found(build: Build, fails: bool) -> None:
    """A process dies just after it has stored the whole file.

    The upload began long ago. Its earlier bytes are deleted by the cancellation, or by gc.
    """
    app = build(randomize=False)
    registry, files = app.app.registry, storage_of(app)
    yesterday = msec_time() - 24 * 3_600_000
    with mock.patch.object(reservations, "msec_time", return_value=yesterday):
        url = begin(app, SIZE)
    really = files._bucket.create

    def cancel() -> None:
        failing = {"side_effect": StorageUnavailable()} if fails else {"wraps": files.discard}
        with mock.patch.object(files, "discard", **failing):
            app.delete(url, headers=ALICE, status=204)
        gc(registry, grace=timedelta(hours=1), pause=timedelta(0))

    def create_late(key: str, *args: Any, **options: Any) -> None:
        if key == "notes.txt":
            elsewhere(cancel)
        really(key, *args, **options)
        if key == "notes.txt":
            raise RuntimeError("the process dies")

    with mock.patch.object(files._bucket, "create", create_late):
        append(app, url, 0, CONTENT, status=500)
    assert stored_files(app) == {"notes.txt"}
    elsewhere(lambda: invariants.collect(registry))
    assert stored_files(app) == set()


@ON_DATABASES
def test_of_two_that_attach_one_is_counted(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    app = build()
    counted: list[str] = []
    metrics = app.app.registry.metrics
    monkeypatch.setattr(metrics, "count", lambda key, *args, **more: counted.append(key))
    url = begin(app, SIZE, content=CONTENT[:5])
    files = storage_of(app)
    really = files.finish

    def repeat(partial: Partial) -> Any:
        """The client has lost the connection, and sends its last byte again."""
        with mock.patch.object(files, "finish", really):
            elsewhere(lambda: append(app, url, SIZE - 1, CONTENT[-1:], status=204))
        return really(partial)

    with mock.patch.object(files, "finish", repeat):
        append(app, url, 5, CONTENT[5:], status=204)
    assert read(app) == CONTENT
    assert counted.count("attachments.uploads") == 1
