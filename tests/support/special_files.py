"""Pipes, sockets, folders and loops of links in the place of a file."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import waiting

LATE = waiting.SECONDS / 10  # Longer than any operation that does not wait.
PAUSE = 0.1


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


SPECIAL: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a socket": lambda path: os.mknod(path, 0o600 | stat.S_IFSOCK),
    "a folder": Path.mkdir,
    "a link to itself": link_to_itself,
}


def exchange(path: Path, kind: str) -> None:
    """Replace a file by something else."""
    path.unlink()
    SPECIAL[kind](path)


@contextmanager
def nobody_waits(*pipes: Path) -> Iterator[None]:
    """Fail if something waits for the other end of a pipe, instead of blocking."""

    def open_other_ends() -> None:
        while not done.wait(PAUSE if late else LATE):
            late.append(True)
            for pipe in pipes:
                if pipe.is_fifo():
                    os.close(os.open(pipe, os.O_RDWR))

    done, late = threading.Event(), list[bool]()
    opening = threading.Thread(target=open_other_ends)
    opening.start()
    try:
        yield
        assert not late, "a pipe was waited for"
    finally:
        done.set()
        waiting.join(opening)
