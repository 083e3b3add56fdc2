"""The interface of storage backends: five core methods, and optional capabilities.

The core methods behave the same on every backend, as ``testing.StorageContract`` defines.
Everything else that a backend may support is a capability: a small protocol, which callers check
for with ``isinstance``. Each capability has its own contract.

This layer may use ``settings`` and the layers below it, but not Kinto's database.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable
from datetime import datetime
from typing import Any, BinaryIO

from pyramid_storage.extensions import resolve_extensions
from pyramid_storage.interfaces import IFileStorage
from zope.interface import implementer

from kinto_attachment import names
from kinto_attachment.errors import FileNotFound, KeyTaken
from kinto_attachment.errors.file_not_allowed import FileNotAllowed
from kinto_attachment.http.streams import CHUNK_SIZE as CHUNK_SIZE, Reader as Reader
from kinto_attachment.names import check_key as check_key

from .capabilities import (
    CAPABILITIES as CAPABILITIES,
    ArrivedPart as ArrivedPart,
    ClosableReader as ClosableReader,
    ContinuesWrites as ContinuesWrites,
    CopiesFiles as CopiesFiles,
    FileStat as FileStat,
    HasPaths as HasPaths,
    KeepsSite as KeepsSite,
    KnowsHashes as KnowsHashes,
    ListsFiles as ListsFiles,
    ListsUnfinished as ListsUnfinished,
    Partial as Partial,
    PartRequest as PartRequest,
    SignsUrls as SignsUrls,
    Unfinished as Unfinished,
    UploadsDirectly as UploadsDirectly,
)

# The place of the object of KeepsSite. check_key refuses this key, so no file can have it.
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
        """The place of the files, ending with a slash; empty if unknown.

        The place of one storage of a server must not be a prefix of another one's.
        """
        return ""

    def signs_until(self) -> datetime | None:
        """When all signed URLs end, as with temporary credentials; None if they do not."""
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
