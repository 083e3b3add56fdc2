"""Which cases of the contract ``make tests`` tries."""

from __future__ import annotations

import pytest

from tests.support.sampling import sampled

# Each value of one parameter meets each of another one.
SAMPLED = {
    "test_a_writer_that_was_taken_over_changes_nothing": sampled(3, "size", "hangs_at", "wakes"),
}


@pytest.hookimpl(tryfirst=True)  # Before those that are not sampled are left out.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        mark = SAMPLED.get(getattr(item, "originalname", ""))
        if mark is not None:
            item.add_marker(mark)
