"""``kinto-attachment relocate``: records get the locations of the current configuration."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transaction
from kinto.core.events import AfterResourceChanged, ResourceChanged
from kinto.core.storage.exceptions import IntegrityError
from pyramid.httpexceptions import HTTPForbidden
from sqlalchemy import create_engine, text

from kinto_attachment import AttachmentReplaced, cli
from kinto_attachment.errors import NotThisSite
from kinto_attachment.maintenance import relocate as maintenance
from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.maintenance.relocate import RelocateReport, relocate
from kinto_attachment.maintenance.selection import Selection
from kinto_attachment.maintenance.shards import Shard
from tests.support import forking, many_rows, waiting
from tests.support.application import (
    ALICE,
    BUCKET,
    COLLECTION,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    clear,
    links_of,
    move_behind,
    on_event,
    put,
    put_collection,
    read,
    records,
    seen,
    stored_files,
    write_behind,
)
from tests.support.backends import ON_DATABASES, ON_MEMORY, ON_POSTGRESQL, Build
from tests.support.faults_plugin import Faults, Order
from tests.support.services import PostgreSQL

NEW = "https://new.example/files/"
OLD = "https://old.example/"


@pytest.fixture
def app(build: Build) -> Any:
    return build(base_url=NEW)


def report(app: Any, selection: Selection | None = None, **options: Any) -> RelocateReport:
    return relocate(app.app.registry, selection or Selection(), **options)


def record(name: str, collection: str = COLLECTION) -> str:
    return f"{collection}/records/{name}"


def make_old(app: Any, *uris: str) -> None:
    """Give records the locations of an earlier configuration."""
    for uri in uris or (RECORD,):
        found = records(app)[uri]
        key = found["attachment"]["location"].rpartition("/")[2]
        attachment = {**found["attachment"], "location": f"{OLD}{key}"}
        write_behind(app, uri, {**found, "attachment": attachment})


def location_of(app: Any, uri: str = RECORD) -> str:
    location: str = attachment_of(app, uri)["location"]
    return location


def stamps(app: Any) -> tuple[Any, ...]:
    """The timestamps that synchronizing clients use, and the history."""
    listed = app.get(f"{COLLECTION}/records", headers=ALICE)
    history = app.get(f"{BUCKET}/history", headers=ALICE).json["data"]
    return (
        listed.headers["ETag"],
        {each["id"]: each["last_modified"] for each in listed.json["data"]},
        len(history),
    )


class TestThroughKinto:
    @ON_DATABASES
    def test_only_what_is_wrong_is_written(self, app: Any) -> None:
        attach(app, data={"title": "stays"})
        attach(app, OTHER)
        put(app, record("plain"))
        make_old(app)
        before, links = records(app), links_of(app)
        app.app.registry.seen.clear()
        found = report(app)
        assert (found.records, found.right, found.relocated, found.found) == (2, 1, 1, False)
        after = records(app)
        assert after[OTHER] == before[OTHER]
        (link,) = [each for each in links if each.record == RECORD]
        written = {**before[RECORD]["attachment"], "location": f"{NEW}{link.key}"}
        assert after[RECORD]["attachment"] == written
        assert after[RECORD]["title"] == "stays"
        assert after[RECORD]["last_modified"] > before[RECORD]["last_modified"]
        assert links_of(app) == links
        (entry, *_) = app.get(f"{BUCKET}/history", headers=ALICE).json["data"]
        assert (entry["uri"], entry["target"]["data"]["attachment"]) == (RECORD, written)
        kinds = [type(event) for event in seen(app, ResourceChanged, AfterResourceChanged)]
        assert kinds == [ResourceChanged, AfterResourceChanged]
        (event,) = seen(app, AttachmentReplaced)
        assert (event.record_uri, event.attachment) == (RECORD, written)
        assert read(app)
        found = report(app)
        assert (found.right, found.relocated) == (2, 0)

    @ON_DATABASES
    def test_a_dry_run(self, app: Any) -> None:
        attach(app)
        make_old(app)
        before = records(app)
        assert report(app, dry_run=True).relocated == 1
        assert records(app) == before

    @ON_POSTGRESQL
    def test_held_files(self, app: Any) -> None:
        attach(app)
        app.put_json(
            f"{RECORD}/attachment/hold",
            {"data": {"until": None, "reason": "audit"}},
            headers=ALICE,
        )
        make_old(app)
        assert report(app).relocated == 1
        assert app.get(f"{RECORD}/attachment/hold", headers=ALICE).json["data"]["reason"]

    @ON_POSTGRESQL
    def test_what_another_plugin_refuses(self, app: Any) -> None:
        for name in ("a", "b", "c"):
            attach(app, record(name))
        make_old(app, *map(record, "abc"))

        def refuse(event: Any) -> None:
            if any(each["new"]["id"] == "b" for each in event.impacted_objects):
                raise HTTPForbidden("not b")

        on_event(app, ResourceChanged, refuse)
        found = report(app)
        assert found.relocated == 2
        assert found.refused == [f"{record('b')}: not b"]
        app.app.registry.on_event = None
        found = report(app)
        assert (found.right, found.relocated) == (2, 1)


@ON_POSTGRESQL
class TestQuietly:
    def test_synchronizing_clients_notice_nothing(self, app: Any) -> None:
        attach(app)
        attach(app, OTHER)
        make_old(app, RECORD, OTHER)  # The second one is the newest in the collection.
        before = stamps(app)
        app.app.registry.seen.clear()
        found = report(app, quietly=True)
        assert (found.relocated, found.found) == (2, False)
        assert location_of(app).startswith(NEW)
        assert location_of(app, OTHER).startswith(NEW)
        assert stamps(app) == before
        since = f"{COLLECTION}/records?_since={before[0]}".replace('"', "%22")
        assert app.get(since, headers=ALICE).json["data"] == []
        headers = {**ALICE, "If-None-Match": before[0]}
        assert app.get(f"{COLLECTION}/records", headers=headers).status_code == 304
        assert not app.app.registry.seen
        put(app, record("later"))
        assert stamps(app)[0] > before[0]

    def test_timestamps_with_microseconds(self, app: Any) -> None:
        attach(app)
        make_old(app)
        stamp = "SELECT last_modified FROM objects WHERE resource_name = 'record'"
        with session(app) as database:
            database.execute(
                text(
                    "UPDATE objects SET last_modified = '2020-01-01 01:02:03.456789'"
                    " WHERE resource_name = 'record'"
                )
            )
        with session(app) as database:
            before = database.execute(text(stamp)).scalar()
        report(app, quietly=True)
        with session(app) as database:
            assert database.execute(text(stamp)).scalar() == before


@ON_MEMORY
def test_quietly_only_in_postgresql(app: Any) -> None:
    with pytest.raises(CommandError, match="PostgreSQL"):
        report(app, quietly=True)


@contextlib.contextmanager
def session(app: Any) -> Iterator[Any]:
    with transaction.manager, app.app.registry.storage.client.connect() as database:
        yield database


@ON_POSTGRESQL
class TestConfigurations:
    @pytest.mark.parametrize("quietly", [False, True])
    def test_there_and_back(self, build: Build, quietly: bool) -> None:
        relative = build(base_url="", **{"extra.base_url": "https://cdn.example/"})
        attach(relative)
        before = attachment_of(relative)
        assert "/" not in before["location"]
        own = build()
        found = report(own, server="https://kinto.example:8443/v1/", quietly=quietly)
        assert found.relocated == 1
        key = before["location"]
        assert location_of(own) == f"https://kinto.example:8443/v1/attachments/{key}"
        public = build(base_url=NEW)
        assert report(public, quietly=quietly).relocated == 1
        assert location_of(public) == f"{NEW}{key}"
        assert report(relative, quietly=quietly).relocated == 1
        assert attachment_of(relative) == before

    def test_by_the_settings_of_kinto(self, build: Build) -> None:
        app = build({"http_host": "kinto.example:443", "http_scheme": "https"})
        attach(app)
        written = location_of(app)
        assert written.startswith("https://kinto.example/v1/attachments/")
        make_old(app)
        assert report(app).relocated == 1
        assert location_of(app) == written
        make_old(app)
        assert report(app, server="https://kinto.example:443").relocated == 1
        assert location_of(app) == written
        with pytest.raises(CommandError, match=r"--server is not .*https://kinto\.example:443"):
            report(app, server="https://other.example")

    def test_behind_a_prefix(self, build: Build) -> None:
        app = build()
        attach(app)
        assert report(app, server="http://example.com/kinto/").relocated == 1
        assert location_of(app).startswith("http://example.com/kinto/v1/attachments/")
        assert report(app, server="http://localhost").relocated == 1

    def test_the_address_is_needed(self, build: Build) -> None:
        with pytest.raises(CommandError, match="--server URL"):
            report(build())
        with pytest.raises(CommandError, match=r"kinto\.http_scheme is not"):
            report(build({"http_host": "kinto.example"}))
        for wrong in (
            "kinto.example",
            "ftp://a.example",
            "http://a b",
            "http://u:p@a",
            "http://[",
        ):
            with pytest.raises(CommandError, match="should be a URL"):
                report(build(), server=wrong)

    def test_a_wrong_database(self, app: Any) -> None:
        attach(app)
        make_old(app)
        with session(app) as database:
            wrong = 'UPDATE objects SET data = data || \'{"database": "other"}\''
            database.execute(text(f"{wrong} WHERE resource_name = 'attachment-site'"))
        with pytest.raises(NotThisSite):
            report(app)
        assert location_of(app).startswith(OLD)


@ON_DATABASES
class TestFiles:
    def test_of_several_storages(self, build: Build, tmp_path: Path) -> None:
        named = {"storages.cold.base_path": str(tmp_path), "storages.cold.base_url": f"{OLD}cold/"}
        app = build(base_url=NEW, **named)
        attach(app)
        attach(app, OTHER)
        (link,) = [each for each in links_of(app) if each.record == RECORD]
        move_behind(app.app.registry, link.key, "cold")
        make_old(app, OTHER)
        assert report(app, Selection(storage="cold")).relocated == 1
        assert location_of(app) == f"{OLD}cold/{link.key}"
        assert location_of(app, OTHER).startswith(OLD)
        links = app.app.registry.attachment_links
        with transaction.manager:  # As if that storage were no longer configured.
            links.revise(link.key, lambda each: replace(each, storage="former"))
        found = report(app)
        assert (found.relocated, found.elsewhere) == (1, {"former": 1})
        with transaction.manager:
            links.revise(link.key, lambda each: replace(each, storage="cold"))

    def test_that_several_records_share(self, app: Any) -> None:
        attach(app)
        app.post_json(f"{OTHER}/attachment", {"copy_from": RECORD}, headers=ALICE)
        make_old(app, RECORD, OTHER)
        assert report(app).relocated == 2
        assert location_of(app) == location_of(app, OTHER)
        app.delete(RECORD, headers=ALICE)
        assert read(app, f"{OTHER}/attachment")

    def test_that_are_kept_have_no_location(self, build: Build) -> None:
        app = build(base_url=NEW, keep_old_files="true")
        attach(app)
        attach(app, content=b"newer")
        make_old(app)
        assert report(app).relocated == 1
        versions = app.get(f"{RECORD}/attachment/versions", headers=ALICE).json["data"]
        assert [each["state"] for each in versions] == ["current", "kept"]

    def test_that_the_index_does_not_know(self, app: Any) -> None:
        attach(app)
        stolen = {**attachment_of(app), "location": f"{OLD}stolen"}
        write_behind(app, OTHER, {"attachment": stolen})
        write_behind(app, record("odd"), {"attachment": "a text"})
        attach(app, record("changed"))
        other = {**records(app)[record("changed")]["attachment"], "hash": "00"}
        write_behind(app, record("changed"), {"attachment": other})
        before = records(app)
        found = report(app)
        assert (found.right, found.relocated) == (1, 0)
        reasons = dict(each.split(": ", 1) for each in found.unlinked)
        assert reasons == {
            OTHER: maintenance.NO_LINK,
            record("odd"): maintenance.NO_LINK,
            record("changed"): maintenance.OTHER_FILE,
        }
        assert records(app) == before
        clear(app)


@ON_DATABASES
def test_parts(app: Any) -> None:
    uris = [record("r"), record("r", f"{COLLECTION}2"), record("r", "/buckets/b2/collections/c")]
    for uri in uris:
        put_collection(app, uri.partition("/records/")[0])
        attach(app, uri)
    make_old(app, *uris)
    everything = {"dry_run": True}
    assert report(app, Selection(bucket="b"), **everything).relocated == 2
    assert report(app, Selection(bucket="b", collection="c"), **everything).relocated == 1
    assert report(app, Selection(collection="c"), **everything).relocated == 2
    assert report(app, Selection(bucket="none"), **everything).records == 0
    shards = [report(app, Selection(shard=Shard(index, 3))) for index in (1, 2, 3)]
    assert sum(shard.relocated for shard in shards) == 3
    assert report(app).right == 3


class TestBesideTheServer:
    """Changes by requests between a page and its transaction, and after that."""

    @pytest.fixture
    def meanwhile(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
        todo: list[Callable[[], object]] = []
        write = maintenance._Relocation.write

        def write_after(self: Any, *args: Any, **options: Any) -> Any:
            while todo:
                todo.pop()()
            return write(self, *args, **options)

        monkeypatch.setattr(maintenance._Relocation, "write", write_after)
        yield todo
        assert not todo

    @ON_DATABASES
    @pytest.mark.parametrize("dry_run", [False, True])
    def test_replaced(self, app: Any, meanwhile: list[Any], dry_run: bool) -> None:
        attach(app)
        make_old(app)
        meanwhile.append(lambda: attach(app, content=b"another"))
        found = report(app, dry_run=dry_run)
        assert (found.right, found.relocated, found.unlinked) == (1, 0, [])
        assert read(app) == b"another"

    @ON_DATABASES
    @pytest.mark.parametrize("path", [RECORD, f"{RECORD}/attachment"])
    def test_deleted(self, app: Any, meanwhile: list[Any], path: str) -> None:
        attach(app)
        make_old(app)
        meanwhile.append(lambda: app.delete(path, headers=ALICE))
        found = report(app)
        assert (found.records, found.relocated, found.unlinked) == (0, 0, [])
        assert not stored_files(app)

    @ON_POSTGRESQL
    @pytest.mark.parametrize("quietly", [False, True])
    def test_written_as_it_was_read_before(
        self, app: Any, monkeypatch: pytest.MonkeyPatch, quietly: bool
    ) -> None:
        attach(app)
        make_old(app)
        wait = maintenance._Relocation.wait_for_requests

        def end_request(self: Any) -> None:
            # A client changes the title, after Kinto has read the record.
            make_old(app)
            wait(self)

        monkeypatch.setattr(maintenance._Relocation, "wait_for_requests", end_request)
        assert report(app, quietly=quietly).relocated == 1
        assert location_of(app).startswith(NEW)

    @ON_POSTGRESQL
    @pytest.mark.parametrize("quietly", [False, True])
    def test_while_it_is_written(
        self, app: Any, monkeypatch: pytest.MonkeyPatch, quietly: bool
    ) -> None:
        for name in ("a", "b", "c"):
            attach(app, record(name))
        make_old(app, *map(record, "abc"))
        alone = maintenance._Relocation.alone
        locked, relocated = threading.Event(), threading.Event()

        def write_slowly() -> None:
            with session(app) as database:
                database.execute(text("SELECT 1 FROM objects WHERE id = 'b' FOR UPDATE"))
                locked.set()
                assert relocated.wait(waiting.SECONDS)

        def alone_after(self: Any, uri: str) -> Any:
            assert uri == record("b")
            with session(app) as database:  # The others are committed.
                assert database.execute(text(COUNT)).scalar() == 2
            relocated.set()
            return alone(self, uri)

        monkeypatch.setattr(maintenance._Relocation, "alone", alone_after)
        client = threading.Thread(target=write_slowly)
        client.start()
        assert locked.wait(waiting.SECONDS)
        assert report(app, quietly=quietly).relocated == 3
        client.join(waiting.SECONDS)
        assert all(location_of(app, record(name)).startswith(NEW) for name in "abc")

    @ON_POSTGRESQL
    def test_conflicts_are_tried_again(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        attach(app)
        make_old(app)
        failures = [IntegrityError(message="played"), IntegrityError(message="played")]

        def fail(event: Any) -> None:
            if failures:
                raise failures.pop()

        on_event(app, ResourceChanged, fail)
        app.app.registry.seen.clear()
        assert report(app).relocated == 1
        assert not failures
        assert len(seen(app, AfterResourceChanged)) == 1


COUNT = f"""
    SELECT count(*) FROM objects WHERE resource_name = 'record'
       AND data->'attachment'->>'location' LIKE '{NEW}%'
"""
INI = """\
[app:main]
use = egg:kinto
kinto.userid_hmac_secret = test
kinto.includes = kinto_attachment tests.support.owned {includes}
kinto.attachment.base_path = %(here)s/files
{settings}
"""


def configure(folder: Path, includes: str = "", **settings: str) -> str:
    lines = "\n".join(f"kinto.{name} = {value}" for name, value in settings.items())
    ini = folder / "kinto.ini"
    ini.write_text(INI.format(includes=includes, settings=lines))
    return str(ini)


@pytest.mark.postgresql
def test_killed_and_run_again_twice_at_once(
    postgresql: PostgreSQL, postgresql_url: str, tmp_path: Path
) -> None:
    """Each record is written once, by either process."""
    many_rows.fill(postgresql, postgresql_url, 300, *PARENTS)
    backends = {
        f"{each}_{what}": value
        for each in ("storage", "permission", "cache")
        for what, value in (
            ("backend", f"kinto.core.{each}.postgresql"),
            ("url", postgresql_url),
        )
    }
    faults, plugins = Faults(tmp_path), "kinto.plugins.history tests.support.faults_plugin"
    ini = configure(tmp_path, plugins, **backends, **{"attachment.base_url": NEW})
    environ = {**os.environ, **faults.environ}

    def start(*options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "kinto_attachment.cli", "relocate", "--ini", ini]
        return forking.Popen([*command, *options], env=environ, stdout=subprocess.PIPE)

    engine = create_engine(postgresql_url.replace("postgresql://", "postgresql+psycopg2://"))

    def count(what: str = COUNT) -> int:
        with engine.connect() as connection:
            return int(connection.execute(text(what)).scalar() or 0)

    faults.give(Order(200, how="kill"))
    killed = start()
    killed.communicate(timeout=waiting.SECONDS)
    assert killed.returncode == -signal.SIGKILL
    done = count()
    assert 0 < done < 300
    both = [start("--json"), start("--json")]
    reports = [json.loads(each.communicate(timeout=waiting.SECONDS)[0]) for each in both]
    assert [each.returncode for each in both] == [0, 0]
    assert count() == 300
    assert count("SELECT count(*) FROM objects WHERE resource_name = 'history'") == 300
    assert sum(each["relocated"] for each in reports) == 300 - done
    engine.dispose()


PARENTS = (
    """
    INSERT INTO objects (id, parent_id, resource_name, last_modified, data, deleted)
    VALUES ('b', '', 'bucket', now()::timestamp, '{}', FALSE),
           ('c', '/buckets/b', 'collection', now()::timestamp, '{}', FALSE)
    """,
)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["relocate", "--ini", configure(tmp_path)]
    assert cli.main(command) == 2
    assert "--server URL" in capsys.readouterr().err
    options = ["--server", "https://kinto.example", "--bucket", "b", "--collection", "c"]
    assert cli.main([*command, *options, "--json", "--shard", "1/2", "--dry-run"]) == 0
    answer = capsys.readouterr()
    assert json.loads(answer.out)["records"] == 0
    assert "in memory" in answer.err
    assert cli.main([*command, *options, "--quiet", "--debug", "--storage", "default"]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main([*command, *options, "--quiet-writes"]) == 2
    assert "PostgreSQL" in capsys.readouterr().err
    assert cli.main([*command, *options, "--storage", "none"]) == 2
