"""Running jobs in several threads, in order, until all are done or stopped."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import TypeVar

Result = TypeVar("Result")
Job = Callable[[], Result]

GRACE = 2.0  # Seconds for the threads to end after they were stopped.


class Stopped(Exception):
    """The work was asked to stop."""


class Stop:
    """Asks all threads to stop; they check it whenever they move bytes, and while they wait."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def check(self) -> None:
        """:raises Stopped: after :meth:`set`."""
        if self._event.is_set():
            raise Stopped()

    def sleep(self, seconds: float) -> None:
        """:raises Stopped: at once after :meth:`set`."""
        self._event.wait(seconds)
        self.check()


def run(work: Iterable[Job[Result]], jobs: int, stop: Stop) -> Generator[Result, None, None]:
    """The results of the jobs, as they are completed; only a few jobs are taken in advance.

    Closing the generator early, or Ctrl-C, stops the threads. The only exception that jobs may
    raise is :class:`Stopped`.
    """
    tasks: queue.SimpleQueue[Job[Result] | None] = queue.SimpleQueue()
    results: queue.SimpleQueue[list[Result]] = queue.SimpleQueue()

    def worker() -> None:
        with contextlib.suppress(Stopped):
            while job := tasks.get():
                result: list[Result] = []
                try:
                    stop.check()
                    result = [job()]
                finally:
                    results.put(result)

    # Daemons: a thread that is stuck in the network does not keep the process alive.
    threads = [threading.Thread(target=worker, daemon=True) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    try:
        yield from _feed(iter(work), tasks, results, ahead=2 * jobs)
    except BaseException:
        stop.set()
        raise
    finally:
        for _ in threads:
            tasks.put(None)
        deadline = time.monotonic() + GRACE
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _feed(
    work: Iterator[Job[Result]],
    tasks: queue.SimpleQueue[Job[Result] | None],
    results: queue.SimpleQueue[list[Result]],
    ahead: int,
) -> Iterator[Result]:
    waiting = 0
    for job in islice(work, ahead):
        tasks.put(job)
        waiting += 1
    while waiting:
        result = results.get()
        if not result:
            raise RuntimeError("A job failed unexpectedly")
        for job in islice(work, 1):
            tasks.put(job)
            waiting += 1
        waiting -= 1
        yield result[0]
