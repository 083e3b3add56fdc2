"""Whether to retry a request, and how long to wait before."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import requests

# Kinto uses 409 for concurrent writes that should be retried.
RETRIED_STATUSES = frozenset({409, 429, 502, 503, 504})

FIRST_PAUSE = 0.5  # Seconds; each pause is twice the previous one.
LONGEST_PAUSE = 30.0
LONGEST_RETRY_AFTER = 600.0  # If a server asks for more, the request fails.


@dataclass(frozen=True)
class Retries:
    """``count`` retries; ``pause`` is in seconds, or None for growing pauses and Retry-After.

    ``sleep`` may raise an exception to end the request.
    """

    count: int = 5
    pause: float | None = None
    sleep: Callable[[float], object] = time.sleep

    @classmethod
    def of(cls, retries: int | Retries) -> Retries:
        """A number of retries, or the whole policy.

        :raises TypeError: it is neither, such as a ``Retry`` of urllib3.
        """
        if isinstance(retries, Retries):
            return retries
        if isinstance(retries, int):
            return cls(retries)
        kind = f"{type(retries).__module__}.{type(retries).__qualname__}"
        raise TypeError(
            f"retries should be a number or a kinto_attachment.client.Retries, not {kind}"
        )

    def delay(self, attempt: int, headers: Mapping[str, str] | None = None) -> float | None:
        """Seconds to wait after the ``attempt``-th failure (from 1), or None to give up.

        Pauses double with each attempt, and start after ``Retry-After`` (RFC 9110 10.2.3). They
        are randomized, so that many clients do not retry at the same time.
        """
        if attempt > self.count:
            return None
        if self.pause is not None:
            return self.pause
        requested = retry_after(headers or {})
        if requested > LONGEST_RETRY_AFTER:
            return None
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (attempt - 1))
        return requested + pause * random.uniform(0.5, 1)  # noqa: S311


def has_retried_status(response: requests.Response) -> bool:
    return response.status_code in RETRIED_STATUSES


def retry_after(headers: Mapping[str, str]) -> float:
    """The seconds of a ``Retry-After`` header, a number or a date; 0 if there is none."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())
