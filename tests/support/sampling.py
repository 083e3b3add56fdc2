"""Which cases of a large product are tried: a sample in ``make tests``, all in ``make tests-all``.

``pytest --every-case`` tries them all. A sample is the same in each run. It takes every n-th case,
from a different start in each test, so that a step that one test passes over is tried in another
that has the same step.
"""

from __future__ import annotations

from zlib import crc32

import pytest

_every_case = False


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-case",
        action="store_true",
        help="try every fault at every step, and every order of requests: takes minutes more",
    )


def pytest_configure(config: pytest.Config) -> None:
    global _every_case
    _every_case = config.getoption("--every-case")


def pytest_report_header() -> str:
    return "cases: all of them" if _every_case else "cases: a sample (--every-case tries all)"


def try_every_case() -> None:
    """For programs that are no tests."""
    global _every_case
    _every_case = True


def every_case() -> bool:
    return _every_case


def one_in(count: int) -> int:
    """``count``, or 1 when every case is to be tried."""
    return 1 if _every_case else count


def start(name: str, count: int) -> int:
    """The first of every ``count`` cases in the test of that name, from 0."""
    return crc32(name.encode()) % count
