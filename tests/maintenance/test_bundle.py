"""``kinto-attachment bundle``: stored archives of collections, and their downloads."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import transaction

from kinto_attachment import cli
from kinto_attachment.endpoints import collection_archive
from kinto_attachment.maintenance import bundle as maintenance
from kinto_attachment.maintenance.bundle import BundleReport, bundle
from kinto_attachment.maintenance.gc import gc
from kinto_attachment.maintenance.reindex import reindex
from kinto_attachment.maintenance.relocate import relocate
from kinto_attachment.maintenance.selection import Selection
from kinto_attachment.maintenance.shards import Shard
from kinto_attachment.maintenance.usage import usage
from kinto_attachment.maintenance.verify import verify
from tests.support import forking, waiting
from tests.support.application import (
    ALICE,
    BOB,
    BUCKET,
    COLLECTION,
    CONTENT,
    OTHER,
    RECORD,
    ask,
    attach,
    links_of,
    outbox,
    put,
    put_collection,
    records,
    sha256,
    stored_files,
    userid,
    write_behind,
)
from tests.support.backends import ON_DATABASES, ON_MEMORY, ON_POSTGRESQL, Build, runs_on
from tests.support.services import PostgreSQL

ARCHIVE = f"{COLLECTION}/attachments.zip"
ASKS = {"attachment": {"bundle": True}}


def report(app: Any, selection: Selection | None = None, **options: Any) -> BundleReport:
    return bundle(app.app.registry, selection or Selection(), **options)


def ask_for_bundle(app: Any, uri: str = COLLECTION) -> None:
    app.patch_json(uri, {"data": ASKS}, headers=ALICE)


def bundles(app: Any) -> list[Any]:
    return [link for link in links_of(app) if link.state == "bundle"]


def entries(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def get(app: Any, headers: dict[str, str] = ALICE, **options: Any) -> Any:
    return app.get(ARCHIVE, headers=headers, **options)


@ON_DATABASES
class TestServing:
    def test_the_layout(self, app: Any) -> None:
        attach(app, data={"title": "first"})
        attach(app, OTHER, b"second")
        put(app, f"{COLLECTION}/records/plain")
        on_the_fly = entries(get(app).body)
        ask_for_bundle(app)
        found = report(app)
        assert (found.collections, found.made, found.found) == (1, 1, False)
        answer = get(app)
        found_entries = entries(answer.body)
        assert found_entries == on_the_fly
        assert [*found_entries] == ["other", "other.meta.json", "r", "r.meta.json", "index.json"]
        assert json.loads(found_entries["r.meta.json"]) == records(app)[RECORD]
        hashes = {
            each["id"]: each["hash"] for each in json.loads(found_entries["index.json"])["data"]
        }
        assert hashes == {"r": sha256(CONTENT), "other": sha256(b"second")}
        (link,) = bundles(app)
        assert answer.headers["ETag"] == f'"{sha256(answer.body)}"' == f'"{link.hash}"'
        assert answer.headers["Content-Type"] == "application/zip"
        assert "c.zip" in answer.headers["Content-Disposition"]
        assert "private" in answer.headers["Cache-Control"]

    def test_ranges_and_conditions(self, app: Any) -> None:
        attach(app)
        ask_for_bundle(app)
        report(app)
        whole = get(app)
        part = get(app, {**ALICE, "Range": "bytes=2-9"}, status=206)
        assert part.body == whole.body[2:10]
        assert get(app, {**ALICE, "If-None-Match": whole.headers["ETag"]}).status_code == 304
        head = app.head(ARCHIVE, headers=ALICE)
        assert head.headers["Content-Length"] == str(len(whole.body))
        link = app.get(f"{ARCHIVE}/url", headers=ALICE).json["data"]["url"]
        assert app.get(link.partition("/v1")[2]).body == whole.body

    def test_a_stale_one_is_made_on_the_fly(self, app: Any) -> None:
        attach(app)
        ask_for_bundle(app)
        report(app)
        for change in (
            lambda: attach(app, OTHER, b"second"),
            lambda: put(app, OTHER, data={"title": "new"}),
            lambda: app.delete(OTHER, headers=ALICE),
        ):
            assert "ETag" in get(app).headers
            change()
            assert "ETag" not in get(app).headers
            listed = app.get(f"{COLLECTION}/attachments", headers=ALICE).json["data"]
            found = json.loads(entries(get(app).body)["index.json"])["data"]
            assert [each["id"] for each in found] == [each["id"] for each in listed]
            assert report(app).made == 1
            assert report(app).fresh == 1
            assert len(bundles(app)) == 1
        assert [*entries(get(app).body)] == ["r", "r.meta.json", "index.json"]

    def test_filters_select_something_else(self, app: Any) -> None:
        attach(app)
        attach(app, OTHER)
        ask_for_bundle(app)
        report(app)
        answer = app.get(f"{ARCHIVE}?in_id=r", headers=ALICE)
        assert [*entries(answer.body)] == ["r", "r.meta.json", "index.json"]

    def test_who_may_read(self, app: Any) -> None:
        attach(app, permissions={"read": [userid(app, BOB)]})
        ask_for_bundle(app)
        report(app)
        assert get(app, BOB, status=403)
        assert get(app, {}, status=401)
        (link,) = bundles(app)
        # Neither by its key nor as the file of a record.
        app.get(f"/attachments/{link.key}", headers=ALICE, status=404)
        for path in ("attachment", "attachment/versions", "attachment/url"):
            app.get(f"{link.record}/{path}", headers=ALICE, status=400)
        put(app, COLLECTION, data=ASKS, permissions={"read": [userid(app, BOB)]})
        assert get(app, BOB).headers["ETag"]

    def test_larger_than_on_the_fly(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        attach(app)
        attach(app, OTHER)
        ask_for_bundle(app)
        monkeypatch.setattr(collection_archive, "MAX_FILES", 1)
        get(app, status=413)
        report(app)
        assert len(entries(get(app).body)) == 5


@ON_DATABASES
class TestLife:
    def test_it_counts_as_no_attachment(self, app: Any) -> None:
        attach(app)
        ask_for_bundle(app)
        report(app)
        head = app.head(f"{COLLECTION}/attachments", headers=ALICE)
        assert head.headers["Total-Objects"] == "1"
        for state in ("current", "kept"):
            path = f"{COLLECTION}/attachments?state={state}"
            assert len(app.get(path, headers=ALICE).json["data"]) == (state == "current")
        found = usage(app.app.registry)
        assert found.states["bundle"] == {"files": 1, "bytes": bundles(app)[0].size}
        checked = verify(app.app.registry)
        assert (checked.files, checked.found) == (2, False)

    def test_quotas_count_it(self, build: Build) -> None:
        app = build(quota_bytes="1M")
        attach(app)
        ask_for_bundle(app)
        report(app)
        used = len(CONTENT) + bundles(app)[0].size
        head = app.head(f"{COLLECTION}/attachments", headers=ALICE)
        assert head.headers["Quota-Left"] == str(1024 * 1024 - used)
        attach(app, content=b"another")
        assert report(app).made == 1

    @pytest.mark.parametrize("path", [COLLECTION, BUCKET, "/__flush__"])
    @pytest.mark.parametrize("keep", ["true", "false"])
    def test_it_ends_with_the_collection(self, build: Build, path: str, keep: str) -> None:
        app = build(keep_old_files=keep)
        ask_for_bundle(app)
        report(app)
        assert len(stored_files(app)) == 1
        if path == "/__flush__":
            app.post(path, headers=ALICE)
        else:
            app.delete(path, headers=ALICE)
        assert not stored_files(app)
        put_collection(app, data=ASKS)
        assert "ETag" not in get(app).headers

    def test_nobody_asks_for_it_any_more(self, app: Any) -> None:
        attach(app)
        ask_for_bundle(app)
        report(app)
        app.patch_json(COLLECTION, {"data": {"attachment": {"bundle": False}}}, headers=ALICE)
        assert "ETag" not in get(app).headers
        assert report(app, dry_run=True).removed == 1
        found = report(app)
        assert (found.collections, found.removed) == (0, 1)
        assert len(stored_files(app)) == 1
        assert report(app).removed == 0

    def test_an_empty_collection(self, app: Any) -> None:
        ask_for_bundle(app)
        assert report(app).made == 1
        assert entries(get(app).body) == {"index.json": b'{"data": []}\n'}
        assert report(app).fresh == 1

    def test_a_dry_run(self, app: Any) -> None:
        ask_for_bundle(app)
        assert report(app, dry_run=True).made == 1
        assert not stored_files(app)

    def test_parts(self, build: Build, tmp_path: Path) -> None:
        app = build(
            **{
                "storages.cold.base_path": str(tmp_path),
                "resources.b2.storage": "cold",
            }
        )
        for uri in (COLLECTION, f"{COLLECTION}2", "/buckets/b2/collections/c"):
            put_collection(app, uri, data=ASKS)
        assert report(app, Selection(bucket="b"), dry_run=True).made == 2
        assert report(app, Selection(bucket="b", collection="c"), dry_run=True).made == 1
        assert report(app, Selection(storage="cold")).made == 1
        (link,) = bundles(app)
        assert link.storage == "cold"
        shards = [report(app, Selection(shard=Shard(index, 3))) for index in (1, 2, 3)]
        assert sum(shard.made for shard in shards) == 2


@ON_POSTGRESQL
class TestMaintenance:
    def collect(self, app: Any) -> Any:
        none = timedelta(0)
        return gc(app.app.registry, pause=none, grace=none, orphan_age=none, really=True)

    def test_gc_and_reindex_leave_it_alone(self, app: Any) -> None:
        attach(app)
        ask_for_bundle(app)
        report(app)
        found = self.collect(app)
        assert not found.found
        assert not reindex(app.app.registry).found
        assert get(app).headers["ETag"]

    def test_gc_removes_a_dead_one(self, app: Any) -> None:
        ask_for_bundle(app)
        report(app)
        with transaction.manager:  # Without Kinto's views and listeners.
            app.app.registry.storage.delete("collection", BUCKET, "c")
        found = self.collect(app)
        assert len(found.dangling) == 1
        assert not stored_files(app)

    def test_a_lost_one_is_made_again(self, app: Any) -> None:
        attach(app)
        ask_for_bundle(app)
        report(app)
        (link,) = bundles(app)
        app.app.registry.attachment_storages.default.files.delete(link.key)
        assert "ETag" not in get(app).headers
        assert entries(get(app).body)
        assert report(app).made == 1
        assert get(app).headers["ETag"]

    def test_quiet_writes_make_it_stale(self, build: Build) -> None:
        app = build(base_url="https://files.example/")
        attach(app)
        ask_for_bundle(app)
        record = records(app)[RECORD]
        attachment = {**record["attachment"], "location": "https://old.example/x"}
        write_behind(app, RECORD, {**record, "attachment": attachment})
        report(app)
        assert "ETag" in get(app).headers
        assert relocate(app.app.registry, quietly=True).relocated == 1
        assert "ETag" not in get(app).headers
        assert report(app).made == 1
        (item,) = json.loads(entries(get(app).body)["index.json"])["data"]
        assert item["location"].startswith("https://files.example/")


@ON_DATABASES
class TestFindings:
    def test_a_missing_file(self, app: Any) -> None:
        attach(app)
        ask_for_bundle(app)
        put_collection(app, f"{COLLECTION}2", data=ASKS)
        (link,) = links_of(app)
        app.app.registry.attachment_storages.default.files.delete(link.key)
        found = report(app)
        assert found.made == 1
        assert found.failed[0].startswith(f"{COLLECTION}: ")
        assert len(stored_files(app)) == 1
        app.delete(RECORD, headers=ALICE)

    def test_a_file_that_was_cut(self, app: Any) -> None:
        attach(app)
        ask_for_bundle(app)
        (link,) = links_of(app)
        path = Path(app.app.registry.attachment_storages.default.files.path(link.key))
        path.write_bytes(b"x")
        assert len(report(app).failed) == 1
        assert not bundles(app)
        path.write_bytes(CONTENT)

    def test_too_many_files(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        attach(app)
        ask_for_bundle(app)
        report(app)
        attach(app, OTHER)
        monkeypatch.setattr(maintenance, "MAX_FILES", 1)
        found = report(app)
        assert (found.too_large, found.removed) == ([COLLECTION], 1)
        assert not bundles(app)

    def test_data_that_are_not_valid(self, app: Any) -> None:
        app.patch_json(COLLECTION, {"data": {"attachment": {"bundle": "yes"}}}, headers=ALICE)
        found = report(app)
        assert (found.collections, len(found.invalid)) == (0, 1)


@ON_POSTGRESQL
class TestBesideTheServer:
    @pytest.fixture
    def during(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """Functions to call when the archive is stored, but not put in place yet."""
        todo: list[Any] = []
        stored = maintenance._Bundling.stored

        def stored_and_then(self: Any, *args: Any) -> Any:
            link = stored(self, *args)
            if todo:
                todo.pop()()
            return link

        monkeypatch.setattr(maintenance._Bundling, "stored", stored_and_then)
        return todo

    def test_a_change_while_it_is_made(self, app: Any, during: list[Any]) -> None:
        attach(app)
        ask_for_bundle(app)
        during.append(lambda: attach(app, OTHER))
        assert report(app).made == 1
        assert not during
        assert "ETag" in get(app).headers
        assert len(entries(get(app).body)) == 5
        assert len(stored_files(app)) == 3

    def test_changes_that_do_not_end(self, app: Any, during: list[Any]) -> None:
        ask_for_bundle(app)
        during += [lambda: attach(app)] * maintenance.ATTEMPTS
        found = report(app)
        assert (found.made, found.changing, found.found) == (0, [COLLECTION], False)
        assert len(stored_files(app)) == 1

    def test_the_collection_is_deleted(self, app: Any, during: list[Any]) -> None:
        ask_for_bundle(app)
        during.append(lambda: app.delete(COLLECTION, headers=ALICE))
        assert report(app).made == 0
        assert not stored_files(app)

    def test_two_at_once(self, app: Any, during: list[Any]) -> None:
        attach(app)
        ask_for_bundle(app)
        others: list[BundleReport] = []
        during.append(lambda: others.append(report(app)))
        mine = report(app)
        assert (mine.made, mine.fresh, others[0].made) == (0, 1, 1)
        assert len(bundles(app)) == 1
        assert len(stored_files(app)) == 2

    def test_what_is_not_committed_yet(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A writer has an earlier timestamp than the collection, but commits later."""
        attach(app)
        ask_for_bundle(app)
        registry = app.app.registry
        wait, waited = maintenance.OpenTransactions.wait, []

        def wait_and_note(self: Any, seconds: float) -> bool:
            waited.append(seconds)
            return wait(self, 0.01)

        monkeypatch.setattr(maintenance.OpenTransactions, "wait", wait_and_note)

        def beside() -> BundleReport:
            return report(app)

        with transaction.manager:
            registry.storage.update("record", COLLECTION, "late", {"title": "late"})
            assert waiting.elsewhere(beside).changing == [COLLECTION]
        assert len(waited) == maintenance.ATTEMPTS
        assert report(app).made == 1


@runs_on("moto")
def test_on_s3_by_redirect(build: Build) -> None:
    app = build(downloads="redirect")
    attach(app)
    ask_for_bundle(app)
    report(app)
    url = get(app, status=302).location
    before = ask(url)
    assert len(entries(before.content)) == 3
    assert "c.zip" in before.headers["Content-Disposition"]
    attach(app, OTHER)
    assert report(app).made == 1
    # The URL that was just returned works until it expires.
    assert ask(url).content == before.content
    assert len(entries(ask(get(app, status=302).location).content)) == 5
    (entry,) = outbox(app)
    assert entry.due > before_now()
    app.app.registry.attachment_storages.default.files.delete(*entry.keys)
    with transaction.manager:
        assert app.app.registry.attachment_links.outbox.take(entry)


def before_now() -> float:
    return time.time() * 1000


INI = """\
[app:main]
use = egg:kinto
kinto.userid_hmac_secret = test
kinto.includes = kinto_attachment tests.support.owned
kinto.attachment.base_path = {files}
{settings}
"""


@ON_POSTGRESQL
def test_killed_and_run_again(
    app: Any, backends: list[dict[str, str]], tmp_path: Path, postgresql: PostgreSQL
) -> None:
    storage, database = backends
    attach(app, content=bytes(20_000_000))
    ask_for_bundle(app)
    ini = tmp_path / "kinto.ini"
    lines = "\n".join(f"kinto.{name} = {value}" for name, value in database.items())
    ini.write_text(INI.format(files=storage["base_path"], settings=lines))
    folder = Path(storage["base_path"])
    command = [sys.executable, "-m", "kinto_attachment.cli", "bundle", "--ini", str(ini)]

    def size() -> int:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    before = size()
    killed = forking.Popen(command, stdout=subprocess.PIPE)
    # If this process is slow, the bundle already exists, and there is nothing left to do.
    waiting.until(lambda: size() != before or killed.poll() is not None, pause=0.002)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=waiting.SECONDS)
    again = forking.run(
        [*command, "--json"], capture_output=True, timeout=waiting.SECONDS, check=True
    )
    assert json.loads(again.stdout)["collections"] == 1
    none = timedelta(0)
    gc(app.app.registry, pause=none, grace=none, orphan_age=none, really=True)
    assert len(stored_files(app)) == 2  # Because the fixture compares it with the stored files.
    assert len(entries(get(app).body)["r"]) == 20_000_000


@ON_MEMORY
def test_the_endpoint_costs_nothing_without_it(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attach(app)

    def fail(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(collection_archive.Bundles, "fresh", fail)
    assert entries(get(app).body)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ini = tmp_path / "kinto.ini"
    ini.write_text(INI.format(files=tmp_path / "files", settings=""))
    command = ["bundle", "--ini", str(ini), "--bucket", "b", "--collection", "c"]
    assert cli.main([*command, "--json", "--shard", "1/2", "--dry-run"]) == 0
    answer = capsys.readouterr()
    assert json.loads(answer.out)["collections"] == 0
    assert "in memory" in answer.err
    assert cli.main([*command, "--quiet", "--debug", "--storage", "default"]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main([*command, "--storage", "none"]) == 2
