"""What every group of rows uses: folders, payloads, environments and services."""

from __future__ import annotations

import array
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.bodies import Payloads
from tests.support import environments, services
from tests.support.environments import Environment

# For 64-bit Linux: get and set the flags of a file, and the flag that chattr calls T.
GET_FLAGS, SET_FLAGS, TOP_OF_HIERARCHIES = 0x80086601, 0x40086602, 0x20000


class Bench:
    """Everything is created on first use and removed at the end."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._count = 0

    def folder(self, name: str) -> Path:
        """A new folder on the file system that is used for all measurements."""
        self._count += 1
        # ext4 derives the place from the name. The last run's deleted files have another place.
        folder = self._folder / f"{self._count}-{name}-{secrets.token_hex(4)}"
        folder.mkdir()
        return folder

    @cached_property
    def payloads(self) -> Payloads:
        return Payloads(self.folder("payloads"))

    @cached_property
    def ours(self) -> Environment:
        return environments.ours()

    @cached_property
    def peer(self) -> Environment:
        return environments.peer()

    @cached_property
    def postgresql(self) -> services.PostgreSQL:
        return self._stack.enter_context(services.postgresql())

    @cached_property
    def seaweedfs(self) -> services.S3:
        return self._stack.enter_context(services.seaweedfs())


@contextmanager
def bench() -> Iterator[Bench]:
    with TemporaryDirectory(prefix="kinto-attachment-benchmarks-") as folder, ExitStack() as stack:
        keep_apart(folder)
        yield Bench(Path(folder), stack)


def keep_apart(folder: str) -> None:
    """Make ext4 place the folders in this one far from each other, as it does at its root.

    ext4 does not reuse the place of a deleted file for minutes. Until then, creating a file near
    thousands of deleted ones takes 0.7 ms instead of 0.01 ms, which would favour one contender.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    flags = array.array("l", [0])
    with suppress(OSError):  # It is another file system.
        fcntl.ioctl(descriptor, GET_FLAGS, flags)
        flags[0] |= TOP_OF_HIERARCHIES
        fcntl.ioctl(descriptor, SET_FLAGS, flags)
    os.close(descriptor)
