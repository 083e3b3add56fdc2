"""Runs tests with both ways to write records, which differ only in the time they take.

A test with the mark ``both_ways`` runs twice: with the fast way to write records, and with
sub-requests (``kinto.attachment.fast_records``). It has to pass both times, and the transcripts of
both runs (``transcripts.py``) have to be the same. ``pytest --ways`` (``make tests-ways``) does so
with every test that uses ``app`` or ``build``, except those with the mark ``one_way``, which count
what the fast way saves, or whose threads take turns by chance.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from kinto.core import utils

from kinto_attachment.names import filenames
from tests.support import transcripts
from tests.support.transcripts import Transcript, differ_in_times_alone, difference

WAYS = {"fast": "true", "safe": "false"}
ATTEMPTS = 6

current: str | None = None
"""How the applications of the tests write records, if a test runs in both ways."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--ways",
        action="store_true",
        help="run tests that write records in both ways, and compare what can be told of them",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_ways: runs with and without fast records")
    config.addinivalue_line("markers", "one_way: cannot be compared with another run")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--ways"):
        return
    left_out = [item for item in items if not is_comparable(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if is_comparable(item)]


def is_comparable(item: pytest.Item) -> bool:
    used = getattr(item, "fixturenames", ())
    return "build" in used and item.get_closest_marker("one_way") is None


def settings() -> dict[str, str]:
    """The settings of every application, unless a test chooses others."""
    return {} if current is None else {"fast_records": WAYS[current]}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if not (item.config.getoption("--ways") or item.get_closest_marker("both_ways")):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in both_ways(item, nextitem):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def both_ways(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    """The reports of a run that failed, or of the last one, which fails if the runs differ."""
    for _ in range(ATTEMPTS):
        noted = []
        for way in WAYS:
            with noting(way, item.nodeid) as transcript:
                # Only the fixtures of the test are set up again.
                until: Any = item.parent if way == "fast" else nextitem
                reports = runtestprotocol(item, log=False, nextitem=until)
            if any(report.failed for report in reports):
                for report in reports:
                    report.sections.append(("records", f"written in the {way} way"))
                return reports
            noted.append(transcript)
        found = difference(*noted)
        if not (found and differ_in_times_alone(*noted)):
            break
    if found:
        report = next(report for report in reports if report.when == "call")
        report.outcome = "failed"
        report.longrepr = f"The two ways to write records differ (-fast, +safe):\n{found}"
    return reports


@contextlib.contextmanager
def noting(way: str, seed: str) -> Iterator[Transcript]:
    global current
    current = way
    try:
        with repeatable(seed), transcripts.noting() as transcript:
            yield transcript
    finally:
        current = None


@contextlib.contextmanager
def repeatable(seed: str) -> Iterator[None]:
    """Make random filenames the same each time, and so the order of keys in a set.

    Also keep memory backends from giving two objects the same timestamp by chance.
    """
    random, last = Random(seed).randbytes, 0

    def msec_time() -> int:
        nonlocal last
        last = max(last + 1, int(time.time() * 1000))
        return last

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filenames, "uuid4", lambda: uuid.UUID(bytes=random(16), version=4))
        patch.setattr(utils, "msec_time", msec_time)
        yield
