"""The processor time of servers, which depends less on other processes than elapsed time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.servers import Kinto
from tests.support.services import PostgreSQL

Work = Callable[[], object]


def time_processor(server: Kinto, database: PostgreSQL | None, work: Work, count: int) -> float:
    """The processor time of workers and PostgreSQL for each of ``count`` requests, in seconds.

    All of PostgreSQL's processes count, so nothing else may use it meanwhile.
    """

    def used() -> float:
        processes = server.workers()
        if database is not None:  # PostgreSQL has a process for each connection.
            processes += psutil.Process(database.postmaster()).children()
        return sum(map(_used, processes))

    before = used()
    work()
    return (used() - before) / count


def _used(process: psutil.Process) -> float:
    """The seconds of all threads so far."""
    nanoseconds = 0
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with suppress(FileNotFoundError):  # The thread has ended.
            nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9
