"""Which cases of a large product are tried: a sample in ``make tests``, all in ``make tests-all``.

``pytest --every-case`` tries them all. A sample is the same in each run. It takes every n-th case,
from a different start in each test, so that a step that one test passes over is tried in another
that has the same step.

``@sampled(2, "backends", "rule", "end")`` on a test takes half of the combinations of these three
parameters: each value of one with each value of another one, if there are at least two values of
the third.
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
    config.addinivalue_line("markers", "sampled: takes one in so many combinations of parameters")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _every_case:
        return
    left_out = [item for item in items if not is_chosen(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if is_chosen(item)]


def sampled(one_in: int, *parameters: str) -> pytest.MarkDecorator:
    return pytest.mark.sampled(one_in, *parameters)


def is_chosen(item: pytest.Item) -> bool:
    """Whether the numbers of the values add up to a multiple, as in a Latin square."""
    mark = item.get_closest_marker("sampled")
    if mark is None:
        return True
    one_in, *parameters = mark.args
    numbers = item.callspec.indices  # type: ignore[attr-defined]
    return sum(numbers[name] for name in parameters) % one_in == 0


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
