"""The interface of storage backends: five core methods, and optional capabilities.

The core methods mean the same on every backend; ``testing.StorageContract`` tests that meaning.
Everything else that a backend may support is a capability: a small protocol, which callers check
for with ``isinstance``. Each capability has a contract of its own.

This room may use the settings and what is below them, but not Kinto's database.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO, Protocol, runtime_checkable

from pyramid_storage.extensions import resolve_extensions
from pyramid_storage.interfaces import IFileStorage
from zope.interface import implementer

from kinto_attachment import names
from kinto_attachment.errors import FileNotAllowed, FileNotFound, KeyTaken
from kinto_attachment.http.streams import CHUNK_SIZE as CHUNK_SIZE
from kinto_attachment.http.streams import Reader as Reader
from kinto_attachment.names import check_key as check_key


class ClosableReader(Reader, Protocol):
    """A reader that holds a resource: a file descriptor or a connection."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class FileStat:
    """A stored file: its object key, its size in bytes, when it was written (UTC)."""

    key: str
    size: int
    modified: datetime
    content_type: str = "application/octet-stream"


@dataclass(frozen=True)
class Unfinished:
    """What is left of a write whose process died before it could finish the write or undo it."""

    id: str
    key: str
    size: int
    modified: datetime
    # Whether it is in a place that only this plugin writes to, and not in one with the uploads of
    # other programs.
    is_private: bool = False


@runtime_checkable
class SignsUrls(Protocol):
    def signed_url(
        self, key: str, expires: int, filename: str, disposition: str, content_type: str
    ) -> str:
        """A URL from which anybody can GET the file for ``expires`` seconds.

        The response has the ``Content-Disposition`` made of ``disposition``
        (``attachment`` or ``inline``) and ``filename``, and the media type ``content_type``.
        """
        ...


@runtime_checkable
class ListsFiles(Protocol):
    def list(self, prefix: str = "") -> Iterator[FileStat]:
        """All finished files whose key starts with ``prefix``, in any order."""
        ...


@runtime_checkable
class CopiesFiles(Protocol):
    def copy(self, source: str, target: str) -> FileStat:
        """Copy a file without reading its bytes into this process.

        :raises KeyTaken: there is a file at ``target``, which stays as it is.
        :raises FileNotFound: there is no file at ``source``.
        """
        ...


@runtime_checkable
class ListsUnfinished(Protocol):
    def list_unfinished(self) -> Iterator[Unfinished]:
        """Temporary files and incomplete multipart uploads, including those still in progress."""
        ...

    def discard_unfinished(self, unfinished: Unfinished) -> None:
        """Remove one of them; it may be gone already."""
        ...


@dataclass(frozen=True)
class Partial:
    """A file of which the bytes come in several requests, as far as they are durable.

    It can be written as JSON. ``id`` is random (128 bits, in hex), ``size`` is the number of
    durable bytes, and only the backend understands ``details``.
    """

    id: str
    key: str
    size: int = 0
    details: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class ContinuesWrites(Protocol):
    """Writes that one process begins and another one, maybe on another machine, goes on with.

    The backend keeps no state between two calls: whoever calls keeps the last :class:`Partial`.
    What was stored, but is not part of the Partial that was kept, is garbage. It never becomes a
    part of the file, even if its writer still runs.
    """

    # The largest file that can be written in this way, in bytes; 0 is no limit.
    largest_partial: int

    def begin(
        self,
        id: str,
        key: str,
        content_type: str,
        *,
        disposition: str = "",
        length: int | None = None,
    ) -> Partial:
        """Begin a file. There is none under its key before :meth:`finish`.

        ``length`` is the file's size in bytes, if it is known.

        :raises KeyTaken, InvalidKey, StorageUnavailable, StorageFull:
        """
        ...

    def take_over(self, partial: Partial) -> Partial:
        """What the next writer gets if the last one may still be running.

        It does no I/O. The result has to be kept before the writer begins, so that no two writers
        ever get the same.
        """
        ...

    def append(
        self, partial: Partial, reader: Reader, checkpoint: Callable[[Partial], None]
    ) -> Partial:
        """Append all bytes of ``reader``, durably.

        From time to time, and before anything is changed that a writer before might still use,
        ``checkpoint`` is called with what is durable at that moment, which includes every byte
        that was read by then. It may raise to end the call.

        :raises StorageUnavailable, StorageFull: what checkpoint was last called with, or else
            ``partial``, can be appended to.
        """
        ...

    def finish(self, partial: Partial) -> FileStat:
        """Store the file under its key, whole and durable. It may be called again afterwards.

        :raises KeyTaken, StorageUnavailable, StorageFull: it can be tried again.
        """
        ...

    def discard(self, partial: Partial) -> None:
        """Remove everything that was stored for the file, except what :meth:`finish` stored.

        It may be gone already, wholly or in part.
        """
        ...


@runtime_checkable
class KeepsSite(Protocol):
    """A small object that tells which site the storage belongs to.

    It is not one of the files: no key leads to it, and it is neither listed nor served.
    """

    def read_site(self) -> bytes | None:
        """Its content; None if there is none."""
        ...

    def write_site(self, content: bytes, *, replace: bool) -> bool:
        """Write all of it or nothing. Unless ``replace``, an object that is there stays.

        :returns: False if there was one that stays.
        """
        ...


@runtime_checkable
class HasPaths(Protocol):
    def path(self, filename: str) -> str:
        """The absolute path of the file on this machine."""
        ...


CAPABILITIES = (
    *(SignsUrls, ListsFiles, CopiesFiles, ListsUnfinished, ContinuesWrites, KeepsSite, HasPaths),
)

# Where the object of KeepsSite is. check_key refuses this key, so that nobody can name it.
SITE_KEY = ".kinto-attachment/site"


@implementer(IFileStorage)
class FileStorage:
    """Base class of the backends.

    List it before pyramid_storage's class for the same storage, if you inherit from that too.
    On top of the five core methods it provides what other code in a Pyramid application
    expects of ``request.attachment``: pyramid_storage's ``save``, ``save_file``,
    ``save_filename``, ``exists`` and the extension checks.
    """

    base_url: str = ""
    extensions: Any = resolve_extensions("default")

    def __init__(self, base_url: str = "") -> None:
        self.base_url = base_url

    # The core.

    def write(
        self,
        key: str,
        reader: Reader,
        content_type: str,
        *,
        disposition: str = "",
        encoding: str = "",
    ) -> FileStat:
        """Store the bytes of ``reader`` under ``key``: all of them, or nothing.

        The file is durable when this returns. ``disposition`` and ``encoding`` are the
        ``Content-Disposition`` and the ``Content-Encoding`` that the storage sends when it serves
        the file itself. :meth:`open` returns the bytes as they were written.

        :raises KeyTaken: there is a file under this key, which stays as it is.
        :raises InvalidKey: see :func:`check_key`.
        :raises StorageUnavailable, StorageFull: nothing is stored.
        """
        raise NotImplementedError

    def open(self, key: str, start: int = 0, end: int | None = None) -> ClosableReader:
        """The bytes from ``start`` to ``end`` (exclusive; ``None``: the file's end).

        :raises FileNotFound: also when ``key`` is one that cannot exist.
        """
        raise NotImplementedError

    def stat(self, key: str) -> FileStat:
        """:raises FileNotFound: also when ``key`` is one that cannot exist."""
        raise NotImplementedError

    def delete(self, *keys: str) -> bool:
        """Delete files, in as few calls as the backend allows; missing files are ignored.

        :returns: whether any file was deleted; always True on backends that do not say.
        """
        raise NotImplementedError

    def url(self, filename: str) -> str:
        """The public URL of a key: ``base_url``, which ends with a slash, and the quoted key."""
        return names.public_url(self.base_url, filename)

    @property
    def place(self) -> str:
        """Where the files are, ending with a slash; empty if this cannot be told.

        No two storages of a server may have places of which one begins with the other.
        """
        return ""

    def signs_until(self) -> datetime | None:
        """When signed URLs end, whatever their own validity, as temporary credentials do."""
        return None

    # The interface of pyramid_storage, built on the core.

    def exists(self, filename: str) -> bool:
        try:
            self.stat(filename)
        except FileNotFound:
            return False
        return True

    def extension_allowed(self, ext: str, extensions: Iterable[str] | None = None) -> bool:
        allowed = self.extensions if extensions is None else extensions
        return not allowed or ext.removeprefix(".").lower() in allowed

    def filename_allowed(self, filename: str, extensions: Iterable[str] | None = None) -> bool:
        return self.extension_allowed(os.path.splitext(filename)[1], extensions)

    def file_allowed(self, fs: Any, extensions: Iterable[str] | None = None) -> bool:
        return self.filename_allowed(fs.filename, extensions)

    def save(self, fs: Any, *args: Any, **kwargs: Any) -> str:
        """Store ``fs.file`` (a form's file field) under a name made from ``fs.filename``."""
        return self.save_file(fs.file, fs.filename, *args, **kwargs)

    def save_filename(self, filename: str, *args: Any, **kwargs: Any) -> str:
        """Store a local file."""
        with open(filename, "rb") as file:
            return self.save_file(file, os.path.basename(filename), *args, **kwargs)

    def save_file(
        self,
        file: BinaryIO,
        filename: str,
        folder: str | None = None,
        randomize: bool = False,
        extensions: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> str:
        """Store an open file and return its key; if the name is taken, ``-1``, ``-2`` … is added.

        :raises FileNotAllowed: the extension is not among ``extensions``.
        """
        if not self.filename_allowed(filename, extensions):
            raise FileNotAllowed()
        content_type = names.mimetype(filename, None, {})
        name = names.random_name(filename) if randomize else names.safe_name(filename)
        for candidate in names.numbered(name):
            key = posixpath.join(folder, candidate) if folder else candidate
            file.seek(0)
            try:
                self.write(key, file, content_type)
            except KeyTaken:
                continue
            return key
        raise KeyTaken()
