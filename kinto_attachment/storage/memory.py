"""Files in a dictionary: the shortest complete backend, for tests and experiments."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from datetime import datetime, timezone

from pyramid_storage.extensions import resolve_extensions

from kinto_attachment.errors import FileNotFound, KeyTaken, StorageUnavailable

from . import CHUNK_SIZE, FileStat, FileStorage, Reader, check_key
from .memory_partials import MemoryPartials


class MemoryStorage(MemoryPartials, FileStorage):
    """Keeps files until the process ends.

    ``outage`` simulates a failing storage: while it is an exception, every method that would
    access a disk or a server raises ``StorageUnavailable`` with that exception as its cause.
    """

    def __init__(self, base_url: str = "", extensions: str = "default") -> None:
        MemoryPartials.__init__(self)
        self.base_url = base_url
        self.extensions = resolve_extensions(extensions)
        self.outage: Exception | None = None
        self._files: dict[str, tuple[FileStat, bytes]] = {}
        self._site: bytes | None = None
        self._lock = threading.Lock()

    def write(
        self,
        key: str,
        reader: Reader,
        content_type: str,
        *,
        disposition: str = "",
        encoding: str = "",
    ) -> FileStat:
        self._reach(key)
        if key in self._files:  # An early check, which avoids reading the body.
            raise KeyTaken()
        content = b"".join(iter(lambda: reader.read(CHUNK_SIZE), b""))
        return self._publish(key, content, content_type)

    def open(self, key: str, start: int = 0, end: int | None = None) -> io.BytesIO:
        return io.BytesIO(self._find(key)[1][start:end])

    def stat(self, key: str) -> FileStat:
        return self._find(key)[0]

    def has_hash(self, key: str, digest: str) -> bool:
        return hashlib.sha256(self._find(key)[1]).hexdigest() == digest

    def delete(self, *keys: str) -> bool:
        self._reach(*keys)
        with self._lock:
            removed = [self._files.pop(key, None) for key in keys]
        return any(removed)

    def list(self, prefix: str = "") -> Iterator[FileStat]:
        self._reach()
        with self._lock:
            files = [stat for stat, _ in self._files.values()]
        return (stat for stat in files if stat.key.startswith(prefix))

    def copy(self, source: str, target: str) -> FileStat:
        self._reach(target)
        stat, content = self._find(source)
        return self._publish(target, content, stat.content_type)

    def read_site(self) -> bytes | None:
        self._reach()
        return self._site

    def write_site(self, content: bytes, *, replace: bool) -> bool:
        self._reach()
        with self._lock:
            if self._site is not None and not replace:
                return False
            self._site = content
        return True

    def _reach(self, *keys: str) -> None:
        for key in keys:
            check_key(key)
        if self.outage is not None:
            raise StorageUnavailable() from self.outage

    def _find(self, key: str) -> tuple[FileStat, bytes]:
        self._reach(key)
        try:
            return self._files[key]
        except KeyError as error:
            raise FileNotFound() from error

    def _publish(self, key: str, content: bytes, content_type: str) -> FileStat:
        stat = FileStat(key, len(content), datetime.now(timezone.utc), content_type)
        with self._lock:
            if key in self._files:
                raise KeyTaken()
            self._files[key] = (stat, content)
        return stat
