"""``kinto-attachment move``: files move to another storage, whatever else happens."""

from __future__ import annotations

import gzip
import io
import json
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import transaction
from kinto.core.utils import msec_time

from kinto_attachment import cli
from kinto_attachment.errors import StorageFull, StorageUnavailable
from kinto_attachment.index.spares import Spare
from kinto_attachment.maintenance import move as maintenance, transfer
from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.maintenance.move import MoveReport, move
from kinto_attachment.maintenance.selection import Selection
from kinto_attachment.maintenance.shards import Shard
from kinto_attachment.maintenance.transfer import LEASE
from kinto_attachment.maintenance.usage import usage
from kinto_attachment.maintenance.verify import verify
from tests.support import invariants
from tests.support.application import (
    ALICE,
    COLLECTION,
    CONTENT,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    key_of,
    links_of,
    placed_files,
    put_collection,
    put_raw,
    read,
    records,
    stored_content,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_MEMORY, Build, runs_on
from tests.support.documents import code_blocks
from tests.support.services import S3

AT_ONCE = timedelta(0)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cold")


@pytest.fixture
def app(build: Build, folder: Path) -> Any:
    return build(
        **{"storages.cold.base_path": str(folder), "resources.b.kept.keep_old_files": "true"}
    )


def run(app: Any, to: str = "cold", selection: Selection | None = None, **options: Any) -> Any:
    options = {"keep": AT_ONCE, **options}
    return move(app.app.registry, to, selection or Selection(), **options)


def check(app: Any, storage: str, count: int) -> None:
    """Check that all files are complete in one storage, and nothing is left to do."""
    registry = app.app.registry
    assert {link.storage for link in links_of(app)} <= {storage}
    assert {name for name, _ in placed_files(app)} <= {storage}
    assert not invariants.lost(registry)
    assert not invariants.left(registry)
    report = verify(registry)
    assert (report.files, report.found) == (count, False)


@EVERYWHERE
def test_there_and_back(app: Any) -> None:
    contents = [b"", b"small", os.urandom(300_000)]
    for number, content in enumerate(contents):
        attach(app, f"{COLLECTION}/records/r{number}", content)
    before = records(app)
    for to in ("cold", ""):
        report = run(app, to)
        assert (report.files, report.bytes, report.deleted) == (3, 300_005, 3)
        assert not report.found
        check(app, to, 3)
        assert run(app, to).files == 0
    assert records(app) == before
    for number, content in enumerate(contents):
        assert read(app, f"{COLLECTION}/records/r{number}/attachment") == content


KEPT = "/buckets/b/collections/kept"


@ON_DATABASES
def test_versions_shared_files_holds_and_ended_lives(app: Any) -> None:
    put_collection(app, KEPT)
    versioned, gone, copy = (f"{KEPT}/records/{name}" for name in ("r", "gone", "copy"))
    for content in (b"old", b"new"):
        attach(app, versioned, content)
    attach(app, gone, b"gone")
    app.delete(gone, headers=ALICE)
    app.post_json(f"{copy}/attachment", {"copy_from": versioned}, headers=ALICE)
    app.put_json(f"{copy}/attachment/hold", {"data": {"until": None}}, headers=ALICE)
    first = app.get(f"{versioned}/attachment/versions", headers=ALICE).json["data"][1]["id"]
    links = {(link.record, link.key): replace(link, storage="") for link in links_of(app)}
    for to in ("cold", ""):
        assert run(app, to).files == 3
        check(app, to, 3)
        moved = {(link.record, link.key): replace(link, storage="") for link in links_of(app)}
        assert moved == links
        app.delete(copy, headers=ALICE, status=423)
        found = app.get(f"{versioned}/attachment/versions/{first}", headers=ALICE)
        assert found.body == b"old"
        versions = app.get(f"{gone}/attachment/versions", headers=ALICE).json["data"]
        assert [version["state"] for version in versions] == ["kept"]
    run(app)
    app.post(f"{versioned}/attachment/versions/{first}/restore", headers=ALICE)
    assert read(app, f"{versioned}/attachment") == b"old"
    assert read(app, f"{copy}/attachment") == b"new"
    app.delete(f"{copy}/attachment/hold", headers=ALICE)
    assert usage(app.app.registry).storages == {"cold": {"files": 4, "bytes": 13}}


@ON_MEMORY
class TestCopiesThatStay:
    def test_for_a_while(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        attach(app, content=CONTENT)
        monkeypatch.setattr(maintenance, "LONGEST_WAIT", AT_ONCE)
        report = run(app, keep=None)
        assert (report.files, report.deleted, report.later) == (1, 0, 1)
        (spare,) = app.app.registry.attachment_links.spares.all()
        assert (spare.storage, spare.due - spare.since) == ("", 60_000)
        assert {name for name, _ in placed_files(app)} == {"", "cold"}
        assert invariants.collect(app.app.registry).spare == []
        assert verify(app.app.registry).files == 1
        # Neither it nor the other one is needed when the file is moved back.
        assert (run(app, "").files, run(app, "").deleted) == (1, 0)
        check(app, "", 1)

    def test_and_the_command_waits(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        attach(app, content=CONTENT)
        now, slept, told = msec_time(), [0.0], []
        clock = SimpleNamespace(sleep=slept.append, monotonic=time.monotonic)
        monkeypatch.setattr(maintenance, "time", clock)
        for module in (maintenance, transfer):
            monkeypatch.setattr(module, "msec_time", lambda: now + round(1000 * sum(slept)))
        report = run(
            app, keep=timedelta(seconds=2), progress=lambda step, *counts: told.append(step)
        )
        assert (report.deleted, report.later) == (1, 0)
        assert told == ["files moved", *["seconds until the last copies are deleted"] * 2]
        assert 2 <= sum(slept) < 2.1
        check(app, "cold", 1)

    def test_gc_deletes_them_later(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        attach(app, content=CONTENT)
        monkeypatch.setattr(maintenance, "LONGEST_WAIT", AT_ONCE)
        run(app, keep=HOUR)
        (link,) = links_of(app)
        spares = app.app.registry.attachment_links.spares
        with transaction.manager:  # As if the hour had passed.
            (spare,) = spares.all()
            spares.put(replace(spare, due=1))
        assert invariants.collect(app.app.registry).spare == [link.key]
        check(app, "cold", 1)

    def test_gc_takes_none_for_a_file_without_a_record(
        self, app: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        attach(app, content=CONTENT)
        monkeypatch.setattr(maintenance, "LONGEST_WAIT", AT_ONCE)
        run(app, keep=HOUR)
        app.delete(RECORD, headers=ALICE)
        assert invariants.collect(app.app.registry).unlinked == []
        assert {name for name, _ in placed_files(app)} == {""}
        forget_due(app)
        invariants.collect(app.app.registry)
        assert not invariants.left(app.app.registry)

    def test_while_another_run_may_write_them(self, app: Any) -> None:
        attach(app)
        run(app)
        registry, now, key = app.app.registry, msec_time(), "copy.txt"
        registry.attachment_storages["cold"].files.write(key, io.BytesIO(b"x"), "text/plain")
        for since, deleted in ((now, 0), (now - LEASE + 60_000, 0), (now - LEASE, 1)):
            spare = Spare(key, since, "cold", writer="another run")
            with transaction.manager:
                registry.attachment_links.spares.put(spare)
            assert run(app).deleted == deleted
            assert (("cold", key) in placed_files(app)) == (not deleted)

    def test_where_a_location_still_points(self, build: Build, folder: Path) -> None:
        options = {"storages.cold.base_path": str(folder), "base_url": "https://cdn.example/files"}
        app = build(**options)
        attach(app, content=CONTENT)
        report = run(app)
        assert (report.files, report.deleted, report.pointed_at) == (1, 0, 1)
        assert (run(app).pointed_at, report.found) == (1, False)
        invariants.collect(app.app.registry)
        assert {name for name, _ in placed_files(app)} == {"", "cold"}
        (link,) = links_of(app)
        location = f"http://localhost/v1/attachments/{link.key}"
        change_location(app, RECORD, location)
        report = run(app)
        assert (report.files, report.deleted, report.pointed_at) == (0, 1, 0)
        check(app, "cold", 1)

    def test_two_storages_at_one_address(self, build: Build, folder: Path) -> None:
        url = "https://cdn.example/files/"
        app = build(
            **{
                "storages.cold.base_path": str(folder),
                "storages.cold.base_url": url,
                "base_url": url,
            }
        )
        attach(app, content=CONTENT)
        assert run(app).deleted == 1
        check(app, "cold", 1)


def forget_due(app: Any) -> None:
    spares = app.app.registry.attachment_links.spares
    with transaction.manager:
        for spare in spares.all():
            spares.put(replace(spare, due=0))


def change_location(app: Any, uri: str, location: str) -> None:
    """Change the location of a file like ``relocate``."""
    parent, _, object_id = uri.rpartition("/records/")
    data = {"attachment": {**attachment_of(app, uri), "location": location}}
    with transaction.manager:
        app.app.registry.storage.update("record", parent, object_id, data)


@ON_MEMORY
class TestReadonly:
    def test_the_file_of_others_stays(self, app: Any) -> None:
        attach(app, content=CONTENT)
        (link,) = links_of(app)
        links = app.app.registry.attachment_links
        with transaction.manager:
            links.revise(link.key, lambda each: replace(each, readonly=True))
        report = run(app)
        assert (report.files, report.deleted, report.readonly) == (1, 0, 1)
        assert not links_of(app)[0].readonly, "the copy is ours"
        assert run(app, "").files == 1
        assert links_of(app)[0].readonly
        run(app)
        app.delete(RECORD, headers=ALICE)
        invariants.collect(app.app.registry)
        assert placed_files(app) == {("", link.key)}
        with transaction.manager:
            links.spares.delete("", [link.key])
        app.app.registry.attachment_storages[""].files.delete(link.key)


@ON_MEMORY
class TestSelection:
    def test_parts(self, app: Any) -> None:
        put_collection(app, "/buckets/b2/collections/c")
        for uri in (RECORD, OTHER, "/buckets/b2/collections/c/records/r"):
            attach(app, uri)
        assert run(app, selection=Selection(storage="cold"), to="").files == 0
        assert run(app, selection=Selection(bucket="b2"), dry_run=True).files == 1
        assert run(app, selection=Selection(bucket="b2")).files == 1
        assert run(app, selection=Selection(collection="none")).files == 0
        shards = [run(app, selection=Selection(shard=Shard(part, 3))) for part in (1, 2, 3)]
        assert sum(shard.files for shard in shards) == 2
        check(app, "cold", 3)

    def test_nothing_is_done_in_a_dry_run(self, app: Any) -> None:
        attach(app, content=b"12345")
        report = run(app, dry_run=True)
        assert (report.files, report.bytes) == (1, 5)
        check(app, "", 1)

    def test_a_storage_that_is_not_configured(self, app: Any) -> None:
        attach(app)
        (link,) = links_of(app)
        links = app.app.registry.attachment_links
        with transaction.manager:
            links.revise(link.key, lambda each: replace(each, storage="former"))
        assert run(app).elsewhere == {"former": 1}
        with transaction.manager:
            links.revise(link.key, lambda each: replace(each, storage=""))


def files_of(app: Any, storage: str = "") -> Any:
    return app.app.registry.attachment_storages[storage].files


def flipped(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


def exchange(app: Any, key: str, content: bytes, storage: str = "") -> None:
    files_of(app, storage).delete(key)
    files_of(app, storage).write(key, io.BytesIO(content), "text/plain")


@ON_MEMORY
class TestDamage:
    @pytest.mark.parametrize(
        ("damaged", "reason"),
        [(flipped(CONTENT), "its SHA-256 is"), (b"", "it has 0 bytes"), (None, "it does not")],
        ids=["flipped", "cut", "missing"],
    )
    def test_of_the_file(self, app: Any, damaged: bytes | None, reason: str) -> None:
        attach(app, content=CONTENT)
        (link,) = links_of(app)
        files_of(app).delete(link.key)
        if damaged is not None:
            exchange(app, link.key, damaged)
        report = run(app)
        (finding,) = report.missing if damaged is None else report.damaged
        assert finding["reason"].startswith(reason)
        assert finding["records"] == [RECORD]
        assert report.files == 0
        assert links_of(app)[0].storage == ""
        assert not files_of(app, "cold").exists(link.key)
        files_of(app).delete(link.key)
        exchange(app, link.key, CONTENT)
        assert run(app).files == 1

    def test_of_the_copy(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        attach(app, content=CONTENT)
        write = files_of(app, "cold").write

        def damage(key: str, reader: Any, *args: Any, **kwargs: Any) -> Any:
            return write(key, io.BytesIO(flipped(reader.read())), *args, **kwargs)

        monkeypatch.setattr(files_of(app, "cold"), "write", damage)
        (finding,) = run(app).failed
        assert finding["reason"].startswith("the copy is damaged: its SHA-256 is")
        monkeypatch.undo()
        check(app, "", 1)
        assert run(app).files == 1

    @pytest.mark.parametrize("content", [CONTENT, flipped(CONTENT), b""])
    def test_a_copy_that_a_killed_run_has_left(self, app: Any, content: bytes) -> None:
        attach(app, content=CONTENT)
        (link,) = links_of(app)
        files_of(app, "cold").write(link.key, io.BytesIO(content), "text/plain")
        assert run(app).files == 1
        check(app, "cold", 1)

    def test_a_file_of_others_by_the_same_name(self, build: Build, folder: Path) -> None:
        app = build(**{"storages.cold.base_path": str(folder), "randomize": "false"})
        attach(app, content=CONTENT)
        (link,) = links_of(app)
        files_of(app, "cold").write(link.key, io.BytesIO(b"theirs"), "text/plain")
        (finding,) = run(app).failed
        assert finding["reason"] == "the storage cold has another file of this name"
        assert stored_content(app, link.key, "cold") == b"theirs"
        files_of(app, "cold").delete(link.key)
        assert run(app).files == 1
        check(app, "cold", 1)


@ON_MEMORY
class TestOutages:
    def test_the_target_is_full(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        for uri in (RECORD, OTHER):
            attach(app, uri)
        monkeypatch.setattr(files_of(app, "cold"), "write", failing(StorageFull))
        with pytest.raises(CommandError, match="The storage 'cold'"):
            run(app)
        monkeypatch.undo()
        check(app, "", 2)

    def test_the_target_does_not_answer(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        for uri in (RECORD, OTHER):
            attach(app, uri)
        monkeypatch.setattr(files_of(app, "cold"), "write", failing(StorageUnavailable))
        assert len(run(app).failed) == 2
        monkeypatch.setattr(maintenance, "MOST_FAILURES", 1)
        with pytest.raises(CommandError, match="The storage 'cold'"):
            run(app)
        monkeypatch.undo()
        check(app, "", 2)
        assert run(app).files == 2

    def test_the_source_deletes_nothing(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        attach(app)
        monkeypatch.setattr(files_of(app), "delete", failing(StorageUnavailable))
        report = run(app)
        assert (report.files, report.deleted, len(report.errors)) == (1, 0, 1)
        monkeypatch.undo()
        assert run(app).deleted == 1
        check(app, "cold", 1)


def failing(error: type[Exception]) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error()

    return fail


@ON_MEMORY
def test_the_rate_is_bounded(app: Any) -> None:
    attach(app, content=os.urandom(50_000))
    started = time.monotonic()
    run(app, rate=200_000)  # It is read twice.
    assert time.monotonic() - started >= 0.5


@pytest.mark.moto
@ON_MEMORY
def test_to_s3(build: Build, moto: S3) -> None:
    bucket = moto.create_bucket()
    target = {**moto.options(bucket), "aws.acl": "public-read", "aws.storage_class": "STANDARD_IA"}
    app = build(
        inline_types="image/png",
        content_encodings="gzip",
        **{f"storages.cold.{name}": value for name, value in target.items()},
    )
    put_raw(app, RECORD, b"a picture", filename="a.png", content_type="image/png")
    put_raw(app, OTHER, gzip.compress(b"text"), headers={**ALICE, "Content-Encoding": "gzip"})
    assert run(app).files == 2
    check(app, "cold", 2)
    picture, text = (
        moto.client().get_object(Bucket=bucket, Key=key_of(attachment_of(app, uri)))
        for uri in (RECORD, OTHER)
    )
    assert picture["ContentType"] == "image/png"
    assert picture["ContentDisposition"].startswith("inline")
    assert picture["StorageClass"] == "STANDARD_IA"
    assert text["ContentEncoding"] == "gzip"
    assert text["ContentDisposition"].startswith("attachment")
    grants = moto.client().get_object_acl(Bucket=bucket, Key=key_of(attachment_of(app, RECORD)))
    assert "AllUsers" in str(grants["Grants"])


@runs_on("seaweedfs")
def test_signed_urls_of_the_storage_work_for_their_time(
    build: Build, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = build(
        downloads="redirect", signed_url_ttl="1", **{"storages.cold.base_path": str(folder)}
    )
    attach(app, content=CONTENT)
    url = app.get(f"{RECORD}/attachment", headers=ALICE, status=302).headers["Location"]
    monkeypatch.setattr(maintenance, "KEPT_FOR", AT_ONCE)
    answers = []

    def ask_meanwhile(step: str, *counts: Any) -> None:
        if step.startswith("seconds"):
            answers.append(requests.get(url, timeout=60).content)

    assert run(app, keep=None, progress=ask_meanwhile).deleted == 1
    assert {*answers} == {CONTENT}
    assert requests.get(url, timeout=60).status_code in (403, 404)
    assert read(app) == CONTENT
    check(app, "cold", 1)


@runs_on("gcs")
def test_from_s3_to_google(build: Build, moto: S3) -> None:
    source = moto.options(moto.create_bucket())
    app = build(**{f"storages.s3.{name}": value for name, value in source.items()})
    content = os.urandom(300_000)
    attach(app, content=content)
    for to in ("s3", "", "s3", ""):
        assert run(app, to).files == 1
        check(app, to, 1)


INI = """\
[app:main]
use = egg:kinto
kinto.userid_hmac_secret = test
kinto.includes = kinto_attachment tests.support.owned
kinto.attachment.base_path = %(here)s/files
kinto.attachment.storages.cold.base_path = %(here)s/cold
"""


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ini = tmp_path / "kinto.ini"
    ini.write_text(INI)
    command = ["move", "--ini", str(ini)]
    assert cli.main([*command, "--to", "cold", "--json", "--rate", "50M", "--keep", "1h"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == 0
    for wrong in (["--to", "none"], ["--to", "cold", "--storage", "cold"]):
        assert cli.main([*command, *wrong]) == 2
        assert wrong[-2] in capsys.readouterr().err
    assert cli.main([*command, "--to", "cold", "--dry-run", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main([*command, "--to", "cold", "--debug"]) == 0


def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kinto.ini").write_text(INI.replace(".cold.", ".s3."))
    monkeypatch.chdir(tmp_path)
    blocks = code_blocks("docs/between-storages.rst", "shell")
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) >= 3
    for command in commands:
        program, *arguments = shlex.split(command)
        assert (program, cli.main(arguments)) == ("kinto-attachment", 0), command


class Stub:
    """Returns a report that a test chooses to the command."""

    def __init__(self, **found: Any) -> None:
        self.report = MoveReport(**found)

    def __call__(self, *args: Any, **kwargs: Any) -> MoveReport:
        return self.report


@pytest.mark.parametrize(
    ("found", "options", "code"),
    [
        ({"files": 3, "later": 1, "pointed_at": 2, "readonly": 1}, [], 0),
        ({"files": 3}, ["--dry-run"], 1),
        ({"missing": ["x"]}, [], 1),
        ({"elsewhere": {"former": 1}}, [], 1),
        ({"failed": ["x"]}, [], 2),
        ({"errors": ["x"]}, [], 2),
    ],
)
def test_exit_codes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    found: dict[str, Any],
    options: list[str],
    code: int,
) -> None:
    ini = tmp_path / "kinto.ini"
    ini.write_text(INI)
    monkeypatch.setattr("kinto_attachment.commands.move.move", Stub(**found))
    assert cli.main(["move", "--ini", str(ini), "--to", "cold", *options]) == code
