"""Selects cases of large products: a sample in ``make tests``, all in ``make tests-all``.

``pytest --every-case`` runs all cases. A sample is the same in each run. It takes every n-th case,
from a different start in each test, so that a step that one test skips is run in another test
with the same step.

``@sampled(2, "backends", "rule", "end")`` on a test takes half of the combinations of these three
parameters: each value of one with each value of another one, if there are at least two values of
the third. ``@sampled(3, "release")`` takes one of three values. ``@sampled(2)`` on a class, each
of whose tests runs on two servers, takes half of all combinations in each test. For a test without
other parameters, it takes one of the two servers, by the test's name: all tests of a contract run,
about half of them on each server. ``one_value("backends")`` takes one value of this parameter for
each combination of the others, in turn, also of those that ``sampled`` takes; :func:`try_in_turn`
does so for all tests of a folder. With ``mostly_first``, a test of many cases takes the first
value, and another one in every third case. ``@sampled(1, "backends")`` takes all cases of a test.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any
from zlib import crc32

import pytest

MANY = 6  # Cases of a test.

_every_case = False
left_out: list[pytest.Item] = []


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
    config.addinivalue_line("markers", "one_value: takes one value of a parameter for each case")


@pytest.hookimpl(trylast=True)  # After unwanted tests are deselected.
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _every_case:
        return
    chosen = choose(items)
    left_out[:] = [item for item, is_in in zip(items, chosen, strict=True) if not is_in]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item, is_in in zip(items, chosen, strict=True) if is_in]


def sampled(one_in: int, *parameters: str) -> pytest.MarkDecorator:
    return pytest.mark.sampled(one_in, *parameters)


def one_value(parameter: str, *, mostly_first: bool = False) -> pytest.MarkDecorator:
    return pytest.mark.one_value(parameter, mostly_first=mostly_first)


def try_in_turn(items: list[pytest.Item], parameter: str) -> None:
    """Take one value of this parameter for each case, unless a mark says otherwise."""
    for item in items:
        names = [value[-2] for value in values(item)]
        if parameter in names and item.get_closest_marker("sampled") is None:
            item.add_marker(one_value(parameter))


def choose(items: list[pytest.Item]) -> list[bool]:
    choice = Choice(items)
    return [choice.takes(item) for item in items]


class Choice:
    """Chooses the cases of tests, by the numbers of the values of their parameters."""

    def __init__(self, items: list[pytest.Item]) -> None:
        self._known = numbers_of_values(items)
        self._cases = Counter(map(test_of, items))
        self._turns: defaultdict[Any, dict[Any, int]] = defaultdict(dict)

    def takes(self, item: pytest.Item) -> bool:
        mark = item.get_closest_marker("sampled")
        one_of = item.get_closest_marker("one_value")
        if mark is not None:
            one_in, *parameters = mark.args
            if one_in == 1:
                return True
            if not self._is_multiple(item, one_in, parameters):
                return False
            # If the parameter is one of the combined ones, it was chosen with them.
            is_apart = one_of is not None and parameters and one_of.args[0] not in parameters
            return not is_apart or self._is_its_turn(item, *one_of.args)
        if one_of is None:
            return True
        (parameter,) = one_of.args
        count = self._count(item, parameter)
        is_of_many = count == 2 and self._cases[test_of(item)] >= 2 * MANY
        if is_of_many and one_of.kwargs.get("mostly_first"):
            return self._is_mostly_first(item, parameter)
        return self._is_multiple(item, count, [])

    def _is_multiple(self, item: pytest.Item, one_in: int, parameters: list[str]) -> bool:
        """Whether the numbers of the values add up to a multiple: a Latin square."""
        numbers = self._numbers(item)
        first = 0 if parameters else start(test_of(item)[1], one_in)
        return (first + sum(numbers[each] for each in parameters or numbers)) % one_in == 0

    def _is_its_turn(self, item: pytest.Item, parameter: str) -> bool:
        """Whether the value is the one for this combination of the other parameters."""
        of_test = self._turns[test_of(item)]
        others = tuple(value for value in values(item) if value[-2] != parameter)
        turn = of_test.setdefault(others, len(of_test))
        return self._numbers(item)[parameter] == turn % self._count(item, parameter)

    def _is_mostly_first(self, item: pytest.Item, parameter: str) -> bool:
        numbers = self._numbers(item)
        is_first = numbers.pop(parameter) == 0
        return is_first == bool((start(test_of(item)[1], 3) + sum(numbers.values())) % 3)

    def _numbers(self, item: pytest.Item) -> dict[str, int]:
        return {value[-2]: self._known[value[:-1]][value[-1]] for value in values(item)}

    def _count(self, item: pytest.Item, parameter: str) -> int:
        """How many values the parameter has, after the selection by -m."""
        return len(self._known[(*test_of(item), parameter)])


def numbers_of_values(items: list[pytest.Item]) -> dict[Any, dict[int, int]]:
    """The numbers for each parameter of each test. pytest numbers the cases, not the values."""
    known: defaultdict[Any, dict[int, int]] = defaultdict(dict)
    for item in items:  # Also those that always run, which come first.
        for value in values(item):
            of_parameter = known[value[:-1]]
            of_parameter.setdefault(value[-1], len(of_parameter))
    return known


def values(item: pytest.Item) -> list[tuple[Any, str, str, int]]:
    """What differs between the cases of a test: the test, a parameter, and the value's id."""
    callspec = getattr(item, "callspec", None)
    params = callspec.params if callspec is not None else {}
    return [(*test_of(item), name, id(value)) for name, value in params.items()]


def test_of(item: pytest.Item) -> tuple[Any, str]:
    return item.parent, getattr(item, "originalname", item.name)


def pytest_report_header() -> str:
    return "cases: all of them" if _every_case else "cases: a sample (--every-case tries all)"


def try_every_case() -> None:
    """Select all cases, for programs that are not tests."""
    global _every_case
    _every_case = True


def every_case() -> bool:
    return _every_case


def one_in(count: int) -> int:
    """``count``, or 1 if every case is to be run."""
    return 1 if _every_case else count


def start(name: str, count: int) -> int:
    """The first of every ``count`` cases in the test of that name, counted from 0."""
    return crc32(name.encode()) % count
