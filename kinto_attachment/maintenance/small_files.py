"""Reading small files of local folders in several processes.

Reading a small file takes less time than a thread needs to get Python's lock back. So each thread
lets a process read many of them at once (see ``reading_program.py``).
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import compress
from typing import IO, cast

from kinto_attachment.index.link import Link
from kinto_attachment.maintenance import reading_program
from kinto_attachment.storage import FileStorage
from kinto_attachment.storage.local import LocalStorage, is_key
from kinto_attachment.storage.storages import Storages

logger = logging.getLogger(__name__)

SMALL = 1024 * 1024  # Bytes; the process has as many in memory.
FEWEST = 32  # Fewer files are read faster than a process starts.
SECONDS_TO_END = 5.0
FAILED = "A process that reads files has failed (%s): the rest takes longer."

Place = tuple[str, str]  # Storage and key.
File = tuple[str, int, str]  # Key, size and SHA-256.


class ReadingFailed(Exception):
    """A process could not be started or has ended; the message says why."""


class SmallFiles:
    """Finds out which files are intact; threads share it."""

    def __init__(self, storages: Storages) -> None:
        self._folders = {each.name: folder_of(each.files) for each in storages}
        self._free: deque[ReadingProcess] = deque()
        self._has_failed = False

    def whole(self, links: Iterable[Link]) -> set[Place]:
        """The storages and keys of files that were read and are intact.

        Other files may be damaged or unreadable, so the caller has to read them.
        """
        found: set[Place] = set()
        for storage, some in self._by_storage(links).items():
            if len(some) < FEWEST or self._has_failed:
                continue
            files = [(link.key, link.size, link.hash) for link in some]
            whole = self._ask(self._folders[storage], files)
            found.update((storage, link.key) for link in compress(some, whole))
        return found

    def close(self) -> None:
        """End the processes when no thread needs them any more."""
        while self._free:
            self._free.pop().close()

    def _by_storage(self, links: Iterable[Link]) -> dict[str, list[Link]]:
        found: dict[str, list[Link]] = defaultdict(list)
        for link in links:
            if link.size <= SMALL and self._folders[link.storage] and is_key(link.key):
                found[link.storage].append(link)
        return found

    def _ask(self, folder: str, files: Sequence[File]) -> list[bool]:
        try:
            try:
                process = self._free.pop()
            except IndexError:
                process = ReadingProcess()
            answer = process.ask(folder, files)
        except ReadingFailed as error:
            if not self._has_failed:
                logger.warning(FAILED, error)
            self._has_failed = True
            return []
        self._free.append(process)
        return answer


class ReadingProcess:
    """A process that reads files; one thread at a time uses it.

    :raises ReadingFailed: it cannot be started.
    """

    def __init__(self) -> None:
        # Python without its settings and packages. In a session of its own, it gets no Ctrl-C:
        # it ends after its batch, because no other one comes.
        command = [sys.executable, "-I", "-S", reading_program.__file__]
        try:
            self._process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            raise ReadingFailed(str(error)) from error
        self._batches = cast("IO[bytes]", self._process.stdin)
        self._answers = cast("IO[bytes]", self._process.stdout)

    def ask(self, folder: str, files: Sequence[File]) -> list[bool]:
        """For each of the files below a folder, whether it is intact.

        :raises ReadingFailed: the process has ended.
        """
        answer = ""
        with suppress(OSError):  # The process no longer reads its input.
            self._batches.write(json.dumps((folder, files)).encode() + b"\n")
            self._batches.flush()
            answer = self._answers.readline().decode().rstrip("\n")
        if len(answer) != len(files):
            self.close()
            raise ReadingFailed(f"exit code {self._process.returncode}")
        return [each == "1" for each in answer]

    def close(self) -> None:
        """End the idle process."""
        for pipe in (self._batches, self._answers):
            with suppress(OSError):
                pipe.close()
        try:
            self._process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def folder_of(files: FileStorage) -> str:
    """The folder in which a storage has plain files named by their keys; otherwise empty."""
    # A subclass may store its files in another way.
    return files.base_path if type(files) is LocalStorage else ""
