"""A pipe, socket, folder or link to itself under a key is treated as a missing file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kinto_attachment.maintenance.adopt import adopt
from kinto_attachment.maintenance.export import export
from kinto_attachment.maintenance.gc import gc
from kinto_attachment.maintenance.move import move
from kinto_attachment.maintenance.relocate import relocate
from kinto_attachment.maintenance.selection import Selection
from kinto_attachment.maintenance.verify import NOT_THERE, verify
from tests.support import tus
from tests.support.application import (
    ALICE,
    COLLECTION,
    CONTENT,
    OTHER,
    RECORD,
    attach,
    key_of,
    read,
    stored_files,
    write_behind,
)
from tests.support.backends import ON_EACH_DATABASE, ON_MEMORY, ON_POSTGRESQL, Build
from tests.support.special_files import SPECIAL, exchange, nobody_waits

pytestmark = pytest.mark.parametrize("kind", SPECIAL)

URL = f"{RECORD}/attachment"
AT_ONCE = timedelta(0)


def path_of(app: Any, key: str, storage: str = "") -> Path:
    return Path(app.app.registry.attachment_storages[storage].files.path(key))


def remove(path: Path) -> None:
    path.rmdir() if path.is_dir() else path.unlink()


@contextmanager
def special(app: Any, key: str, kind: str) -> Iterator[None]:
    """Put something else in the place of a record's file; nothing may remove it."""
    path = path_of(app, key)
    exchange(path, kind)
    with nobody_waits(path):
        yield
    remove(path)
    path.write_bytes(CONTENT)


@ON_MEMORY
class TestRequests:
    def test_downloads(self, app: Any, kind: str) -> None:
        attachment = attach(app).json
        with special(app, key_of(attachment), kind):
            for url in (URL, attachment["location"]):
                for headers in ({}, {"Range": "bytes=0-0"}, {"Range": "bytes=-1"}):
                    answer = app.get(url, headers={**ALICE, **headers}, status=404)
                    assert answer.json["errno"] == 110
                app.head(url, headers=ALICE, status=404)
            archive = app.get(f"{COLLECTION}/attachments.zip", headers=ALICE, status="*")
            assert archive.status_code == 500
            assert archive.json["message"] == f"The file of {RECORD} is missing."
        assert read(app) == CONTENT

    def test_a_file_of_another_size(self, app: Any, kind: str) -> None:
        """An empty file has the size of a pipe."""
        key = key_of(attach(app, content=b"").json)
        exchange(path_of(app, key), kind)
        with nobody_waits(path_of(app, key)):
            app.get(URL, headers=ALICE, status=404)
        remove(path_of(app, key))
        path_of(app, key).touch()

    def test_the_file_is_replaced(self, app: Any, kind: str) -> None:
        key = key_of(attach(app).json)
        path = path_of(app, key)
        exchange(path, kind)
        with nobody_waits(path):
            attach(app, content=b"new")
        assert read(app) == b"new"
        if kind == "a folder":
            remove(path)
        assert not os.path.lexists(path), "it went with the attachment"

    def test_an_upload_in_several_requests(self, app: Any, kind: str) -> None:
        """It fails as in an outage, and can be cancelled."""
        url = tus.begin(app, 6)
        tus.append(app, url, 0, b"abc", status=204)
        (chunk,) = (path_of(app, "x").parent / ".unfinished").iterdir()
        exchange(chunk, kind)
        with nobody_waits(chunk):
            for _ in range(2):
                tus.append(app, url, 3, b"def", status=503)
            assert tus.offset(app, url) == 3
            app.delete(url, headers={**tus.TUS, **ALICE}, status=204)
        if kind == "a folder":
            remove(chunk)
        assert not os.path.lexists(chunk)


@ON_EACH_DATABASE
class TestCommands:
    def test_verify(self, app: Any, kind: str) -> None:
        key = key_of(attach(app).json)
        attach(app, OTHER, b"other")
        with special(app, key, kind):
            found = verify(app.app.registry)
            (missing,) = found.missing
            assert (missing["key"], missing["reason"]) == (key, NOT_THERE)
            assert (found.files, found.damaged, found.unreadable) == (1, [], [])

    def test_gc(self, app: Any, kind: str) -> None:
        key = key_of(attach(app).json)
        draft = (
            path_of(app, "x").parent / ".unfinished" / ("0" * 16 + ":" + key.replace("/", "\\"))
        )
        SPECIAL[kind](draft)
        with special(app, key, kind), nobody_waits(draft):
            report = gc(
                app.app.registry, grace=timedelta(seconds=-5), orphan_age=AT_ONCE, pause=AT_ONCE
            )
            assert (report.missing, report.errors) == ([RECORD], [])
            assert report.unfinished == ([] if kind == "a folder" else [key])
        if kind == "a folder":
            remove(draft)
        assert stored_files(app) == {key}

    def test_export(self, app: Any, tmp_path: Path, kind: str) -> None:
        key = key_of(attach(app).json)
        attach(app, OTHER, b"other")
        with special(app, key, kind):
            report = export(app.app.registry, str(tmp_path / "to"))
            assert [found["record"] for found in report.missing] == [RECORD]
            assert (report.records, report.files) == (1, 1)

    def test_relocate(self, app: Any, kind: str) -> None:
        key = key_of(attach(app).json)
        with special(app, key, kind):
            report = relocate(app.app.registry, server="http://localhost")
            assert (report.records, report.unlinked, report.refused) == (1, [], [])

    @pytest.mark.parametrize("at", ["the source", "the target"])
    def test_move(self, build: Build, tmp_path: Path, kind: str, at: str) -> None:
        app = build(**{"storages.cold.base_path": str(tmp_path / "cold")})
        key = key_of(attach(app).json)
        if at == "the source":
            with special(app, key, kind):
                report = move(app.app.registry, "cold", Selection(), keep=AT_ONCE)
                assert [found["key"] for found in report.missing] == [key]
        else:
            path = path_of(app, key, "cold")
            path.parent.mkdir(parents=True, exist_ok=True)
            SPECIAL[kind](path)
            with nobody_waits(path):
                report = move(app.app.registry, "cold", Selection(), keep=AT_ONCE)
                assert report.files == 0
            if os.path.lexists(path):
                remove(path)
        assert read(app) == CONTENT


@ON_POSTGRESQL
def test_adopt(app: Any, kind: str) -> None:
    attachment = attach(app, OTHER).json
    path = path_of(app, "old/r.txt")
    path.parent.mkdir(exist_ok=True)
    SPECIAL[kind](path)
    old = {**attachment, "location": "old/r.txt"}
    write_behind(app, RECORD, {"attachment": old})
    with nobody_waits(path):
        for verified in (False, True):
            report = adopt(app.app.registry, verify=verified)
            assert report.linked == 0
            assert report.unplaced == [f"{RECORD}: its file does not exist"]
    remove(path)
    app.delete(RECORD, headers=ALICE)
