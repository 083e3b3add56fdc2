"""Work that is committed before the transaction of the request, which goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import transaction

T = TypeVar("T")


def commit_elsewhere(function: Callable[[], T]) -> T:
    """Call a function in a transaction of its own, and commit it.

    In another thread, since Kinto has one transaction and one connection per thread.
    """

    def run() -> T:
        with transaction.manager:
            return function()

    with ThreadPoolExecutor(max_workers=1) as other:
        return other.submit(run).result()
