"""Counters of quotas alone: for uploads that nothing else has refused."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import transaction

from kinto_attachment.errors import QuotaExceeded
from kinto_attachment.index.totals import Totals
from kinto_attachment.quota_settings import Quota
from tests.support import waiting
from tests.support.application import BUCKET
from tests.support.backends import ON_EACH_DATABASE, ON_POSTGRESQL

Step = tuple[dict[str, int], tuple[int, int], bool]

FILES, BYTES, FEWER = {"files": 2}, {"bytes": 30}, {"bytes": 10}
# The limits, the files and bytes added or removed, and whether this is allowed.
CASES: dict[str, list[Step]] = {
    "files": [
        (FILES, (2, 50), True),
        (FILES, (1, 0), False),
        (FILES, (0, 50), True),
        (FILES, (-1, 0), True),
        (FILES, (1, 0), True),
    ],
    "bytes": [
        (BYTES, (3, 30), True),
        (BYTES, (0, 1), False),
        (BYTES, (5, 0), True),
        (BYTES, (0, -2), True),
        (BYTES, (0, 3), False),
        (BYTES, (0, 2), True),
    ],
    "a lower quota": [
        (BYTES, (1, 20), True),
        (FEWER, (0, 1), False),
        (FEWER, (0, -5), True),
        (FEWER, (0, 1), False),
        (FEWER, (0, -6), True),
        (FEWER, (0, 1), True),
        (FEWER, (0, 1), False),
    ],
}


@ON_EACH_DATABASE
@pytest.mark.parametrize("case", list(CASES))
def test_give_away_what_is_left(app: Any, case: str) -> None:
    counters = app.app.registry.attachment_usage._counters
    with transaction.manager:
        counters.ensure(BUCKET)
    total = Totals()
    for limits, change, may in CASES[case]:
        quota = Quota(BUCKET, settings=("quota_bytes", "quota_files"), **limits)
        try:
            with transaction.manager:
                counters.add({BUCKET: Totals(*change)}, {BUCKET: quota})
        except QuotaExceeded:
            assert not may, (limits, change)
            continue
        assert may, (limits, change)
        total += Totals(*change)
    with transaction.manager:
        assert counters.read([BUCKET]) == {BUCKET: total}
        counters.forget(BUCKET)


@ON_POSTGRESQL
def test_two_that_create_the_same_one_wait_for_each_other(app: Any) -> None:
    """They collide in a few of a hundred counters."""
    slots = app.app.registry.attachment_usage._slots
    scopes = [f"{BUCKET}/collections/{number}" for number in range(300)]
    together = threading.Barrier(2, timeout=waiting.SECONDS)

    def create(_: int) -> None:
        for scope in scopes:
            together.wait()
            with transaction.manager:
                slots._lock(scope)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(create, range(2)))
    with transaction.manager:
        assert sorted(slots.scopes()) == sorted(scopes)
        for scope in scopes:
            slots.forget(scope)
