"""Folders within a local folder: created when a file needs them, removed when they are empty."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from .disk import sync_folder

T = TypeVar("T")

# Another process may remove a new folder before it contains a file: see _remove_empty.
ATTEMPTS = 100


class LocalFolders:
    """The part of ``LocalStorage`` that makes and removes folders."""

    base_path: str
    file_mode: int | None
    durable: bool
    _private: tuple[str, ...]  # Folders that only the server may enter.

    def _in_folder(self, folder: str, action: Callable[[], T]) -> T:
        """Do something that needs ``folder``; create the folder first if it is missing."""
        for _ in range(ATTEMPTS):
            with suppress(FileNotFoundError):
                return action()
            with suppress(FileNotFoundError):
                self._make_folder(folder)
        return action()

    def _make_folder(self, folder: str) -> None:
        if os.path.isdir(folder):
            return
        parent = os.path.dirname(folder)
        self._make_folder(parent)
        hidden = folder in self._private
        mode = 0o777 if self.file_mode is None else folder_mode(self.file_mode)
        try:
            os.mkdir(folder, 0o700 if hidden else mode)
        except FileExistsError:
            return
        if self.file_mode is not None and not hidden:
            # Keep the inherited set-group-ID bit, which may give a web server's group access.
            # chmod drops it for users who are not in that group: if possible, do without.
            found = stat.S_IMODE(os.stat(folder).st_mode)
            if found & 0o777 != mode:
                os.chmod(folder, found & 0o7000 | mode)
        self._sync_folder(parent)

    def _sync_folder(self, folder: str) -> None:
        if self.durable:
            sync_folder(folder)

    def _remove_empty(self, folder: str) -> None:
        while folder != self.base_path:
            try:
                os.rmdir(folder)
            except OSError:  # It is not empty, or was removed.
                return
            folder = os.path.dirname(folder)


def folder_mode(file_mode: int) -> int:
    """The mode of folders: readers of the files may enter, the owner may also write."""
    return 0o300 | file_mode | (file_mode & 0o444) >> 2
