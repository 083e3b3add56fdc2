"""Committing work while the transaction of the request continues."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import transaction

T = TypeVar("T")


def commit_elsewhere(function: Callable[[], T]) -> T:
    """Call a function in a separate transaction, and commit it.

    This uses another thread, because Kinto has one transaction and connection per thread.
    """

    def run() -> T:
        with transaction.manager:
            return function()

    with ThreadPoolExecutor(max_workers=1) as other:
        return other.submit(run).result()
