"""Selects the contract's cases for ``make tests``; makes tests independent of the speed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinto_attachment.storage import local_partials, partials
from tests.support import waiting
from tests.support.sampling import one_value, sampled, try_in_turn, values

SAMPLED = {
    # Each value of one parameter is combined with each value of another one.
    "test_a_writer_that_was_taken_over_changes_nothing": sampled(3, "size", "hangs_at", "wakes"),
    "test_a_writer_that_begins_late_changes_nothing": sampled(2, "size", "begins"),
    # All keys are tried with every method that all storages have.
    "test_a_hostile_key_is_not_begun": sampled(3, "key"),
    "test_a_hostile_key_is_not_begun_directly": sampled(3, "key"),
    "test_a_hostile_key_is_not_signed": sampled(3, "key"),
    "test_a_hostile_key_has_no_path": sampled(3, "key"),
}


@pytest.hookimpl(tryfirst=True)  # Before unsampled cases are deselected.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        mark = SAMPLED.get(getattr(item, "originalname", ""))
        if mark is not None:
            item.add_marker(mark)
            if any(name == "server" for *_, name, _ in values(item)):
                item.add_marker(one_value("server"))
    # Tests that both S3 servers support run on one of them.
    folder = Path(__file__).parent
    try_in_turn([item for item in items if item.path.parent == folder], "server")


@pytest.fixture(autouse=True)
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces arrive soon after each other, and other processes hold locks only for a moment."""
    monkeypatch.setattr(partials, "CHECKPOINT_SECONDS", waiting.SECONDS)
    monkeypatch.setattr(partials, "SOON_SECONDS", waiting.SECONDS)
    monkeypatch.setattr(local_partials, "PATIENCE", waiting.SECONDS)
