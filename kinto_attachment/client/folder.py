"""A folder of downloads: which file belongs to which record, and when it was last updated."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kinto_attachment import names

STATE = ".last_sync"
PARTIAL = ".partial"
STALE = 7 * 24 * 3600  # Seconds, after which the files of interrupted downloads are deleted.

MAX_NAME_BYTES = 255  # Linux and others: NAME_MAX.
MAX_ID = 40  # Characters. A hash replaces longer ids, and ids that cannot be filenames.
NOT_ON_WINDOWS = re.compile(r'[<>:"|?*]|[. ]$')


@dataclass
class Sync:
    """The state of one collection in the folder.

    ``timestamp`` is the collection's at the last run, None before the first one; ``failed`` are
    the ids of records to be requested again, ``files`` the filenames by record id.
    """

    timestamp: int | None = None
    failed: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)


class Folder:
    """The folder; ``source`` is the URL of the collection that is downloaded into it.

    Timestamps are stored by URL. The owners of files are compared without the server's name, so
    that filenames stay the same if a server is reached by another URL.

    :raises ValueError: its ``.last_sync`` cannot be read.
    """

    def __init__(self, path: Path, source: str) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._syncs = _load(path / STATE, source)
        self.sync = self._syncs.setdefault(source, Sync())
        self._collection = urlsplit(source).path
        self._owners = {
            _folded(name): (urlsplit(url).path, record_id)
            for url, sync in self._syncs.items()
            for record_id, name in sync.files.items()
        }

    def place(self, record_id: str, filename: str, path: Any = None) -> Path:
        """The path for a record's file: the one of the last run, and of no other record.

        It is directly in this folder, whatever the filename, or in the folders below it that
        ``path`` names, if it ends with the filename.
        """
        owner = (self._collection, record_id)
        before = self.sync.files.get(record_id)
        folders = local_folders(path, filename)
        if before is not None and before in islice(_candidates(filename, record_id, folders), 3):
            return self.path / before
        name = next(
            name
            for name in _candidates(filename, record_id, folders)
            if self._owners.get(_folded(name), owner) == owner
        )
        if before is not None:
            self._owners.pop(_folded(before), None)
        self.sync.files[record_id] = name
        self._owners[_folded(name)] = owner
        return self.path / name

    def partial_file(self, record_id: str, sha256: str) -> Path:
        """The path where the bytes of a record's file are kept until the download is complete."""
        folder = self.path / PARTIAL
        folder.mkdir(exist_ok=True)
        return folder / f"{_short(f'{self._collection} {record_id} {sha256}')}.part"

    def save(self) -> None:
        """Write the state, and delete old files of interrupted downloads."""
        text = json.dumps({source: asdict(sync) for source, sync in self._syncs.items()})
        new = self.path / f"{STATE}.{os.getpid()}"
        new.write_text(text, "utf-8")
        os.replace(new, self.path / STATE)
        with contextlib.suppress(OSError):
            for part in (self.path / PARTIAL).iterdir():
                if time.time() - part.stat().st_mtime > STALE:
                    part.unlink()
            (self.path / PARTIAL).rmdir()


def _load(path: Path, source: str) -> dict[str, Sync]:
    try:
        found: Any = json.loads(path.read_text("utf-8"))
        if isinstance(found, int):  # Other tools write a timestamp only.
            return {source: Sync(found)}
        return {str(key): Sync(**value) for key, value in found.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read; delete it to check all files again") from error


def _candidates(filename: str, record_id: str, folders: str) -> Iterator[str]:
    name = local_name(filename)
    yield folders + name
    stem, dotted = os.path.splitext(name)
    # A server may send any id, such as one with slashes.
    is_name = len(record_id) <= MAX_ID and local_name(record_id) == record_id
    label = record_id if is_name else _short(record_id)
    for number in count():
        suffix = f"-{label}-{number}{dotted}" if number else f"-{label}{dotted}"
        yield folders + names.truncated(stem, MAX_NAME_BYTES - len(suffix.encode())) + suffix


def local_folders(path: Any, filename: str) -> str:
    """The folders of a path from ``upload -r``, with a slash at the end; or an empty text.

    A server may send anything: values that are not paths, or lead elsewhere, are ignored.
    """
    if not isinstance(path, str):
        return ""
    *folders, last = path.split("/")
    if last != filename or any(part.strip() in ("", ".", "..") for part in folders):
        return ""
    return "".join(f"{local_name(part)}/" for part in folders)


def local_name(filename: str) -> str:
    """The last part of the name, without characters that file systems refuse; never hidden."""
    name = re.split(r"[/\\]", names.printable(filename))[-1].strip()
    if os.name == "nt":
        name = NOT_ON_WINDOWS.sub("_", name)
    if name.strip(".") == "":
        name = "file"
    if name.startswith("."):
        name = f"_{name}"
    stem, dotted = os.path.splitext(name)
    dotted = names.truncated(dotted, MAX_NAME_BYTES // 2)
    return names.truncated(stem, MAX_NAME_BYTES - len(dotted.encode())) + dotted


def _folded(name: str) -> str:
    """A form that is equal for names that some file systems treat as equal."""
    return unicodedata.normalize("NFC", name).casefold()


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
