"""The sample that ``make tests`` takes of large products."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import sampling


def test_each_value_of_each_parameter_is_in_it(request: pytest.FixtureRequest) -> None:
    taken = {value for item in request.session.items for value in sampling.values(item)}
    # A contract runs on one of two servers: some of its tests run on each.
    of_contracts = {without_test(value) for value in taken}
    for item in sampling.left_out:
        mark = item.get_closest_marker("sampled")
        parameters = mark.args[1:] if mark is not None else ["each"]
        if mark is not None and len(parameters) == 1:
            continue  # Only one of its values is to be tried.
        (one_of,) = item.get_closest_marker("one_value").args if mark is None else ("",)
        for value in sampling.values(item):
            if value[-2] == one_of:
                continue
            is_in = value in taken if parameters else without_test(value) in of_contracts
            assert is_in, f"{item.nodeid}: no case with this {value[-2]} is tried"


def test_one_in_one_is_every_case(request: pytest.FixtureRequest) -> None:
    for item in sampling.left_out:
        mark = item.get_closest_marker("sampled")
        assert mark is None or mark.args[0] > 1, item.nodeid


def without_test(value: tuple[Any, str, str, int]) -> tuple[Any, str, int]:
    parent, _, name, number = value
    return parent, name, number
