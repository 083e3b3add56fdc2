"""Waiting with a limit: a test that hangs does not show where."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

SECONDS = 120  # The machine may be busy.


def join(*threads: Thread) -> None:
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive(), f"{thread.name} does not end"


def until(
    condition: Callable[[], object],
    told: Callable[[], object] | None = None,
    *,
    pause: float = 0.02,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Wait until a condition holds; on timeout, fail with the message from ``told``."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, told() if told else "it does not happen"
        sleep(pause)


def elsewhere(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call a function in another thread, because each thread has its own transaction."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - raised in the test's own thread.
            done.set_exception(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    result = done.result(SECONDS)
    join(thread)
    return result


def line_of(process: subprocess.Popen[Any]) -> Any:
    """The first line of a process's output, which it writes at once."""
    assert process.stdout is not None
    wait_for_bytes(process.stdout.fileno())
    return process.stdout.readline()


def wait_for_bytes(descriptor: int) -> None:
    assert select.select([descriptor], [], [], SECONDS)[0], "nothing was written"


def status_of(child: int) -> int:
    """How a child ended, as from :func:`os.waitpid`."""
    return ended(child)[0]


def ended(child: int) -> tuple[int, Any]:
    """The status of a child, and its resource usage, as from :func:`os.wait4`."""
    deadline = time.monotonic() + SECONDS
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            return status, usage
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f"the child {child} did not end")
        time.sleep(0.001)
