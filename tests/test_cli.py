"""The command ``kinto-attachment``: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from pyramid.threadlocal import manager

from kinto_attachment import cli
from kinto_attachment.maintenance.console import Meter, show
from tests.support import forking, waiting
from tests.support.owned import STRAY


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


@pytest.fixture
def ini(tmp_path: Path, files: Path) -> Path:
    path = tmp_path / "kinto.ini"
    path.write_text(
        "[app:main]\nuse = egg:kinto\nkinto.includes = kinto_attachment tests.support.owned\n"
        f"kinto.userid_hmac_secret = secret\nkinto.attachment.base_path = {files}\n"
    )
    return path


@dataclass(frozen=True)
class Done:
    returncode: int | str | None
    stdout: str
    stderr: str


def run_process(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kinto_attachment.cli", *map(str, arguments)]
    return forking.run(command, capture_output=True, text=True, timeout=waiting.SECONDS)


def test_the_help_does_not_depend_on_docstrings() -> None:
    command = [sys.executable, "-OO", "-m", "kinto_attachment.cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=waiting.SECONDS)
    assert done.returncode == 0, done.stderr
    assert cli.DESCRIPTION in " ".join(done.stdout.split())


UNFINISHED = {
    "record": "/buckets/b/collections/c/records/r",
    "id": "4b8e",
    "owner": "basicauth:941a",
    "protocol": "tus/1.0.0",
    "state": "open",
    "filename": "a.txt",
    "offset": 5,
    "size": 1100,
    "created": 1_763_683_200_000,
    "expires_at": 1_763_769_600_000,
}
GC = ("gc", "--orphan-age", "0", "--ini")

Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process, which is faster, for tests that are not about processes."""

    def run(*arguments: str | Path) -> Done:
        code: int | str | None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="HTTPS is not enabled")
            try:
                code = cli.main([*map(str, arguments)])
            except SystemExit as stopped:
                code = stopped.code
            finally:
                manager.clear()  # A command leaves a manager active at its end.
        return Done(code, *capsys.readouterr())

    return run


def stray(files: Path, age: timedelta = timedelta(hours=2)) -> Path:
    """A file that belongs to no record, written a while ago."""
    path = files / STRAY
    path.write_bytes(b"stray")
    written = path.stat().st_mtime - age.total_seconds()
    os.utime(path, (written, written))
    return path


def test_a_clean_server(ini: Path) -> None:
    done = run_process(*GC, ini, "--dry-run")
    assert done.returncode == 0
    assert "unlinked: 0" in done.stdout


def test_a_dry_run_that_finds_something_says_so(ini: Path, files: Path, run: Run) -> None:
    path = stray(files)
    done = run(*GC, ini, "--dry-run")
    assert done.returncode == 1
    assert f"unlinked: 1\n  {STRAY}\n" in done.stdout
    assert path.exists()


def test_gc_deletes_and_reports_as_json(ini: Path, files: Path) -> None:
    path = stray(files)
    done = run_process(*GC, ini, "--json")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert (report["unlinked"], report["freed"], report["errors"]) == ([STRAY], 5, [])
    assert not path.exists()


def test_the_grace_period_is_an_hour_unless_told(ini: Path, files: Path, run: Run) -> None:
    stray(files, age=timedelta(minutes=50))
    assert "unlinked: 0" in run(*GC, ini, "--dry-run").stdout
    assert "unlinked: 1" in run(*GC, ini, "--dry-run", "--grace", "45m").stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["gc"], "--ini"),
        (["gc", "--ini", "x", "--grace", "soon"], "90s, 30m, 1h or 7d"),
        *(
            (["gc", "--ini", "x", f"--shard={text}"], "i/n")
            for text in ("", "1", "0/2", "3/2", "1/257", "-1/2", "a/b", "1/2/3")
        ),
        (["frobnicate"], "invalid choice"),
        ([], "COMMAND"),
    ],
)
def test_arguments_that_make_no_sense(arguments: list[str], problem: str, run: Run) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


def test_shards(ini: Path, files: Path, run: Run) -> None:
    path = stray(files)
    codes = [run(*GC, ini, "--dry-run", "--shard", f"{n}/2").returncode for n in (1, 2)]
    assert sorted(codes) == [0, 1]
    assert path.exists()


def test_gc_of_one_storage(ini: Path, files: Path, tmp_path: Path, run: Run) -> None:
    cold = tmp_path / "cold"
    cold.mkdir()
    with ini.open("a") as settings:
        settings.write(f"kinto.attachment.storages.cold.base_path = {cold}\n")
    paths = [stray(files), stray(cold)]
    done = run(*GC, ini, "--storage", "colt")
    assert done.returncode == 2
    assert done.stderr.endswith("--storage should be one of default, cold\n")
    assert run(*GC, ini, "--storage", "cold").returncode == 0
    assert [path.exists() for path in paths] == [True, False]
    done = run(*GC, ini, "--storage", "default", "--dry-run")
    assert f"unlinked: 1\n  {STRAY}\n" in done.stdout


def test_reindex_of_nothing(ini: Path, run: Run) -> None:
    done = run("reindex", "--ini", ini, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {
        "records": 0,
        "linked": 0,
        "completed": 0,
        "recounted": 0,
        "foreign": [],
        "missing": [],
        "claimed": 0,
    }


def test_uploads_of_nothing(ini: Path, run: Run) -> None:
    done = run("uploads", "--ini", ini, "--json", "--bucket", "b", "--collection", "c")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"uploads": [], "bytes": 0})
    assert run("uploads", "--ini", ini, "--quiet").stdout == ""


def test_a_release_of_nothing(ini: Path, run: Run) -> None:
    record = "/buckets/b/collections/c/records/r"
    command = ["release-hold", "--ini", ini, "--json", "--quiet", "--debug"]
    options = ["--reason", "x", "--by", "olga", "--version", "v", "--dry-run"]
    done = run(*command, *options, record)
    assert done.returncode == 2
    (error,) = json.loads(done.stdout)["errors"]
    assert record in error
    done = run(*command, "--reason", "x", "nonsense")
    assert done.returncode == 2
    assert "RECORD should be a URI" in done.stderr
    assert run(*command, record).returncode == 2


@pytest.mark.parametrize("command", ["uploads", "usage", "reindex"])
def test_commands_say_that_they_find_nothing_in_memory(ini: Path, run: Run, command: str) -> None:
    done = run(command, "--ini", ini)
    assert done.returncode == 0
    assert "WARNING: Kinto's storage backend is in memory" in done.stderr
    assert "Set kinto.storage_backend to the database." in done.stderr
    assert run(command, "--ini", ini, "--quiet").stderr == ""


def test_unfinished_uploads_are_printed_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    from kinto_attachment.maintenance.uploads import Line, UploadsReport

    report = UploadsReport([Line(UNFINISHED)], bytes=5)
    show(report, as_json=False)
    assert capsys.readouterr().out == (
        "uploads: 1\n"
        "  /buckets/b/collections/c/records/r a.txt: 5 of 1,100 bytes, "
        "open until 2025-11-22T00:00:00Z, tus/1.0.0, 4b8e\n"
        "bytes: 5\n"
    )
    show(report, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"uploads": [UNFINISHED], "bytes": 5}


def test_progress_is_one_line_on_a_terminal(
    ini: Path, files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, secondary = pty.openpty()
    with os.fdopen(secondary, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Meter() as meter:
            meter.show("files scanned", 1_000)
            meter.show("files scanned", 12_345, 20_000)
        expected = "\r\x1b[Kfiles scanned: 1,000\r\x1b[Kfiles scanned: 12,345 of 20,000\r\x1b[K"
        shown = ""
        while len(shown) < len(expected):
            shown += os.read(primary, 1000).decode()
    os.close(primary)
    assert shown == expected


def test_progress_is_plain_lines_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter() as meter:
        meter.show("files scanned", 0)
        meter.show("files scanned", 1_000)
        meter.show("files scanned", 20_000, 30_000)
        meter.show("files scanned", 40_000, 30_000)  # More than were counted before.
    expected = "files scanned: 20,000 of 30,000\nfiles scanned: 40,000 of 40,000\n"
    assert capsys.readouterr().err == expected


def test_long_lists_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    from kinto_attachment.maintenance.collection import GcReport

    show(GcReport(unlinked=[f"key-{number}" for number in range(25)]), as_json=False)
    shown = capsys.readouterr().out
    assert "  key-19\n  … and 5 more\n" in shown
    assert "key-20" not in shown


@pytest.mark.parametrize("command", ["upload", "download"])
def test_the_client_s_commands_are_there(command: str, run: Run) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert "--collection" in done.stdout


def test_without_the_client_s_libraries_they_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("kinto_attachment.client")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kinto_http", None)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["upload", "x"])
    assert stopped.value.code == 2
    assert "pip install kinto-http rich" in capsys.readouterr().err
