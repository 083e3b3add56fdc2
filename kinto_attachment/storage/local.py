"""Files in a local folder, which may be a mounted network file system."""

from __future__ import annotations

import io
import os
import secrets
import socket
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone

from pyramid_storage.local import LocalFileStorage

from kinto_attachment import names
from kinto_attachment.errors import FileNotFound, InvalidKey, KeyTaken

from . import SITE_KEY, FileStat, FileStorage, Reader, Unfinished, check_key
from .disk import (
    ABSENT,
    OCCUPIED,
    FileReader,
    Folder,
    entries,
    rename_to_free,
    stat_entry,
    stat_file,
    translated,
    unlink,
)
from .drafts import Draft, can_be_unnamed
from .local_partials import LocalPartials, partial_of

# No segment of a key starts with a dot, so no key leads into this folder.
UNFINISHED_FOLDER = ".unfinished"


class LocalStorage(LocalPartials, FileStorage, LocalFileStorage):  # type: ignore[misc]
    """Stores each file under its key in ``base_path``, which is created if it is missing.

    A file is written to a hidden folder of the same file system, and gets its name when it is
    complete and synced to the disk. Before that, a small file has no name, if the file system
    supports it. ``file_mode`` (such as ``0o640``) is the mode of new files, and of folders with
    ``x`` added; without it, the umask decides. With ``durable=False`` nothing is synced: a power
    failure may lose files whose upload was confirmed.
    """

    def __init__(
        self,
        base_path: str,
        base_url: str = "",
        extensions: str = "default",
        *,
        file_mode: int | None = None,
        durable: bool = True,
    ) -> None:
        LocalFileStorage.__init__(self, os.path.abspath(base_path), base_url, extensions)
        self.file_mode = file_mode
        self.durable = durable
        self._unnamed: bool | None = None  # Not known yet.
        self._unfinished = os.path.join(self.base_path, UNFINISHED_FOLDER)
        self._site = os.path.join(self.base_path, *SITE_KEY.split("/"))
        self._private = (self._unfinished, os.path.dirname(self._site))

    def path(self, filename: str) -> str:
        """The absolute path of a key.

        :raises InvalidKey: also when a symbolic link leads out of ``base_path``.
        """
        # This is the only place where keys become paths. Code that builds paths elsewhere could
        # be made to access any file of the machine.
        path = str(os.path.join(self.base_path, check_key(filename)))
        if os.path.dirname(path) == self.base_path and not os.path.islink(path):
            return path  # There is no folder between that could be a symbolic link.
        real = os.path.realpath(path)
        base = os.path.join(os.path.realpath(self.base_path), "")
        if real != path and not real.startswith(base):
            raise InvalidKey()
        return path

    @property
    def place(self) -> str:
        return "file:" + os.path.join(os.path.realpath(self.base_path), "")

    def write(
        self,
        key: str,
        reader: Reader,
        content_type: str,
        *,
        disposition: str = "",
        encoding: str = "",
    ) -> FileStat:
        is_unnamed = self._drafts_can_be_unnamed()
        return self._store(key, lambda draft: draft.fill(reader), is_unnamed=is_unnamed)

    def copy(self, source: str, target: str) -> FileStat:
        # Not a hard link: it would keep the old modification time, and gc could take it for a
        # file that was left behind.
        with self.open(source) as file:
            return self._store(target, lambda draft: draft.fill_from_file(file))

    def open(self, key: str, start: int = 0, end: int | None = None) -> FileReader:
        path = self.path(key)
        with translated(ABSENT, FileNotFound):
            return FileReader(path, start, end)

    def stat(self, key: str) -> FileStat:
        path = self.path(key)
        with translated(ABSENT, FileNotFound):
            return file_stat(key, stat_file(path))

    def delete(self, *keys: str) -> bool:
        # A name that is a symbolic link is removed itself, wherever it leads to. Those of folders
        # are followed: all are checked before the first file is deleted.
        found = [(self._folder_path(folder), names) for folder, names in by_folder(keys).items()]
        deleted = [self._delete_in(path, names) for path, names in found]
        return any(deleted)

    def list(self, prefix: str = "") -> Iterator[FileStat]:
        folder = prefix.rpartition("/")[0]
        try:
            path = self._folder_path(folder)
        except InvalidKey:
            return iter(())
        return self._walk(path, f"{folder}/" if folder else "", prefix)

    def list_unfinished(self) -> Iterator[Unfinished]:
        for entry in entries(self._unfinished):
            found = stat_entry(entry)
            if found is not None and not stat.S_ISDIR(found.st_mode):
                key = entry.name.partition(":")[2].replace("\\", "/")
                yield Unfinished(
                    entry.name,
                    key,
                    found.st_size,
                    modified(found),
                    is_private=True,
                    partial_id=partial_of(entry.name),
                )

    def discard_unfinished(self, unfinished: Unfinished) -> None:
        with translated():
            unlink(os.path.join(self._unfinished, os.path.basename(unfinished.id)))

    def read_site(self) -> bytes | None:
        with translated():
            try:
                with FileReader(self._site) as file:
                    return file.read()
            except ABSENT:
                return None

    def write_site(self, content: bytes, *, replace: bool) -> bool:
        put = os.replace if replace else rename_to_free
        folder = os.path.dirname(self._site)
        with translated(), self._draft(SITE_KEY) as draft:
            draft.fill(io.BytesIO(content))
            # Not the mode of files: no web server needs it.
            draft.sync_and_close(None, durable=self.durable)
            try:
                self._in_folder(folder, lambda: put(draft.path, self._site))
            except FileExistsError:
                return False
            self._sync_folder(folder)
        return True

    def _store(
        self, key: str, fill: Callable[[Draft], None], *, is_unnamed: bool = False
    ) -> FileStat:
        path = self.path(key)
        with translated():
            draft = self._draft(key, is_unnamed=is_unnamed)
        with draft:
            # An early check, which avoids reading the body; give_name checks again.
            self._check_free(path)
            fill(draft)
            with translated(OCCUPIED, KeyTaken):
                found = draft.complete(self.file_mode, durable=self.durable)
                self._publish(draft, path)
        return file_stat(key, found)

    def _draft(self, key: str, *, is_unnamed: bool = False) -> Draft:
        path = self._draft_path(key)
        return self._in_folder(self._unfinished, lambda: Draft(path, is_unnamed=is_unnamed))

    def _drafts_can_be_unnamed(self) -> bool:
        if self._unnamed is None:
            with translated():
                self._in_folder(self._unfinished, lambda: os.stat(self._unfinished))
            self._unnamed = can_be_unnamed(self._draft_path("probe"))
        return self._unnamed

    def _check_free(self, path: str) -> None:
        with translated(OCCUPIED, KeyTaken), suppress(FileNotFoundError):
            os.lstat(path)
            raise KeyTaken()

    def _draft_path(self, key: str) -> str:
        # The random part makes the name unique. Host and process are for people who find the file
        # after a crash.
        owner = f"{secrets.token_hex(8)}-{os.getpid()}@{socket.gethostname()}"
        return self._hidden_path(owner, key)

    def _hidden_path(self, owner: str, key: str) -> str:
        # The key is also for people. Keys have no backslashes.
        name = f"{owner}:{key}".replace("/", "\\").encode()[:255].decode(errors="ignore")
        return os.path.join(self._unfinished, name)

    def _publish(self, draft: Draft, path: str) -> None:
        folder = os.path.dirname(path)
        self._in_folder(folder, lambda: draft.give_name(path))
        try:
            self._sync_folder(folder)
        except OSError:
            unlink(path)
            raise

    def _delete_in(self, path: str, found: Sequence[str]) -> bool:
        """Delete files of one folder; False if none existed."""
        deleted = False
        with translated(), suppress(*ABSENT):
            with Folder(path) as opened:
                deleted = opened.unlink_all(found)
            # Not synced: if a power failure brings a file back, gc finds it without a record.
            self._remove_empty(path)
        return deleted

    def _folder_path(self, folder: str) -> str:
        return self.path(folder) if folder else self.base_path

    def _walk(self, path: str, start: str, prefix: str) -> Iterator[FileStat]:
        for entry in entries(path):
            key = start + entry.name
            if not key.startswith(prefix) or not is_key(key):
                continue
            found = stat_entry(entry)
            if found is None:
                continue
            if stat.S_ISDIR(found.st_mode):
                yield from self._walk(entry.path, f"{key}/", prefix)
            elif stat.S_ISREG(found.st_mode):
                yield file_stat(key, found)


def by_folder(keys: Iterable[str]) -> dict[str, list[str]]:
    """The names of files, by the part of their keys before the last slash.

    :raises InvalidKey: one of the keys is not valid.
    """
    found = defaultdict(list)
    for key in keys:
        folder, _, name = check_key(key).rpartition("/")
        found[folder].append(name)
    return found


def file_stat(key: str, found: os.stat_result) -> FileStat:
    # A file system stores no media type, so it is guessed from the name.
    return FileStat(key, found.st_size, modified(found), names.mimetype(key, None, {}))


def modified(found: os.stat_result) -> datetime:
    return datetime.fromtimestamp(found.st_mtime, timezone.utc)


def is_key(name: str) -> bool:
    try:
        check_key(name)
    except InvalidKey:
        return False
    return True
