"""gc deletes no file that is about to be linked, however old it looks or whatever it waits for."""

from __future__ import annotations

import io
import os
import threading
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
import transaction

from kinto_attachment.files import changes, link_steps
from kinto_attachment.index.links import Links
from kinto_attachment.maintenance import gc as gc_module
from kinto_attachment.maintenance.gc import gc
from tests.support import waiting
from tests.support.application import (
    ALICE,
    CONTENT,
    OTHER,
    RECORD,
    attach,
    key_of,
    put,
    read,
    stored_files,
    stored_links,
)
from tests.support.backends import ON_DATABASES, ON_POSTGRESQL, Build
from tests.support.owned import STRAY

AT_ONCE = timedelta(seconds=-1)


def collect(app: Any, **options: Any) -> Any:
    return waiting.elsewhere(gc, app.app.registry, **options)


def make_old(app: Any, key: str) -> None:
    """Make a file look old. S3 dates an object by the beginning of its multipart upload."""
    path = app.app.registry.attachment_storages.default.files.path(key)
    os.utime(path, (time.time() - 7200,) * 2)


@ON_POSTGRESQL
def test_a_file_that_looks_old_when_it_is_linked(app: Any) -> None:
    """gc looks between the end of the upload and the link, with its default settings."""
    reports = []
    add = Links.add

    def look() -> None:
        try:
            reports.append(collect(app))
        finally:
            seen.set()  # gc does not call `tell` if it has nothing to delete.

    def look_first(links: Links, link: Any, **more: Any) -> None:
        make_old(app, link.key)
        looking = threading.Thread(target=look)
        looking.start()
        threads.append(looking)
        assert seen.wait(waiting.SECONDS)
        add(links, link, **more)

    threads: list[threading.Thread] = []
    seen = threading.Event()
    written = gc_module._Collector.links_are_written

    def tell(collector: Any) -> bool:
        seen.set()
        return written(collector)

    with (
        mock.patch.object(Links, "add", look_first),
        mock.patch.object(gc_module._Collector, "links_are_written", tell),
    ):
        attach(app)
        waiting.join(*threads)
    assert read(app) == CONTENT
    assert reports[0].unlinked == []


@ON_POSTGRESQL
@pytest.mark.parametrize(("write", "record"), [("replace", RECORD), ("add", OTHER)])
def test_a_process_that_is_stopped_before_it_writes_the_link(
    app: Any, monkeypatch: pytest.MonkeyPatch, write: str, record: str
) -> None:
    """gc ends before the upload continues: the upload is refused, and the old file stays."""
    attach(app)
    monkeypatch.setattr(link_steps, "UNCHECKED_SECONDS", 0.2)
    written = getattr(Links, write)

    def stop(links: Links, link: Any, *args: Any, **more: Any) -> Any:
        report = collect(app, grace=AT_ONCE, orphan_age=timedelta(0), pause=timedelta(0))
        assert report.unlinked == [link.key]
        threading.Event().wait(0.2)
        return written(links, link, *args, **more)

    with (
        mock.patch.object(Links, write, stop),
        mock.patch.object(gc_module._Collector, "links_are_written", return_value=True),
    ):
        refused = attach(app, record, b"new", status=409)
    assert "deleted meanwhile" in refused.json["message"]
    assert read(app) == CONTENT
    assert len(stored_files(app)) == 1


@ON_POSTGRESQL
def test_a_request_that_waits_between_link_and_commit(app: Any) -> None:
    """A request can wait there because of its other links or its replica."""
    reports: list[Any] = []
    write = changes.write_links

    def then_wait(registry: Any, ledger: Any) -> None:
        write(registry, ledger)
        if not threads:
            run = lambda: reports.append(  # noqa: E731
                gc(registry, grace=AT_ONCE, orphan_age=timedelta(0), pause=timedelta(0))
            )
            threads.append(threading.Thread(target=run))
            threads[0].start()
            # gc cannot end before this transaction ends.
            threads[0].join(1)
            assert threads[0].is_alive()

    threads: list[threading.Thread] = []
    with mock.patch("kinto_attachment.files.transactions.write_links", then_wait):
        attach(app)
    waiting.join(*threads)
    assert read(app) == CONTENT
    assert reports[0].unlinked == []


@ON_POSTGRESQL
def test_a_transaction_that_does_not_end(
    app: Any, monkeypatch: pytest.MonkeyPatch, postgresql: Any
) -> None:
    """Files without links stay until a later run, and the report says why."""
    monkeypatch.setattr(gc_module, "MAX_WAIT", 0.0)
    app.app.registry.attachment_storages.default.files.write(STRAY, io.BytesIO(b"x"), "text/plain")
    with transaction.manager:
        app.app.registry.storage.update("record", "/elsewhere", "r", {"busy": True})
        report = collect(app, grace=AT_ONCE, orphan_age=timedelta(0), pause=timedelta(0))
    assert stored_files(app) == {STRAY}
    assert "does not end" in report.errors[0]
    with transaction.manager:
        app.app.registry.storage.delete("record", "/elsewhere", "r", with_deleted=False)
    app.app.registry.attachment_storages.default.files.delete(STRAY)


@ON_DATABASES
@pytest.mark.parametrize("keep", ["false", "true"])
def test_a_sole_link_of_the_wrong_record_is_put_right(build: Build, keep: str) -> None:
    """Even if gc runs first, the file's record is found by its content.

    Links to earlier files of the record do not hide that the link to its current file is missing.
    """
    app = build(keep_old_files=keep)
    put(app, OTHER)
    attach(app, content=b"earlier")
    key = key_of(attach(app).json)
    earlier = {each for each in stored_links(app) if each[1] != key}
    links = app.app.registry.attachment_links
    with transaction.manager:
        (link,) = (each for each in links.of_record(RECORD) if each.is_current)
        links.drop([link])
    with transaction.manager:
        links.add(replace(link, record=OTHER))
    report = gc(app.app.registry, grace=AT_ONCE, orphan_age=timedelta(0), pause=timedelta(0))
    assert report.dangling == [OTHER]
    assert stored_links(app) == {(RECORD, key, "current")} | earlier
    assert read(app) == CONTENT
    versions = app.get(f"{RECORD}/attachment/versions", headers=ALICE).json["data"]
    assert len(versions) == 1 + (keep == "true")
    app.delete(RECORD, headers=ALICE)
