"""The files that a user names, those in folders among them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LocalFile:
    """``name`` is the file's own, or its path in the folder that the user named, with slashes.

    ``problem`` says why it cannot be read, if so; ``size`` is in bytes.
    """

    path: Path
    name: str
    size: int = 0
    problem: str = ""

    @property
    def nested(self) -> bool:
        return "/" in self.name


def find(paths: Iterable[str], *, recursive: bool) -> Iterator[LocalFile]:
    """Each file once per mention, folders in the order of their names."""
    for text in paths:
        path = Path(text)
        if not path.is_dir():
            yield _look(path, path.name)
        elif recursive:
            yield from _in_folder(path)
        else:
            yield LocalFile(path, str(path), problem="It is a folder; with --recursive it works")


def _in_folder(root: Path) -> Iterator[LocalFile]:
    problems: list[OSError] = []
    for folder, folders, names in os.walk(root, onerror=problems.append):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            file = _look(path, path.relative_to(root).as_posix())
            if file.problem or path.is_file():  # No pipes, no sockets.
                yield file
    for problem in problems:
        path = Path(os.fsdecode(problem.filename))
        yield LocalFile(path, str(path), problem=str(problem.strerror))


def _look(path: Path, name: str) -> LocalFile:
    try:
        return LocalFile(path, name, path.stat().st_size)
    except OSError as error:
        return LocalFile(path, name, problem=str(error.strerror))
