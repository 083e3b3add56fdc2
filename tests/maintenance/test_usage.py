"""``kinto-attachment usage``: files and bytes by bucket, collection, storage and state."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transaction
from pyramid.threadlocal import manager

from kinto_attachment import cli
from kinto_attachment.maintenance.reports import no_progress
from kinto_attachment.maintenance.selection import Selection
from kinto_attachment.maintenance.shards import Shard
from kinto_attachment.maintenance.usage import UsageReport, usage
from tests.support.application import (
    ALICE,
    COLLECTION,
    RECORD,
    attach,
    links_of,
    move_behind,
    put_collection,
)
from tests.support.backends import ON_DATABASES, ON_MEMORY, Build
from tests.support.documents import code_blocks


def record(name: str, collection: str = COLLECTION) -> str:
    return f"{collection}/records/{name}"


def report(app: Any, **options: Any) -> UsageReport:
    progress = options.pop("progress", no_progress)
    return usage(app.app.registry, Selection(**options), progress=progress)


@ON_DATABASES
class TestCounts:
    def test_nothing(self, app: Any) -> None:
        found = report(app)
        assert (found.files, found.bytes, found.collections, found.found) == (0, 0, [], False)

    def test_by_everything(self, build: Build) -> None:
        app = build(keep_old_files="true")
        other = "/buckets/b2/collections/d"
        put_collection(app, other)
        attach(app, content=b"old")
        attach(app, content=b"newer")
        attach(app, record("r", other), b"x" * 10)
        found = report(app)
        assert (found.files, found.bytes) == (3, 18)
        assert found.buckets == {
            "b": {"files": 2, "bytes": 8},
            "b2": {"files": 1, "bytes": 10},
        }
        assert found.states == {
            "current": {"files": 2, "bytes": 15},
            "kept": {"files": 1, "bytes": 3},
        }
        assert found.storages == {"default": {"files": 3, "bytes": 18}}
        place = {"bucket": "b", "collection": "c", "storage": "default"}
        assert found.collections[:2] == [
            {**place, "state": "current", "files": 1, "bytes": 5},
            {**place, "state": "kept", "files": 1, "bytes": 3},
        ]
        assert not found.found

    def test_shared_files_once(self, app: Any) -> None:
        attach(app, content=b"12345")
        attach(app, record("other"), b"678")
        (link,) = [link for link in links_of(app) if link.record == RECORD]
        links = app.app.registry.attachment_links
        with transaction.manager:
            for name in ("copy", "copies"):
                links.share(replace(link, record=record(name), state="kept"))
        found = report(app)
        assert (found.files, found.bytes) == (4, 18)
        assert found.stored == {"files": 2, "bytes": 8}

    def test_of_a_part(self, app: Any) -> None:
        for collection in (COLLECTION, f"{COLLECTION}2", "/buckets/b2/collections/c"):
            put_collection(app, collection)
            attach(app, record("r", collection), b"123")
        assert report(app, bucket="b").files == 2
        assert report(app, bucket="b", collection="c").files == 1
        assert report(app, collection="c").files == 2
        assert report(app, bucket="none").files == 0
        shards = [report(app, shard=Shard(index, 3)) for index in (1, 2, 3)]
        assert sum(shard.files for shard in shards) == 3
        assert sum(shard.stored["bytes"] for shard in shards) == 9

    def test_more_than_a_page(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(app.app.registry.attachment_links, "page_size", 2)
        for number in range(7):
            attach(app, record(f"r{number}"), b"1")
        told: list[int] = []
        found = report(app, progress=lambda step, count, total=None: told.append(count))
        assert (found.files, told[-1]) == (7, 7)


@ON_MEMORY
def test_of_a_storage(build: Build, tmp_path: Path) -> None:
    app = build(**{"storages.cold.base_path": str(tmp_path)})
    attach(app)
    attach(app, record("cold"), b"123")
    (link,) = [link for link in links_of(app) if link.record == record("cold")]
    move_behind(app.app.registry, link.key, "cold")
    assert set(report(app).storages) == {"default", "cold"}
    assert report(app, storage="cold").bytes == 3
    assert report(app, storage="").files == 1
    app.delete(record("cold"), headers=ALICE)


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ini = tmp_path / "kinto.ini"
    ini.write_text(
        "[app:main]\nuse = egg:kinto\nkinto.includes = kinto_attachment\n"
        f"kinto.userid_hmac_secret = secret\nkinto.attachment.base_path = {tmp_path}/files\n"
    )

    def run(*arguments: str) -> int:
        return run_as_written("usage", "--ini", str(ini), *arguments)

    def run_as_written(*arguments: str) -> int:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="HTTPS is not enabled")
            try:
                return cli.main(list(arguments))
            finally:
                manager.clear()

    assert run("--json", "--bucket", "b", "--collection", "c", "--shard", "1/2") == 0
    assert json.loads(capsys.readouterr().out)["stored"] == {"files": 0, "bytes": 0}
    assert run("--quiet") == 0
    assert capsys.readouterr().out == ""
    assert run("--storage", "default", "--debug") == 0
    assert "stored: files 0, bytes 0\n" in capsys.readouterr().out
    assert run("--storage", "colt") == 2
    assert "--storage should be one of default" in capsys.readouterr().err
    (example,) = [
        text for text in code_blocks("docs/production.rst", "shell") if " usage " in text
    ]
    monkeypatch.chdir(tmp_path)
    assert run_as_written(*example.split()[1:]) == 0
    assert "stored: files 0, bytes 0\n" in capsys.readouterr().out


@ON_MEMORY
def test_is_printed_for_people(app: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from kinto_attachment.maintenance.console import show

    attach(app, content=b"12345")
    show(report(app), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        "files: 1",
        "bytes: 5",
        "stored: files 1, bytes 5",
        "buckets:",
        "  b: files 1, bytes 5",
        "storages:",
    ]
    assert (
        lines[-1] == "  bucket b, collection c, storage default, state current, files 1, bytes 5"
    )
