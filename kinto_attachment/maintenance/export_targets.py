"""The target of an export: a folder or a ZIP, which is complete only at the end.

While a folder is written, it contains a hidden file. It lets a later run continue an interrupted
one, without reading finished files from the storage again. A ZIP has another name until it is
complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Protocol

from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.maintenance.export_state import ExportState
from kinto_attachment.maintenance.exported import (
    COLLECTION,
    MAX_FILES_IN_ZIP,
    RECORDS,
    SITE,
    is_zip,
)
from kinto_attachment.storage import CHUNK_SIZE
from kinto_attachment.storage.disk import sync_folder

INCOMPLETE = ".incomplete-kinto-attachment-export"
PART = ".part"
DRAFT = ".draft-"
REGULAR_FILE = 0o100600 << 16


class Target(Protocol):
    """Paths are those of the layout. Each file exists completely or not at all."""

    state: ExportState

    def draft(self) -> IO[bytes]:
        """A temporary file, to be placed or closed; from any thread."""
        ...

    def discard(self, draft: IO[bytes]) -> None:
        """Forget a draft; from any thread."""
        ...

    def has(self, path: str, digest: str, size: int) -> bool:
        """Whether an earlier run has left this file; from any thread."""
        ...

    def place(self, path: str, draft: IO[bytes]) -> None:
        """Place a file that was written to a draft."""
        ...

    def write(self, path: str, chunks: Iterable[bytes]) -> None: ...

    def remove(self, path: str) -> None:
        """Remove an unneeded file, if possible."""
        ...

    def finish(self) -> None:
        """Called when everything is written."""
        ...

    def close(self) -> None: ...


@contextlib.contextmanager
def opened(path: str) -> Iterator[Target]:
    """The target at a path, which is a ZIP if it ends like one.

    :raises CommandError: the path already exists.
    :raises OSError: it cannot be written.
    """
    target: Target = ZipTarget(Path(path)) if is_zip(path) else FolderTarget(Path(path))
    try:
        yield target
    finally:
        target.close()


class FolderTarget:
    """A folder: a new or empty one, or that of an interrupted run."""

    def __init__(self, folder: Path) -> None:
        # Only the operator may read it, since not all users may read the records.
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        if not folder.is_dir():
            raise CommandError(f"{folder}: this exists and is not a folder")
        self._folder = folder
        if os.listdir(folder) and not self._incomplete.is_file():
            raise CommandError(f"{folder}: this folder is not empty")
        with _created(self._incomplete):
            pass
        self.state = ExportState(str(self._incomplete))
        self._clean()

    @property
    def _incomplete(self) -> Path:
        return self._folder / INCOMPLETE

    def draft(self) -> IO[bytes]:
        return tempfile.NamedTemporaryFile(prefix=DRAFT, dir=self._folder, delete=False)

    def discard(self, draft: IO[bytes]) -> None:
        draft.close()
        os.unlink(draft.name)

    def has(self, path: str, digest: str, size: int) -> bool:
        try:
            if (self._folder / path).stat().st_size != size:
                return False
            with (self._folder / path).open("rb") as file:
                return _sha256(file) == digest
        except FileNotFoundError:
            return False

    def place(self, path: str, draft: IO[bytes]) -> None:
        draft.flush()
        os.fsync(draft.fileno())
        draft.close()
        place = self._folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(draft.name, place)

    def write(self, path: str, chunks: Iterable[bytes]) -> None:
        draft = self.draft()
        try:
            draft.writelines(chunks)
            self.place(path, draft)
        except BaseException:
            with contextlib.suppress(OSError):
                self.discard(draft)
            raise

    def remove(self, path: str) -> None:
        (self._folder / path).unlink(missing_ok=True)

    def finish(self) -> None:
        for folder, _, _ in os.walk(self._folder):
            sync_folder(folder)
        self.state.close()
        self._incomplete.unlink()

    def close(self) -> None:
        self.state.close()

    def _clean(self) -> None:
        """Remove everything that an earlier run has written, except the files."""
        for folder, _, names in os.walk(self._folder):
            for name in names:
                if name in (SITE, COLLECTION, RECORDS) or name.startswith(DRAFT):
                    os.unlink(os.path.join(folder, name))


class ZipTarget:
    """A ZIP without compression, since most files are already compressed."""

    def __init__(self, path: Path) -> None:
        if path.exists() or path.is_symlink():
            raise CommandError(f"{path}: this file already exists")
        self._path = path
        self._part = path.with_name(path.name + PART)
        self._state_path = path.with_name(path.name + INCOMPLETE)
        with _created(self._state_path):
            pass
        self.state = ExportState(str(self._state_path))
        self._file = _created(self._part, os.O_TRUNC)
        self._zip = zipfile.ZipFile(self._file, "w")

    def draft(self) -> IO[bytes]:
        return tempfile.TemporaryFile(dir=self._path.parent)

    def discard(self, draft: IO[bytes]) -> None:
        draft.close()

    def has(self, path: str, digest: str, size: int) -> bool:
        return False

    def place(self, path: str, draft: IO[bytes]) -> None:
        with draft:
            draft.seek(0)
            self.write(path, iter(lambda: draft.read(CHUNK_SIZE), b""))

    def write(self, path: str, chunks: Iterable[bytes]) -> None:
        if len(self._zip.filelist) >= MAX_FILES_IN_ZIP:
            message = f"an export of more than {MAX_FILES_IN_ZIP} files has to be a folder"
            raise CommandError(f"{self._path}: {message}")
        info = zipfile.ZipInfo(path)
        info.external_attr = REGULAR_FILE
        with self._zip.open(info, "w", force_zip64=True) as entry:
            for chunk in chunks:
                entry.write(chunk)

    def remove(self, path: str) -> None:
        """Nothing can be removed from a ZIP."""

    def finish(self) -> None:
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._part, self._path)
        sync_folder(str(self._path.parent))
        self.state.close()
        self._state_path.unlink()

    def close(self) -> None:
        if self._zip.fp is None:  # It is finished.
            return
        self._zip.fp = None  # A directory would make the ZIP look complete.
        self.state.close()
        for path in (self._part, self._state_path):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._file.close()


def _created(path: Path, more: int = 0) -> IO[bytes]:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | more
    return os.fdopen(os.open(path, flags, 0o600), "w+b" if more else "r+b")


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_SIZE):
        digest.update(chunk)
    return digest.hexdigest()
