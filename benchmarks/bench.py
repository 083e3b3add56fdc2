"""What every group of rows draws on: folders, payloads, environments and services."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import environments
from benchmarks.bodies import Payloads
from benchmarks.environments import Environment
from tests import services


class Bench:
    """Everything is made on first use, and gone at the end."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._count = 0

    def folder(self, name: str) -> Path:
        """A fresh folder, on the file system that everything is measured on."""
        self._count += 1
        folder = self._folder / f"{self._count}-{name}"
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
        yield Bench(Path(folder), stack)
