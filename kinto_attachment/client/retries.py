"""When to send a request again, and how long to wait before."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

# 409 is Kinto's "please retry" for two writers that met.
AGAIN = frozenset({409, 429, 502, 503, 504})

FIRST_PAUSE = 0.5  # Seconds; each is twice the one before.
LONGEST_PAUSE = 30.0
LONGEST_RETRY_AFTER = 600.0  # A server that wants more is not waited for.


@dataclass(frozen=True)
class Retries:
    """``count`` retries; ``pause`` seconds before each, or as the server says when None.

    ``sleep`` may raise, which ends the request.
    """

    count: int = 5
    pause: float | None = None
    sleep: Callable[[float], object] = time.sleep

    def delay(self, attempt: int, headers: Mapping[str, str] | None = None) -> float | None:
        """Seconds to wait after the ``attempt``-th failure (from 1); None: give up.

        ``Retry-After`` (RFC 9110 10.2.3) is the least; without it, the pauses double. All of
        them vary a little, so that many clients do not come back at the same time.
        """
        if attempt > self.count:
            return None
        if self.pause is not None:
            return self.pause
        wanted = retry_after(headers or {})
        if wanted > LONGEST_RETRY_AFTER:
            return None
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (attempt - 1))
        return wanted + pause * random.uniform(0.5, 1)  # noqa: S311


def retry_after(headers: Mapping[str, str]) -> float:
    """The seconds in a ``Retry-After``, as a number or as a date; 0 when there is none."""
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
