"""Uploads in several requests on real servers: requests that hang, workers that are killed."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import transaction

from tests.support import invariants, live, owned, sampling
from tests.support.connections import ALICE, Connection
from tests.support.faults_plugin import Faults, How, Order
from tests.support.services import S3, PostgreSQL
from tests.support.tus import BYTES, TUS, metadata

MIB = 1024 * 1024
RECORD = "/buckets/b/collections/c/records/r"
USER = ("alice", "secret")
CONTENT = bytes(range(256)) * 64 * 1024  # 16 MiB


class Site:
    """A server, and what is really in its database and its storage."""

    def __init__(self, server: live.Server, registry: Any, faults: Faults) -> None:
        self.server, self.registry, self.faults = server, registry, faults

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        url = path if path.startswith("http") else f"{self.server.url}{path}"
        return requests.request(method, url, auth=USER, timeout=60, **options)

    def start(self) -> None:
        for backend in (self.registry.storage, self.registry.permission, self.registry.cache):
            backend.flush()
        owned.own(self.registry)
        files = self.registry.attachment_storages.default.files
        files.delete(*[file.key for file in files.list()])
        for path in ("/buckets/b", "/buckets/b/collections/c"):
            assert self.request("PUT", path).ok

    def create(self, length: int = len(CONTENT)) -> str:
        told = {"Upload-Length": str(length), "Upload-Metadata": metadata(filename="a.bin")}
        answer = self.request("POST", f"{RECORD}/attachment/uploads", headers={**TUS, **told})
        assert answer.status_code == 201, answer.text
        return answer.headers["Location"]

    def offset(self, url: str) -> int:
        answer = self.request("HEAD", url, headers=TUS)
        assert answer.status_code == 200, answer.status_code
        return int(answer.headers["Upload-Offset"])

    def append(self, url: str, start: int, content: bytes) -> requests.Response:
        headers = {**TUS, **BYTES, "Upload-Offset": str(start)}
        return self.request("PATCH", url, data=content, headers=headers)

    def hash(self) -> str:
        record: dict[str, Any] = self.request("GET", RECORD).json()["data"]
        digest: str = record["attachment"]["hash"]
        return digest

    def check(self, told: str = "") -> None:
        """Nothing is lost; what is unfinished is cancelled, and then nothing is left."""
        assert not (lost := invariants.lost(self.registry)), f"{lost} {told}"
        listing = "/buckets/b/collections/c/attachments/uploads"
        for session in self.request("GET", listing).json()["data"]:
            self.request("DELETE", f"{RECORD}/attachment/uploads/{session['id']}")
        invariants.collect(self.registry)
        assert not (lost := invariants.lost(self.registry)), f"{lost} {told}"
        assert not (left := invariants.left(self.registry)), f"{left} {told}"


@contextlib.contextmanager
def serving(
    storage: dict[str, str], postgresql: PostgreSQL, folder: Path, **settings: str
) -> Iterator[Site]:
    faults = Faults(folder)
    database = postgresql.create_database()
    with (
        live.kinto(
            # The quota has counters changed, which are compared with the sums.
            {**storage, "quota_bytes": "1G", **settings},
            workers=2,
            threads=4,
            preload=True,
            database=database,
            includes=["kinto.plugins.default_bucket", "tests.support.faults_plugin"],
            environ=faults.environ,
        ) as server,
        invariants.inside(server) as registry,
    ):
        yield Site(server, registry, faults)
    postgresql.drop_database(database)


@pytest.fixture(scope="module")
def local_site(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    storage = {"base_path": str(tmp_path_factory.mktemp("files"))}
    with serving(storage, postgresql, tmp_path_factory.mktemp("faults")) as site:
        yield site


@pytest.fixture(scope="module")
def s3_site(
    postgresql: PostgreSQL, seaweedfs: S3, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    storage = seaweedfs.options(seaweedfs.create_bucket())
    with serving(storage, postgresql, tmp_path_factory.mktemp("faults")) as site:
        yield site


@pytest.fixture(params=["local_site", "s3_site"])
def site(request: pytest.FixtureRequest) -> Site:
    found: Site = request.getfixturevalue(request.param)
    found.start()
    return found


@contextlib.contextmanager
def hanging(site: Site, url: str, start: int, length: int) -> Iterator[Connection]:
    """A PATCH of so many bytes, of which the client sends none by itself."""
    path = url.removeprefix(f"http://127.0.0.1:{site.server.port}")
    lines = [f"{name}: {value}" for name, value in {**TUS, **BYTES}.items()]
    lines += [f"Upload-Offset: {start}", f"Content-Length: {length}"]
    with Connection(site.server) as connection:
        connection.head("PATCH", path, *lines, user=ALICE)
        yield connection


def wait_for_writer(site: Site) -> str:
    """The token of the session's writer, once a request has begun to write."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with transaction.manager:
            (page,) = site.registry.attachment_sessions.pages()
        if page[0].writer:
            return str(page[0].writer)
        time.sleep(0.02)
    raise AssertionError("no request has begun to write")


def test_a_client_goes_on_while_its_old_request_hangs(site: Site) -> None:
    url = site.create()
    with hanging(site, url, 0, len(CONTENT)) as old:
        old.send(b"?" * MIB)
        wait_for_writer(site)
        start = site.offset(url)
        assert start == 0
        assert site.append(url, 0, CONTENT[: 8 * MIB]).status_code == 204
        old.send(b"?" * MIB)  # The writer that has hung wakes up.
        assert site.offset(url) == 8 * MIB
        assert site.append(url, 8 * MIB, CONTENT[8 * MIB :]).status_code == 204
        old.send(b"?" * (len(CONTENT) - 2 * MIB))
        response, _ = old.answer("PATCH")
        assert response.status == 423
    assert site.hash() == hashlib.sha256(CONTENT).hexdigest()
    assert site.offset(url) == len(CONTENT)
    site.check()


def test_without_asking_for_the_offset(site: Site) -> None:
    url = site.create()
    with hanging(site, url, 0, len(CONTENT)) as old:
        old.send(b"?" * MIB)
        wait_for_writer(site)
        assert site.append(url, 0, CONTENT).status_code == 204
        old.send(b"?" * (len(CONTENT) - MIB))
        response, _ = old.answer("PATCH")
        assert response.status == 423
    assert site.hash() == hashlib.sha256(CONTENT).hexdigest()
    site.check()


def test_a_cancelled_upload_stays_so_when_its_writer_wakes_up(site: Site) -> None:
    url = site.create()
    with hanging(site, url, 0, MIB) as old:
        old.send(b"?" * 1000)
        wait_for_writer(site)
        assert site.request("DELETE", url).status_code == 204
        old.send(b"?" * (MIB - 1000))
        response, _ = old.answer("PATCH")
        assert response.status == 423
    assert site.request("HEAD", url, headers=TUS).status_code == 410
    site.check()


def upload(site: Site, chunk: int = 7 * MIB) -> str:
    """Upload as a client does that goes on after every failure; returns where."""
    url = ""
    for _ in range(20):
        with contextlib.suppress(requests.ConnectionError, AssertionError):
            url = url or site.create()
            start = site.offset(url)
            while start < len(CONTENT):
                answer = site.append(url, start, CONTENT[start : start + chunk])
                if not answer.ok:
                    assert answer.status_code in (409, 423, 500, 503), answer.text
                start = site.offset(url)
            return url
        site.server.wait()
    raise AssertionError("the upload does not end")


def steps_of(site: Site) -> list[str]:
    site.start()
    site.faults.give(Order(0))
    upload(site)
    site.faults.take_back()
    return site.faults.steps()


@pytest.mark.parametrize("how", ["error", "kill"])
def test_no_step_loses_or_leaves_a_byte(local_site: Site, how: How) -> None:
    break_steps(local_site, how, one_in=2, first=int(how == "kill"))


def test_no_step_loses_or_leaves_an_object(s3_site: Site) -> None:
    break_steps(s3_site, "kill", one_in=5)


def break_steps(site: Site, how: How, *, one_in: int, first: int = 0) -> None:
    """Fail at every step, or where not every case is tried at some of them."""
    steps = steps_of(site)
    assert len(steps) > 8, steps
    for number, step in enumerate(steps, 1):
        if (number - first) % one_in and not sampling.every_case():
            continue
        for when in ("before", "after") if sampling.every_case() else ("after",):
            told = f"{how} {when} step {number} of {steps}: {step}"
            site.start()
            site.faults.give(Order(number, when, how))
            upload(site)
            site.faults.take_back()
            assert site.hash() == hashlib.sha256(CONTENT).hexdigest(), told
            site.check(told)


def test_a_killed_worker_costs_only_what_was_not_durable(local_site: Site) -> None:
    site = local_site
    site.start()
    size = 80 * MIB
    url = site.create(size)
    with hanging(site, url, 0, size) as old:
        old.send(CONTENT * 4)  # 64 MiB: there is a checkpoint after each 32.
        deadline = time.monotonic() + 20
        while not sessions_size(site) and time.monotonic() < deadline:
            time.sleep(0.05)
        site.server.kill_workers()
    site.server.wait()
    start = site.offset(url)
    assert start >= 32 * MIB
    whole = CONTENT * 5
    assert site.append(url, start, whole[start:]).status_code == 204
    assert site.hash() == hashlib.sha256(whole).hexdigest()
    site.check()


def sessions_size(site: Site) -> int:
    with transaction.manager:
        (page,) = site.registry.attachment_sessions.pages()
    return int(page[0].size)
