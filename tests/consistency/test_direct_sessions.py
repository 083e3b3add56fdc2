"""Direct uploads on real servers whose workers fail or are killed at each step."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
import requests
import transaction

from tests.support import sampling
from tests.support.direct import send
from tests.support.faults_plugin import How, Order
from tests.support.services import S3, PostgreSQL
from tests.support.upload_sites import RECORD, Site, serving

MIB = 1024 * 1024
# Of eight steps, each of these tries a different one, and also the kinds of steps that the ones
# before it did not have. With --every-case, each tries all steps.
TURNS = [(how, via) for how in ("error", "kill") for via in ("storage", "kinto")]
CONTENT = bytes(range(256)) * 24 * 1024  # 6 MiB


@pytest.fixture(scope="module")
def site(
    postgresql: PostgreSQL, seaweedfs: S3, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    storage = seaweedfs.options(seaweedfs.create_bucket())
    folder = tmp_path_factory.mktemp("faults")
    with serving(storage, postgresql, folder, **{"direct.part_size": "5M"}) as site:
        yield site


def create(site: Site, via: str) -> str:
    file = {"filename": "a.bin", "size": len(CONTENT)}
    body = {"attachment": file, "via": via}
    answer = site.request("POST", f"{RECORD}/attachment/uploads", json=body)
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"]


def upload(site: Site, via: str) -> None:
    """Upload like a client that continues after every failure."""
    url = ""
    for _ in range(40):
        with contextlib.suppress(requests.ConnectionError, AssertionError):
            url = url or create(site, via)
            if go_on(site, url).status_code in (200, 201):
                return
        site.server.wait()
    raise AssertionError("the upload does not end")


def go_on(site: Site, url: str) -> requests.Response:
    told = site.request("GET", url)
    assert told.status_code == 200, told.status_code
    for part in told.json()["data"].get("parts", ()):
        if not part["done"]:
            chunk = CONTENT[part["offset"] : part["offset"] + part["size"]]
            assert send(part, chunk).ok
    answer = site.request("POST", f"{url}/complete")
    if answer.status_code == 202:
        forget_dead_requests(site)
    assert answer.status_code in (200, 201, 202, 409, 500, 503), answer.text
    return answer


def forget_dead_requests(site: Site) -> None:
    """Pretend that a request began to read the file long ago."""
    sessions = site.registry.attachment_sessions
    with transaction.manager:
        for session in [each for page in sessions.pages() for each in page]:
            if session.state == "finishing":
                sessions.put(replace(session, busy_until=1))


@pytest.mark.parametrize("via", ["storage", "kinto"])
@pytest.mark.parametrize("how", ["error", "kill"])
def test_no_step_loses_or_leaves_a_byte(site: Site, how: How, via: str) -> None:
    site.start()
    site.faults.give(Order(0))
    upload(site, via)
    site.faults.take_back()
    steps = site.faults.steps()
    assert len(steps) > 6, steps
    site.kinds.seen |= {*steps}
    for number, step in enumerate(steps, 1):
        is_one_of_some = (number + 2 * TURNS.index((how, via))) % 8 == 0 or site.kinds.is_new(step)
        if not is_one_of_some and not sampling.every_case():
            continue
        site.kinds.tried.add(step)
        for when in ("before", "after") if sampling.every_case() else ("after",):
            told = f"{how} {when} step {number} of {steps}: {step}"
            site.start()
            site.faults.give(Order(number, when, how))
            upload(site, via)
            site.faults.take_back()
            assert site.hash() == hashlib.sha256(CONTENT).hexdigest(), told
            site.check(told)


def test_each_kind_of_step_was_tried(site: Site) -> None:
    """The tests before this one tried each kind, even if they left out steps."""
    assert site.kinds.tried == site.kinds.seen
    of_files = {"file begin_direct", "file finish_direct", "file write"}
    assert site.kinds.tried >= of_files or not site.kinds.seen
