"""The files that a user names, including those in folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kinto_attachment.client.folder import PARTIAL, STATE


@dataclass(frozen=True)
class LocalFile:
    """``name`` is the filename, or the path in the folder that the user named, with slashes.

    ``problem`` is the reason if the file cannot be read; ``size`` is in bytes.
    """

    path: Path
    name: str
    size: int = 0
    problem: str = ""

    @property
    def nested(self) -> bool:
        return "/" in self.name


def find(paths: Iterable[str], *, recursive: bool) -> Iterator[LocalFile]:
    """The files, those in folders sorted by name; a file that is named twice is found twice."""
    for text in paths:
        path = Path(text)
        if not path.is_dir():
            yield _look(path, path.name)
        elif recursive:
            yield from _in_folder(path)
        else:
            yield LocalFile(path, str(path), problem="This is a folder: use --recursive")


def _in_folder(root: Path) -> Iterator[LocalFile]:
    problems: list[OSError] = []
    for folder, folders, names in os.walk(root, onerror=problems.append):
        # The state of the download command is not one of the user's files.
        folders[:] = sorted(name for name in folders if name != PARTIAL)
        for name in sorted(name for name in names if name != STATE):
            path = Path(folder, name)
            file = _look(path, path.relative_to(root).as_posix())
            if file.problem or path.is_file():  # No pipes, no sockets.
                yield file
    for problem in problems:
        path = Path(os.fsdecode(problem.filename))
        yield LocalFile(path, str(path), problem=str(problem.strerror))


def _look(path: Path, name: str) -> LocalFile:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # The server would have another name, and the record another id.
        return LocalFile(path, name, problem="The name is not UTF-8: rename it")
    try:
        return LocalFile(path, name, path.stat().st_size)
    except OSError as error:
        return LocalFile(path, name, problem=str(error.strerror))
