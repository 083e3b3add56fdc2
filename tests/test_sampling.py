"""The sample that ``make tests`` takes of large products."""

from __future__ import annotations

import pytest

from tests.support import sampling


def test_each_value_of_each_parameter_is_in_it(request: pytest.FixtureRequest) -> None:
    taken = {value for item in request.session.items for value in sampling.values(item)}
    for item in sampling.left_out:
        for value in sampling.values(item):
            assert value in taken, f"{item.nodeid}: no case with this {value[-2]} is tried"
