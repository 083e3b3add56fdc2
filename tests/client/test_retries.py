"""When requests are retried, and when retries end."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from kinto_attachment.client.retries import LONGEST_PAUSE, Retries, retry_after


def in_seconds(seconds: int) -> str:
    return format_datetime(datetime.now(timezone.utc) + timedelta(seconds=seconds), usegmt=True)


def test_pauses_double_up_to_a_limit() -> None:
    retries = Retries(count=20)
    for attempt, longest in ((1, 0.5), (2, 1), (3, 2), (4, 4), (20, LONGEST_PAUSE)):
        for _ in range(20):
            delay = retries.delay(attempt)
            assert delay is not None
            assert longest / 2 <= delay <= longest


def test_pauses_differ() -> None:
    assert len({Retries().delay(1) for _ in range(20)}) > 10


def test_there_are_as_many_retries_as_asked_for() -> None:
    assert Retries(count=0).delay(1) is None
    assert Retries(count=2).delay(2) is not None
    assert Retries(count=2).delay(3) is None


def test_a_fixed_pause_is_kept_to() -> None:
    retries = Retries(count=3, pause=2)
    assert [retries.delay(n, {"Retry-After": "50"}) for n in (1, 2, 3, 4)] == [2, 2, 2, None]


def test_the_server_is_waited_for_as_long_as_it_says() -> None:
    delay = Retries().delay(1, {"Retry-After": "50"})
    assert delay is not None
    assert 50 < delay < 51


def test_a_server_that_wants_hours_is_not_waited_for() -> None:
    assert Retries().delay(1, {"Retry-After": "7200"}) is None
    assert Retries().delay(1, {"Retry-After": in_seconds(7200)}) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("", 0),
        ("soon", 0),
        ("-5", 0),
        ("1.5", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00", 0),
    ],
)
def test_retry_after(value: str, seconds: float) -> None:
    assert retry_after({"Retry-After": value}) == seconds


def test_retry_after_may_be_a_date() -> None:
    assert retry_after({"Retry-After": in_seconds(90)}) == pytest.approx(90, abs=30)
    assert retry_after({}) == 0
