"""Atomic, durable file operations on a disk, with translated errors."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from kinto_attachment.errors import AttachmentError, StorageFull, StorageUnavailable

from . import CHUNK_SIZE, Reader

if TYPE_CHECKING:
    from typing_extensions import Self

# Bytes that are left to an fsync at the end, even in a short request that continues a file.
WRITE_BACK_BYTES = 1024 * 1024
COPY_BYTES = 1024 * 1024 * 1024

# Without O_PATH, the folder has to be readable.
FOLDER = os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY)

ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
# With the keys ``a`` and ``a/b``, a file is in the place of a folder, or the other way round.
OCCUPIED = (FileExistsError, NotADirectoryError, IsADirectoryError)
# The errors of FAT, some network file systems and some FUSE file systems.
NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
NO_COPY_IN_KERNEL = {errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
# Files are removed by several threads if so many of them took longer than so many seconds each.
FILES_TIMED, SLOW = 50, 0.0001
THREADS = 8
NO_FILE = "It is no regular file"


class Output:
    """A file that is written to, at its end."""

    def __init__(self, path: str, flags: int) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | flags, 0o666)
        self._size = self._written_back = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with suppress(OSError):
            self.close()

    def fill(self, reader: Reader) -> None:
        # Errors that the reader raises are not translated.
        while chunk := reader.read(CHUNK_SIZE):
            with translated():
                self.write(chunk)

    def fill_from_file(self, file: FileReader) -> None:
        with translated():
            if not self._copy_in_kernel(file):
                self.fill(file)

    def write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self._size += len(chunk)
        if self._size - self._written_back >= WRITE_BACK_BYTES:
            self._start_write_back()

    def sync(self, mode: int | None = None, *, durable: bool) -> os.stat_result:
        """Set the mode, write everything to the disk, and return the file's stat."""
        if mode is not None:
            os.fchmod(self._descriptor, mode)
        if durable:
            os.fsync(self._descriptor)
        return os.fstat(self._descriptor)

    def sync_and_close(self, mode: int | None, *, durable: bool) -> os.stat_result:
        found = self.sync(mode, durable=durable)
        self.close()  # Some network file systems report errors only here.
        return found

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _copy_in_kernel(self, file: FileReader) -> bool:
        # Some file systems (XFS, Btrfs) share the blocks instead of copying them.
        if sys.platform != "linux":
            return False
        try:
            while left := min(file.left, COPY_BYTES):
                if not os.copy_file_range(file.fileno(), self._descriptor, left):
                    break
        except OSError as error:
            if error.errno not in NO_COPY_IN_KERNEL:
                raise
            return False
        return True

    def _start_write_back(self) -> None:
        # Start writing now, so that fsync has little left to do. Linux takes this advice as
        # "start writing"; it drops no pages that are not written yet.
        start, self._written_back = self._written_back, self._size
        if sys.platform == "linux":
            size = self._size - start
            os.posix_fadvise(self._descriptor, start, size, os.POSIX_FADV_DONTNEED)


class LockedFile(Output):
    """A file with an exclusive lock, which ends with the process.

    :raises BlockingIOError: somebody has.
    :raises FileNotFoundError: it does not exist, or no longer under this name.
    :raises OSError: it is a pipe, a socket or a device.
    """

    def __init__(self, path: str, *, create: bool = False) -> None:
        # A pipe is not waited for: without a reader, it is refused (ENXIO).
        super().__init__(path, os.O_NONBLOCK | (os.O_CREAT if create else 0))
        try:
            found = os.fstat(self._descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.ENXIO, NO_FILE, path)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            named = os.lstat(path)
            if (found.st_dev, found.st_ino) != (named.st_dev, named.st_ino):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            self._size = self._written_back = os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError:
            self.close()
            raise

    @property
    def size(self) -> int:
        return self._size

    def cut(self, size: int) -> None:
        """Continue at ``size``; bytes after it are dropped.

        :raises OSError: there are fewer bytes.
        """
        if self._size < size:
            raise OSError(errno.EIO, f"{self._size} of {size} bytes are left", self.path)
        if self._size > size:
            os.ftruncate(self._descriptor, size)
        self._size = self._written_back = os.lseek(self._descriptor, size, os.SEEK_SET)

    def touch(self) -> None:
        """Set the time of its last change to the current time."""
        os.utime(self._descriptor)


class FileReader(io.FileIO):
    """A stored file, or its bytes from ``start`` to ``end``.

    It is a real file, whose descriptor is positioned at ``start``, so that a WSGI server can use
    ``sendfile`` to send as many bytes as the response's ``Content-Length`` says.
    """

    def __init__(self, path: str | int, start: int = 0, end: int | None = None) -> None:
        super().__init__(path, opener=open_file)
        found = os.fstat(self.fileno())
        # FileIO allocates as many bytes as are wanted, even if the file is shorter.
        self._end = found.st_size if end is None else min(end, found.st_size)
        self.seek(start)

    @property
    def left(self) -> int:
        return max(0, self._end - self.tell())

    def read(self, size: int | None = -1, /) -> bytes:
        left = self.left
        with translated():
            return super().read(left if size is None or size < 0 else min(size, left))

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def open_file(path: str, flags: int) -> int:
    """Open an existing file, without waiting for the other end of a pipe.

    :raises FileNotFoundError: it is no regular file, see :func:`stat_file`.
    """
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK)
    except OSError:
        stat_file(path)  # A socket cannot be opened, and each device has an error of its own.
        raise
    try:
        _check_regular(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def stat_file(path: str) -> os.stat_result:
    """The stat of a regular file.

    :raises FileNotFoundError: the path does not exist, or is a folder, a pipe, a socket, a device,
        or a symbolic link that leads to itself.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        # A loop in the path of its folder is an outage.
        if error.errno == errno.ELOOP and os.path.islink(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ELOOP), path) from error
        raise
    _check_regular(found, path)
    return found


def _check_regular(found: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise FileNotFoundError(errno.ENOENT, NO_FILE, path)


@contextmanager
def translated(
    errors: tuple[type[OSError], ...] = (), meaning: type[AttachmentError] = StorageUnavailable
) -> Iterator[None]:
    """Raise ``meaning`` for ``errors``; for others, StorageFull or StorageUnavailable."""
    try:
        yield
    except errors as error:
        raise meaning() from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (StorageFull if full else StorageUnavailable)() from error


def rename_to_free(source: str, target: str) -> None:
    """Give a file an unused name; ``source`` may stay as a second name.

    :raises FileExistsError: ``target`` exists.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        rename_under_lock(source, target)


def rename_under_lock(source: str, target: str) -> None:
    # rename() overwrites, so the check and the rename have to be one step for all our processes.
    lock = os.open(os.path.dirname(source), os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        os.rename(source, target)
    finally:
        os.close(lock)


def unlink(path: str) -> bool:
    """Remove a file; False if there was none."""
    try:
        os.unlink(path)
    except ABSENT:
        return False
    return True


class Folder:
    """An open folder, whose files are accessed without resolving its path again.

    The path is resolved once.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, FOLDER)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._descriptor)

    def unlink_all(self, names: Sequence[str]) -> bool:
        """Remove files, or symbolic links instead of their targets; False if none existed.

        A disk in memory takes 0.01 ms for each. Where the file system waits for a disk or for a
        network, several are removed at a time.
        """
        deleted = False
        for start in range(0, len(names), FILES_TIMED):
            some, others = names[start : start + FILES_TIMED], names[start + FILES_TIMED :]
            started = time.monotonic()
            deleted |= self._unlink(some)
            if others and time.monotonic() - started > SLOW * len(some):
                return self._unlink_at_once(others) or deleted
        return deleted

    def _unlink_at_once(self, names: Sequence[str]) -> bool:
        with ThreadPoolExecutor(THREADS) as threads:
            parts = [names[number::THREADS] for number in range(THREADS)]
            return any(list(threads.map(self._unlink, parts)))

    def _unlink(self, names: Iterable[str]) -> bool:
        deleted = False
        for name in names:
            try:
                os.unlink(name, dir_fd=self._descriptor)
            except ABSENT:
                continue
            deleted = True
        return deleted


def sync_folder(folder: str) -> None:
    """Write the names in a folder to the disk, as fsync does for the content of a file."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder; none if the folder does not exist (any more)."""
    with (
        translated(),
        suppress(FileNotFoundError, NotADirectoryError),
        os.scandir(folder) as found,
    ):
        yield from found


def stat_entry(entry: os.DirEntry[str]) -> os.stat_result | None:
    with translated():
        try:
            return entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # It was deleted in the meantime.
            return None
