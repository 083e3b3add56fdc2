"""Which cases of the contract ``make tests`` tries."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.sampling import sampled, try_in_turn

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
    # What both S3 servers can do is tried on one of them.
    folder = Path(__file__).parent
    try_in_turn([item for item in items if item.path.parent == folder], "server")
