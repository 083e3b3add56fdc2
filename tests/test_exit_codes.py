"""Results of ``kinto-attachment gc`` and ``reindex`` for cron: exit codes, a line for each error.

The commands run in this process. One also runs as a process, to check that the result is the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from kinto_attachment import cli
from kinto_attachment.storage.local import UNFINISHED_FOLDER
from tests.support import forking, live, waiting
from tests.support.owned import STRAY
from tests.support.sampling import sampled
from tests.support.services import PostgreSQL

RECORD = "/buckets/b/collections/c/records/r"
COMMANDS = ["gc", "reindex"]
GC = ("gc", "--orphan-age", "0", "--ini")


@dataclass(frozen=True)
class Site:
    """An ini file and the folder of the files."""

    folder: Path

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def ini(self) -> Path:
        return self.folder / "kinto.ini"

    def configure(self, **settings: str | None) -> Path:
        """Write the ini file; a setting that is None is left out."""
        lines = {
            "kinto.includes": "kinto_attachment tests.support.owned",
            "kinto.userid_hmac_secret": "secret",
            "kinto.attachment.base_path": str(self.files),
            **{f"kinto.{name}": value for name, value in settings.items()},
        }
        text = "\n".join(f"{name} = {value}" for name, value in lines.items() if value is not None)
        self.ini.write_text(f"[app:main]\nuse = egg:kinto\n{text}\n")
        return self.ini

    def stray(self) -> Path:
        """A file that belongs to no record, written two hours ago."""
        path = self.files / STRAY
        path.write_bytes(b"stray")
        written = path.stat().st_mtime - 7200
        os.utime(path, (written, written))
        return path


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "files").mkdir()
    site = Site(tmp_path)
    site.configure()
    return site


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""

    def run(*arguments: str | Path) -> Done:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as exit:
            code = int(exit.code or 0)
        return Done(code, *capsys.readouterr())

    return run


NOWHERE = "postgresql://postgres:@127.0.0.1:9/kinto"  # Nothing listens there.
POSTGRESQL = {"storage_backend": "kinto.core.storage.postgresql", "storage_url": NOWHERE}
S3 = {
    "attachment.base_path": None,
    "attachment.aws.bucket_name": "b",
    "attachment.aws.access_key": "k",
    "attachment.aws.secret_key": "s",
    "attachment.aws.num_retries": "1",
    "attachment.aws.endpoint_url": "http://127.0.0.1:9",
}

ERRORS: dict[str, tuple[Mapping[str, str | None], str]] = {
    "no storage is set": ({"attachment.base_path": None}, "Set one storage, exactly"),
    "a setting is not one": ({"attachment.base_pat": "x"}, "Did you mean"),
    "a value is invalid": ({"attachment.max_size": "much"}, "kinto.attachment.max_size"),
    "the plugin is not included": (
        {"includes": None},
        "kinto_attachment is not in kinto.includes",
    ),
    "another plugin is missing": ({"includes": "kinto_attachment nope"}, "nope"),
    "the database is down": (POSTGRESQL, "Connection refused"),
    "the backend is none": ({"storage_backend": "kinto.core.storage.nope"}, "nope"),
}


def assert_error(done: Done, command: str, reason: str) -> None:
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line.startswith(f"kinto-attachment {command}: ")
    assert reason in line
    assert "Traceback" not in done.out


@sampled(2, "command", "settings")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("settings", "reason"), ERRORS.values(), ids=list(ERRORS))
def test_an_error_is_one_line_and_exit_code_2(
    site: Site, run: Run, command: str, settings: Mapping[str, str | None], reason: str
) -> None:
    done = run(command, "--ini", site.configure(**settings))
    assert_error(done, command, reason)
    assert not done.out


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_or_broken_ini_file(site: Site, run: Run, command: str) -> None:
    nowhere = site.folder / "nowhere.ini"
    assert_error(run(command, "--ini", nowhere), command, f"{nowhere}: there is no such file")
    site.ini.write_text("[app:other]\nuse = egg:kinto\n")
    assert_error(run(command, "--ini", site.ini), command, "kinto.ini")
    site.ini.write_text("no ini\n")
    assert_error(run(command, "--ini", site.ini), command, "kinto.ini")


def test_a_storage_that_is_down(site: Site, run: Run) -> None:
    done = run("gc", "--ini", site.configure(**S3))
    assert_error(done, "gc", "The storage 'default'")
    assert "EndpointConnectionError" in done.err


@pytest.fixture(scope="module")  # Kinto keeps connections in this process.
def empty_database(postgresql: PostgreSQL) -> Iterator[str]:
    postgresql.execute("CREATE DATABASE not_migrated")
    url = postgresql._url("not_migrated")
    yield url
    postgresql.drop_database(url)


@pytest.mark.postgresql
@pytest.mark.parametrize("command", COMMANDS)
def test_a_database_that_was_not_migrated(
    site: Site, run: Run, empty_database: str, command: str
) -> None:
    ini = site.configure(**{**POSTGRESQL, "storage_url": empty_database})
    assert_error(run(command, "--ini", ini), command, f"run kinto migrate --ini {ini}")


@pytest.mark.postgresql
def test_a_database_of_an_earlier_kinto(site: Site, run: Run, postgresql: PostgreSQL) -> None:
    url = postgresql.create_database()
    name = url.split("?")[0].rsplit("/", 1)[1]
    older = "UPDATE metadata SET value = '19' WHERE name = 'storage_schema_version'"
    postgresql.execute(older, database=name)
    ini = site.configure(**{**POSTGRESQL, "storage_url": url})
    assert_error(run("gc", "--orphan-age", "0", "--ini", ini), "gc", "earlier Kinto")
    postgresql.drop_database(url)


def test_an_error_of_a_process_is_one_line(site: Site) -> None:
    """In the tests' own process, pytest captures what Python would write to stderr."""
    ini = site.configure(**POSTGRESQL)
    command = [sys.executable, "-m", "kinto_attachment.cli", "gc", "--ini", str(ini)]
    done = forking.run(command, capture_output=True, text=True, timeout=120)
    assert_error(Done(done.returncode, done.stdout, done.stderr), "gc", "Connection refused")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_report_that_has_no_room(site: Site, options: list[str]) -> None:
    """The exit code is not 1, which means that something was found."""
    command = [sys.executable, "-m", "kinto_attachment.cli", "verify", "--ini", str(site.ini)]
    with open("/dev/full", "wb") as full:
        done = forking.run(
            [*command, *options], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
        )
    *warnings, line = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("kinto-attachment verify: The report: ")
    assert "No space left" in line
    assert "Traceback" not in "".join(warnings)


def test_a_report_that_nobody_reads_to_its_end(site: Site) -> None:
    command = [sys.executable, "-m", "kinto_attachment.cli", "verify", "--ini", str(site.ini)]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = forking.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    finally:
        os.close(writer)
    assert done.returncode == 0
    assert "BrokenPipe" not in done.stderr


def test_with_json_an_error_is_an_object_too(site: Site, run: Run) -> None:
    done = run("gc", "--json", "--ini", site.configure(includes=None))
    assert done.code == 2
    (message,) = json.loads(done.out)["errors"]
    assert message in done.err


def test_with_debug_there_is_a_traceback(site: Site, run: Run) -> None:
    done = run("gc", "--debug", "--ini", site.configure(**POSTGRESQL))
    assert done.code == 2
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("kinto-attachment gc: The database: ")


def test_an_error_that_nobody_thought_of_is_not_something_found(
    site: Site, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("kinto_attachment.commands.gc.gc", fail)
    assert_error(
        run(*GC, site.ini),
        "gc",
        "ZeroDivisionError: division by zero",
    )


def test_a_file_that_cannot_be_deleted_is_an_error(
    site: Site, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray = site.stray()
    monkeypatch.setattr(os, "unlink", refuse)  # Permissions do not restrict root.
    done = run(*GC, site.ini, "--json")
    monkeypatch.undo()
    assert done.code == 2
    report = json.loads(done.out)
    assert (report["unlinked"], report["finished"], report["freed"]) == ([], [], 0)
    (error,) = report["errors"]
    assert STRAY in error
    assert "PermissionError: [Errno 13] Permission denied" in error
    assert len(done.err.splitlines()) == 1
    assert "Traceback" not in done.err
    assert stray.exists()


def refuse(path: str, *_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied", path)


def test_quiet_says_nothing_if_all_is_well(site: Site, run: Run) -> None:
    stray = site.stray()
    assert run("gc", "--orphan-age", "0", "--quiet", "--ini", site.ini) == Done(0, "", "")
    assert not stray.exists()
    assert run("reindex", "--quiet", "--ini", site.ini) == Done(0, "", "")


def test_quiet_tells_what_was_found(site: Site, run: Run) -> None:
    site.stray()
    done = run("gc", "--orphan-age", "0", "--quiet", "--dry-run", "--ini", site.ini)
    assert (done.code, done.err) == (1, "")
    assert STRAY in done.out


def test_names_that_the_terminal_does_not_have(site: Site) -> None:
    """Their letters are replaced; the exit code and ``--json`` are not affected."""
    ini = site.configure(**{"attachment.randomize": "false"})
    names = ["\u65e5\u672c.txt", "\x9b31mred.txt", *(f"{n}.txt" for n in range(20))]
    remains = site.files / UNFINISHED_FOLDER
    remains.mkdir()
    for number, name in enumerate(names):
        (remains / f"{number}:{name}").write_text("")
        os.utime(remains / f"{number}:{name}", (1, 1))
    command = [sys.executable, "-m", "kinto_attachment.cli", "gc", "--dry-run", "--ini", str(ini)]
    environ = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done, as_json = (
        forking.run([*command, *more], env=environ, capture_output=True, timeout=waiting.SECONDS)
        for more in ([], ["--json"])
    )
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"unfinished: 22\n" in done.stdout
    assert b" and 2 more\n" in done.stdout
    assert b"\x9b" not in done.stdout
    assert as_json.returncode == 1
    assert sorted(json.loads(as_json.stdout)["unfinished"]) == sorted(names)


def test_version(run: Run) -> None:
    done = run("--version")
    assert (done.code, done.err) == (0, "")
    assert done.out.strip()[0].isdigit()


def test_the_metrics_of_a_running_server_are_left_alone(site: Site) -> None:
    counts = site.folder / "counter_1.db"
    counts.write_bytes(b"counts")
    ini = site.configure(includes="kinto.plugins.prometheus kinto_attachment")
    command = [sys.executable, "-m", "kinto_attachment.cli", "gc", "--quiet", "--ini", str(ini)]
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(site.folder)}
    done = forking.run(command, env=environ, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "")
    assert counts.exists()


@pytest.mark.postgresql
def test_a_missing_file_is_something_found(
    run: Run, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """A process ends with the same exit code."""
    database = postgresql.create_database()
    files = tmp_path / "files"
    with (
        live.kinto({"base_path": str(files)}, database=database) as server,
        live.Client(server) as client,
    ):
        client.put("/buckets/b")
        client.put("/buckets/b/collections/c")
        _, _, attachment = client.attach(RECORD, b"content", "a.txt")
        assert run("gc", "--ini", server.ini).code == 0
        (files / attachment["location"].rpartition("/")[2]).unlink()
        done = run("gc", "--ini", server.ini, "--json")
        assert done.code == 1
        assert json.loads(done.out)["missing"] == [RECORD]
        command = [sys.executable, "-m", "kinto_attachment.cli", "gc", "--quiet"]
        process = forking.run(
            [*command, "--ini", server.ini], capture_output=True, text=True, timeout=120
        )
        assert process.returncode == 1
        assert f"missing: 1\n  {RECORD}\n" in process.stdout
        assert "Traceback" not in process.stderr
    postgresql.drop_database(database)
