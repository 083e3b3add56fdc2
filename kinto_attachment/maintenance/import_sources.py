"""The source of an import: a folder or a ZIP, which somebody else may have prepared.

Only the paths of the layout are opened, component by component, and only if they are regular files
and folders. Nothing is unpacked, and no path from the export is used.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Protocol

from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.maintenance.exported import MAX_FILES_IN_ZIP, is_zip

NAMES = re.compile(
    r"(?:[\w%-]+/[\w%-]+/)?(?:collection\.json|records\.jsonl|files/[0-9a-f]{64})|export\.json",
    re.ASCII,
)
FOLDERS = re.compile(r"[\w%-]+/(?:[\w%-]+/)?(?:files/)?", re.ASCII)
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Deflate reaches 1,032 to 1. Many similar records reach 100 to 1.
MOST_COMPRESSED, SMALL = 200, 1024 * 1024
ENCRYPTED = 0x1
# The exceptions of ``zipfile`` for invalid headers.
DAMAGED = (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error)

# The end of a ZIP (APPNOTE.TXT 4.3.14 to 4.3.16).
END = struct.Struct("<4s4H2LH")
END_SIGNATURE = b"PK\x05\x06"
END64_LOCATOR_SIZE = 20
END64 = struct.Struct("<4sQ2H2L4Q")
END64_SIGNATURE = b"PK\x06\x06"
MAX_DIRECTORY = MAX_FILES_IN_ZIP * 256


class NotInExport(Exception):
    """The file does not exist or cannot be trusted; the message says why in one line."""


class NotThere(NotInExport):
    """The file does not exist."""


class Source(Protocol):
    def open(self, path: str) -> ExportFile:
        """Open the file at a path of the layout.

        :raises NotInExport:
        """
        ...

    def close(self) -> None: ...


@contextlib.contextmanager
def opened(path: str) -> Iterator[Source]:
    """The export at a path, which is a ZIP if it ends like one.

    :raises CommandError: it is not an export, or cannot be trusted.
    :raises OSError: it cannot be read.
    """
    source: Source = ZipSource(path) if is_zip(path) else FolderSource(path)
    try:
        yield source
    finally:
        source.close()


class FolderSource:
    """A folder. Its own path is from the operator, and may contain symbolic links."""

    def __init__(self, path: str) -> None:
        self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def open(self, path: str) -> ExportFile:
        *folders, name = path.split("/")
        parent = os.dup(self._root)
        try:
            for folder in folders:
                inner = _open(folder, parent, os.O_DIRECTORY)
                os.close(parent)
                parent = inner
            # Opening a pipe would block, and opening a device may have effects.
            _check_regular(os.stat(name, dir_fd=parent, follow_symlinks=False))
            descriptor = _open(name, parent, os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise NotThere(f"{path}: it does not exist") from error
        except OSError as error:
            raise NotInExport(f"{path}: {_reason(error)}") from error
        except NotInExport as error:
            raise NotInExport(f"{path}: {error}") from error
        finally:
            os.close(parent)
        file = os.fdopen(descriptor, "rb")
        try:  # The file may have been exchanged.
            _check_regular(os.fstat(descriptor))
        except NotInExport as error:
            file.close()
            raise NotInExport(f"{path}: {error}") from error
        return ExportFile(path, file)

    def close(self) -> None:
        os.close(self._root)


class ZipSource:
    """A ZIP, whose whole directory is checked before anything is read."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - It is closed in `close`.
        try:
            _check_directory(self._file)
            self._zip = zipfile.ZipFile(self._file)
            self._entries = _checked(self._zip.infolist(), self._zip.start_dir)
        except (NotInExport, *DAMAGED) as error:
            self._file.close()
            raise CommandError(f"{path}: {error}") from error

    def open(self, path: str) -> ExportFile:
        if path not in self._entries:
            raise NotThere(f"{path}: it does not exist")
        try:
            return ExportFile(path, self._zip.open(self._entries[path]))
        except (*DAMAGED, OSError) as error:
            raise NotInExport(f"{path}: {error}") from error

    def close(self) -> None:
        self._zip.close()
        self._file.close()


class ExportFile:
    """A file of an export; a context manager."""

    def __init__(self, path: str, file: IO[bytes]) -> None:
        self._path = path
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        """:raises NotInExport: the bytes in a ZIP are damaged."""
        with self._damage():
            return self._file.read(size)

    @property
    def raw(self) -> IO[bytes]:
        """For code that needs more than these methods."""
        return self._file

    def readline(self, size: int) -> bytes:
        """A line, or its first ``size`` bytes.

        :raises NotInExport: the bytes in a ZIP are damaged.
        """
        with self._damage():
            return self._file.readline(size)

    def __enter__(self) -> ExportFile:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise NotInExport(f"{self._path}: {error}") from error


def _open(name: str, parent: int, more: int) -> int:
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | more, dir_fd=parent)


def _check_regular(status: os.stat_result) -> None:
    """:raises NotInExport: it is not a regular file, or has other names."""
    if stat.S_ISLNK(status.st_mode):
        raise NotInExport("it is a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        raise NotInExport("it is no regular file")
    if status.st_nlink > 1:
        raise NotInExport("it has another name outside of the export, or in it (a hard link)")


def _reason(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "it is in no folder, or in one that is a symbolic link"
    return error.strerror or str(error)


def _check_directory(file: IO[bytes]) -> None:
    """Check the end of a ZIP, which determines how much Python reads into memory.

    :raises NotInExport: this is too much, or it is not the end of a ZIP without a comment.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - END.size - END64_LOCATOR_SIZE - END64.size, 0))
    tail = file.read()
    if len(tail) < END.size or not tail[-END.size :].startswith(END_SIGNATURE):
        raise NotInExport("this is no ZIP, or one with a comment")
    *_, directory, _, _ = END.unpack(tail[-END.size :])
    is_64 = len(tail) == END64.size + END64_LOCATOR_SIZE + END.size
    if is_64 and tail.startswith(END64_SIGNATURE):
        directory = max(directory % 0xFFFFFFFF, END64.unpack(tail[: END64.size])[8])
    if directory > MAX_DIRECTORY:
        raise NotInExport(f"this ZIP has more than {MAX_FILES_IN_ZIP} files: unpack it")


def _checked(entries: list[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
    """The files of a ZIP by path; ``size`` is their total.

    :raises NotInExport: it has contents that no export has.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name, kind = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
        if name.endswith("/") and FOLDERS.fullmatch(name) and kind in (0, stat.S_IFDIR):
            continue
        shown = ascii(name[:200])
        if not NAMES.fullmatch(name) or name != entry.filename:
            raise NotInExport(f"{shown} is no file of an export")
        if kind not in (0, stat.S_IFREG):
            raise NotInExport(f"{shown} is no regular file")
        if name in found:
            raise NotInExport(f"{shown} is in it twice")
        if entry.flag_bits & ENCRYPTED or entry.compress_type not in METHODS:
            raise NotInExport(f"{shown} is encrypted, or compressed in another way than usual")
        if entry.file_size > SMALL + MOST_COMPRESSED * entry.compress_size:
            raise NotInExport(f"{shown} is compressed to less than 1/{MOST_COMPRESSED}: unpack it")
        found[name] = entry
    if sum(entry.compress_size for entry in found.values()) > size:
        raise NotInExport("its files overlap")
    return found
