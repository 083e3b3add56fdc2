"""Uploads in several requests on real servers: requests that hang, workers that are killed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import transaction

from tests.support import sampling, waiting
from tests.support.connections import ALICE, Connection
from tests.support.faults_plugin import How, Order
from tests.support.services import S3, PostgreSQL
from tests.support.tus import BYTES, TUS
from tests.support.upload_sites import CONTENT, Site, serving

MIB = 1024 * 1024


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
    """A PATCH that announces so many bytes, and sends none of them by itself."""
    path = url.removeprefix(f"http://127.0.0.1:{site.server.port}")
    lines = [f"{name}: {value}" for name, value in {**TUS, **BYTES}.items()]
    lines += [f"Upload-Offset: {start}", f"Content-Length: {length}"]
    with Connection(site.server) as connection:
        connection.head("PATCH", path, *lines, user=ALICE)
        yield connection


def wait_for_writer(site: Site) -> None:
    """Wait until a request has begun to write."""
    waiting.until(lambda: session_of(site).writer)


def test_a_client_goes_on_while_its_old_request_hangs(site: Site) -> None:
    url = site.create()
    with hanging(site, url, 0, len(CONTENT)) as old:
        old.send(b"?" * MIB)
        wait_for_writer(site)
        start = site.offset(url)
        assert start == 0
        assert site.append(url, 0, CONTENT[: 8 * MIB]).status_code == 204
        old.send(b"?" * MIB)  # The hanging writer wakes up.
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


def upload(site: Site, content: bytes, chunk: int) -> str:
    """Upload like a client that continues after every failure; returns the URL."""
    url = ""
    for _ in range(20):
        with contextlib.suppress(requests.ConnectionError, AssertionError):
            url = url or site.create(len(content))
            start = site.offset(url)
            while start < len(content):
                answer = site.append(url, start, content[start : start + chunk])
                if not answer.ok:
                    assert answer.status_code in (409, 423, 500, 503), answer.text
                start = site.offset(url)
            return url
        site.server.wait()
    raise AssertionError("the upload does not end")


def steps_of(site: Site, content: bytes, chunk: int) -> list[str]:
    site.start()
    site.faults.give(Order(0))
    upload(site, content, chunk)
    site.faults.take_back()
    return site.faults.steps()


@pytest.mark.parametrize("how", ["error", "kill"])
def test_no_step_loses_or_leaves_a_byte(local_site: Site, how: How) -> None:
    some = CONTENT[: 2 * MIB + 1]
    break_steps(local_site, how, some, MIB, one_in=8, first=2 * int(how == "kill"))


def test_no_step_loses_or_leaves_an_object(s3_site: Site) -> None:
    # A part of 5 MiB, and before and after it a remainder that is stored separately.
    break_steps(s3_site, "kill", CONTENT[: 6 * MIB + 1], 3 * MIB, one_in=16)


def break_steps(
    site: Site, how: How, content: bytes, chunk: int, *, one_in: int, first: int = 0
) -> None:
    """Fail at every step, or in a sample at each kind of step and at some others."""
    steps = steps_of(site, content, chunk)
    assert len(steps) > 8, steps
    site.kinds.seen |= {*steps}
    for number, step in enumerate(steps, 1):
        is_one_of_some = (number - first) % one_in == 0 or site.kinds.is_new(step)
        if not is_one_of_some and not sampling.every_case():
            continue
        site.kinds.tried.add(step)
        for when in ("before", "after") if sampling.every_case() else ("after",):
            told = f"{how} {when} step {number} of {steps}: {step}"
            site.start()
            site.faults.give(Order(number, when, how))
            upload(site, content, chunk)
            site.faults.take_back()
            assert site.hash() == hashlib.sha256(content).hexdigest(), told
            site.check(told, collecting=number == 1)


@pytest.mark.parametrize("name", ["local_site", "s3_site"])
def test_each_kind_of_step_was_tried(request: pytest.FixtureRequest, name: str) -> None:
    """The tests before this one tried each kind, even if they left out steps."""
    kinds = request.getfixturevalue(name).kinds
    assert kinds.tried == kinds.seen
    assert kinds.tried >= {"file begin", "file append", "file finish"} or not kinds.seen


def test_a_killed_worker_costs_only_what_was_not_durable(local_site: Site) -> None:
    site = local_site
    site.start()
    whole = (CONTENT * 3)[: 40 * MIB]
    url = site.create(len(whole))
    with hanging(site, url, 0, len(whole)) as old:
        old.send(whole[: 36 * MIB])  # There is a checkpoint after each 32 MiB.
        waiting.until(lambda: session_of(site).size)
        site.server.kill_workers()
    site.server.wait()
    start = site.offset(url)
    assert start >= 32 * MIB
    assert site.append(url, start, whole[start:]).status_code == 204
    assert site.hash() == hashlib.sha256(whole).hexdigest()
    site.check()


def session_of(site: Site) -> Any:
    with transaction.manager:
        (page,) = site.registry.attachment_sessions.pages()
    return page[0]
