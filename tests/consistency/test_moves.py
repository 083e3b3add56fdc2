"""Files that are moved between storages while requests change them, and moves that are killed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from kinto_attachment.files import changes
from kinto_attachment.index.links import Links
from kinto_attachment.index.open_transactions import OpenTransactions
from kinto_attachment.maintenance import move as maintenance, spare_copies, transfer
from kinto_attachment.maintenance.move import move
from kinto_attachment.maintenance.selection import Selection
from tests.support import (
    ROOT,
    forking,
    invariants,
    lingering,
    live,
    load,
    owned,
    races,
    sampling,
    waiting,
)
from tests.support.application import (
    ALICE,
    attach,
    forget_database,
    links_of,
    make_app,
    placed_files,
    postgresql_settings,
    put_collection,
    put_collection_behind,
    read,
)
from tests.support.backends import ON_POSTGRESQL, Build
from tests.support.faults_plugin import Faults, Order
from tests.support.races import (
    delete_collection,
    delete_copy,
    delete_record,
    patch,
    publish_again,
    remove,
    replace,
)
from tests.support.services import S3, PostgreSQL

AT_ONCE = timedelta(0)
SPARE = "attachment-spare"
ONE_IN = 90  # Of the moments at which one can interrupt the other; all in tests-all.


class Inline:
    """Replaces a thread pool: a stage identifies its actors by their threads."""

    def __init__(self, threads: int) -> None: ...

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - raised by the future.
            done.set_exception(error)
        return done

    def shutdown(self, **kwargs: Any) -> None: ...


class Answer:
    status_int = 200


def move_there(app: Any) -> Answer:
    move(app.app.registry, "cold", Selection(), keep=AT_ONCE)
    return Answer()


@pytest.fixture
def in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a move take turns, without waiting for others, which cannot continue meanwhile."""
    monkeypatch.setattr(maintenance, "ThreadPoolExecutor", Inline)
    monkeypatch.setattr(OpenTransactions, "wait", lambda self, seconds: self.have_ended())


@pytest.fixture(scope="module")
def app(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """New files go to the storage that others are moved to."""
    options = {"storages.cold.base_path": str(tmp_path_factory.mktemp("cold"))}
    folder = tmp_path_factory.mktemp("files")
    with races.server(postgresql, folder, storage="cold", **options) as app:
        yield app


@pytest.fixture(scope="module")
def keeping_app(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = {"storages.cold.base_path": str(tmp_path_factory.mktemp("cold"))}
    folder = tmp_path_factory.mktemp("files")
    with races.server(postgresql, folder, storage="cold", keep_old_files="true", **options) as app:
        yield app


OPERATIONS = [replace, patch, remove, delete_record, delete_copy, publish_again, delete_collection]


@pytest.mark.usefixtures("in_turns")
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_a_request_meets_a_move(app: Any, operation: races.Operation) -> None:
    orders = races.some_orders(f"move {operation.__name__}", ONE_IN)
    assert races.meet(app, [operation, move_there], orders, also={SPARE}) > 1


@pytest.mark.usefixtures("in_turns")
@pytest.mark.parametrize("operation", [replace, delete_record], ids=lambda each: each.__name__)
def test_a_request_that_keeps_files_meets_a_move(
    keeping_app: Any, operation: races.Operation
) -> None:
    orders = races.some_orders(f"keep and move {operation.__name__}", ONE_IN)
    assert races.meet(keeping_app, [operation, move_there], orders, also={SPARE}) > 1


@pytest.mark.usefixtures("in_turns")
def test_two_moves_meet(app: Any) -> None:
    orders = races.some_orders("two moves", ONE_IN)
    assert races.meet(app, [move_there, move_there], orders, also={SPARE}) > 1


@pytest.fixture
def named_app(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """If names are made from filenames, gc cannot find a copy that has neither link nor row."""
    folder = tmp_path_factory.getbasetemp() / "cold"
    return build(
        **{
            "storages.cold.base_path": str(folder),
            "randomize": "false",
            "resources.b.kept.keep_old_files": "true",
        }
    )


@ON_POSTGRESQL
@pytest.mark.parametrize("collection", ["c", "kept"])
def test_a_request_writes_what_it_has_read_before_the_move(
    named_app: Any, monkeypatch: pytest.MonkeyPatch, collection: str
) -> None:
    """It drops or keeps the link of the replaced file as if that were in the former storage."""
    registry, record = named_app.app.registry, f"/buckets/b/collections/{collection}/records/r"
    put_collection(named_app, f"/buckets/b/collections/{collection}")
    attach(named_app, record, b"old")
    monkeypatch.setattr(spare_copies, "MAX_WAIT", 0.1)
    read_links = changes._Changes.present_links
    reports = []

    def then_move(self: Any) -> Any:
        found = read_links(self)
        if not reports:
            reports.append(waiting.elsewhere(move, registry, "cold", Selection(), keep=AT_ONCE))
        return found

    monkeypatch.setattr(changes._Changes, "present_links", then_move)
    attach(named_app, record, b"new")
    assert (reports[0].files, reports[0].deleted) == (1, 0)
    assert reports[0].errors == [maintenance.STUCK]
    for link in links_of(named_app):
        with closing(registry.attachment_storages[link.storage].files.open(link.key)) as file:
            assert file.read() == (b"old" if link.state == "kept" else b"new")
    invariants.collect(registry)
    assert not invariants.lost(registry)
    assert not (left := invariants.left(registry)), left
    assert move(registry, "cold", Selection(), keep=AT_ONCE).files == len(links_of(named_app))


@ON_POSTGRESQL
class TestTurns:
    """What happens between two steps of a move, or of a request that meets one."""

    def test_gc_takes_the_copy_before_the_links_change(
        self, named_app: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        attach(named_app, content=b"content")
        registry, switch = named_app.app.registry, transfer._Attempt._switch
        taken = []

        def collect_first(attempt: Any) -> Any:
            if not taken:
                taken.extend(waiting.elsewhere(invariants.collect, registry).spare)
            return switch(attempt)

        monkeypatch.setattr(transfer._Attempt, "_switch", collect_first)
        assert move(registry, "cold", Selection(), keep=AT_ONCE).files == 1
        assert len(taken) == 1
        assert not invariants.lost(registry)
        assert not invariants.left(registry)

    def test_another_run_takes_over(self, named_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        attach(named_app, content=b"content")
        registry, switch = named_app.app.registry, transfer._Attempt._switch
        others: list[Any] = []

        def move_first(attempt: Any) -> Any:
            if not others:
                others.append(None)
                others[0] = waiting.elsewhere(move, registry, "cold", Selection(), keep=AT_ONCE)
            return switch(attempt)

        monkeypatch.setattr(transfer._Attempt, "_switch", move_first)
        report = move(registry, "cold", Selection(), keep=AT_ONCE)
        assert (others[0].files, report.files, report.found) == (1, 0, False)
        assert not invariants.lost(registry)
        assert not invariants.left(registry)

    def test_a_version_is_deleted_as_it_was_read(
        self, named_app: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry, record = named_app.app.registry, "/buckets/b/collections/kept/records/r"
        put_collection(named_app, "/buckets/b/collections/kept")
        version = attach(named_app, record, b"old").headers["Attachment-Version"]
        attach(named_app, record, b"new")
        drop = Links.drop_version

        def move_first(links: Links, link: Any) -> Any:
            waiting.elsewhere(move, registry, "cold", Selection(), keep=AT_ONCE)
            return drop(links, link)

        monkeypatch.setattr(Links, "drop_version", move_first)
        named_app.delete(f"{record}/attachment/versions/{version}", headers=ALICE)
        assert len(placed_files(named_app)) == 1
        assert not invariants.left(registry)

    def test_a_file_lingers_elsewhere(
        self, build: Build, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = tmp_path_factory.getbasetemp() / "cold"
        options = {"storages.cold.base_path": str(folder), "randomize": "false"}
        app = build(**options, linger="1h")
        attach(app, content=b"old")
        attach(app, content=b"new")
        assert move(app.app.registry, "cold", Selection(), keep=AT_ONCE).files == 2
        lingering.pass_the_time(app)
        invariants.collect(app.app.registry)
        assert len(placed_files(app)) == 1
        assert not invariants.left(app.app.registry)


class Runs:
    """Runs of ``move`` as processes, which can be killed at a step."""

    def __init__(self, process: subprocess.Popen[str], faults: Faults) -> None:
        self.process = process
        self.faults = faults

    def run(self, to: str, order: Order | None = None) -> int:
        """The status of a run that moves all files, as :func:`os.waitpid` returns it."""
        assert self.process.stdin is not None
        said = {"to": to, **({"order": asdict(order)} if order else {})}
        self.process.stdin.write(json.dumps(said) + "\n")
        self.process.stdin.flush()
        return int(waiting.line_of(self.process))

    def steps(self, to: str) -> list[str]:
        assert self.run(to, Order(0)) == 0
        return self.faults.steps()


@pytest.fixture(scope="module")
def killed_app(
    postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, Runs]]:
    folder, faults = tmp_path_factory.mktemp("killed"), Faults(tmp_path_factory.mktemp("faults"))
    url = postgresql.create_database()
    storage = {
        "base_path": str(folder / "files"),
        "storages.cold.base_path": str(folder / "cold"),
        "randomize": "false",  # With reservations, there are more steps.
    }
    app = make_app(storage, postgresql_settings(url))
    owned.own(app.app.registry)
    ini = folder / "kinto.ini"
    ini.write_text(live._ini(storage, url, ["tests.support.faults_plugin"], {}, 1))
    process = forking.Popen(
        [sys.executable, "-m", "tests.support.killed_moves", str(ini)],
        env={**os.environ, **faults.environ},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert waiting.line_of(process) == "ready\n"
        yield app, Runs(process, faults)
    finally:
        process.kill()
        process.communicate(timeout=waiting.SECONDS)
        forget_database(url)
        postgresql.drop_database(url)


def test_a_move_that_is_killed_goes_on(killed_app: tuple[Any, Runs]) -> None:
    app, runs = killed_app
    registry = app.app.registry
    put_collection_behind(app)
    attach(app, content=b"content")
    steps = runs.steps("cold")
    assert len(steps) > 30
    assert {"file write", "file delete", "commit"} <= {*steps}
    assert runs.run("") == 0
    turn = sampling.one_in(15)
    for number in range(1, len(steps) + 1, turn):
        # Killed on the way there, and on the way back at the next step.
        for to, step in (("cold", number), ("", number % len(steps) + 1)):
            told = f"killed at step {step} of {steps} to {to!r}"
            assert os.WIFSIGNALED(runs.run(to, Order(step, "before", "kill"))), told
            # As long as its transaction is open, the next move keeps the copies that it may read.
            load.wait_for_quiet(registry)
            assert not invariants.lost(registry), told
            assert read(app) == b"content"
            if number % 2:
                invariants.collect(registry)
                assert not (left := invariants.left(registry)), f"{left} after gc, {told}"
            assert runs.run(to) == 0, told
            assert {name for name, _ in placed_files(app)} == {to}, told
            assert {link.storage for link in links_of(app)} == {to}, told
    invariants.collect(registry)
    assert not invariants.left(registry)


STEADY = "/buckets/b/collections/steady"


class Readers:
    """Clients that read the same files repeatedly; ``wrong`` are the wrong responses."""

    def __init__(self, server: live.Server, contents: dict[str, bytes]) -> None:
        self.server = server
        self.contents = contents
        self.count = 0
        self.wrong: list[Any] = []
        self._stop = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._read, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            waiting.join(*threads)

    def _read(self) -> None:
        with live.Client(self.server) as client:
            while not self._stop.is_set():
                for path, content in self.contents.items():
                    status, _, body = client.request("GET", path)
                    self.count += 1
                    if (status, body) != (200, content):
                        self.wrong.append((path, status, body[:200]))


def test_readers_and_writers_notice_nothing(
    postgresql: PostgreSQL, seaweedfs: S3, tmp_path: Path
) -> None:
    storage = {
        "base_path": str(tmp_path / "files"),
        **{
            f"storages.cold.{name}": value
            for name, value in seaweedfs.options(seaweedfs.create_bucket()).items()
        },
        "storages.cold.downloads": "stream",
        "resources.b.public.storage": "cold",
        **load.SETTINGS,
    }
    database = postgresql.create_database()
    includes = ["tests.support.publishing"]
    with (
        live.kinto(
            {**storage, **load.SETTINGS},
            workers=2,
            threads=4,
            preload=True,
            database=database,
            includes=includes,
        ) as server,
        invariants.inside(server) as registry,
    ):
        load.prepare(server)
        contents = {}
        with live.Client(server) as client:
            assert client.put(STEADY) == 201
            for number in range(4):
                record = f"{STEADY}/records/r{number}"
                content = os.urandom(50_000 * number)
                _, _, attachment = client.attach(record, content)
                contents[f"{record}/attachment"] = content
                contents[urlsplit(attachment["location"]).path.removeprefix("/v1")] = content
        readers, clients = Readers(server, contents), load.Load(server, clients=3)
        moved = 0

        def there_and_back() -> bool:
            nonlocal moved
            for to in ("cold", ""):
                report = move(registry, to, Selection(), keep=AT_ONCE)
                assert not report.found, report
                assert not report.errors, report
                moved += report.files
            return moved > 8 and readers.count > 2 * len(contents)

        with readers.running(), clients.running():
            waiting.until(there_and_back)
        assert not readers.wrong
        assert {status // 100 for status in +clients.answers} <= {2, 4}, clients.answers
        assert not (lost := invariants.lost(registry)), lost
        invariants.collect(registry)
        assert not (lost := invariants.lost(registry)), lost
        assert not (left := invariants.left(registry)), left
    postgresql.drop_database(database)
