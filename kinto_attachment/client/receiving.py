"""Writing a download to a file, which appears only when it is complete and verified."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

from kinto_attachment.client.contents import Content
from kinto_attachment.client.errors import ConflictError, MismatchError
from kinto_attachment.client.forms import Progress
from kinto_attachment.client.sources import BLOCK
from kinto_attachment.http.streams import GZIP_FORMAT, Reader
from kinto_attachment.metadata import Attachment, Original

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows.
    flock = None  # type: ignore[assignment]

Open = Callable[[int], Reader]
"""Opens the stored bytes at a position."""

Writable = str | os.PathLike[str] | IO[bytes]


def receive(
    content: Content,
    read_from: Open,
    target: Writable,
    progress: Progress | None = None,
    partial_file: Path | None = None,
) -> None:
    """Write the content, decompressed, to a path or to an open file.

    Neither is written to before the whole download has been verified. ``partial_file`` keeps the
    bytes of an interrupted download, and the next one resumes it.

    :raises MismatchError: the size or the hash is wrong; nothing is kept.
    """
    if not isinstance(target, (str, os.PathLike)):
        _to_open_file(content, read_from, target, progress)
        return
    if Path(target).is_dir():
        raise IsADirectoryError(f"{target} is a folder")
    part = partial_file or _beside(Path(target))
    with _clearing(part, keep=partial_file is not None):
        with part.open("a+b") as file, _locked(file):
            _complete(file, content.stored, read_from, progress)
            if content.layers:
                _unpack_to(file, content, Path(target))
        if content.layers:
            part.unlink()
        else:
            os.replace(part, target)


@contextlib.contextmanager
def _clearing(part: Path, *, keep: bool) -> Iterator[None]:
    """On failure, remove the part, unless it is to be kept and can be resumed."""
    try:
        yield
    except BlockingIOError:  # It belongs to another process.
        raise
    except BaseException as error:
        useless = isinstance(error, (ConflictError, MismatchError))
        if not keep or useless or (part.exists() and not part.stat().st_size):
            part.unlink(missing_ok=True)
        raise


def _to_open_file(
    content: Content, read_from: Open, target: IO[bytes], progress: Progress | None
) -> None:
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as unpacked:
        _complete(file, content.stored, read_from, progress)
        whole = _unpack(file, content, unpacked) if content.layers else file
        whole.seek(0)
        shutil.copyfileobj(whole, target, BLOCK)


def _unpack_to(file: IO[bytes], content: Content, target: Path) -> None:
    unpacked = _beside(Path(file.name))
    try:
        with unpacked.open("xb") as output:
            _unpack(file, content, output)
        os.replace(unpacked, target)
    finally:
        unpacked.unlink(missing_ok=True)


def _complete(
    file: IO[bytes], stored: Attachment, read_from: Open, progress: Progress | None
) -> None:
    """Download what the file lacks, and verify it; if that fails, download it from the start."""
    start, digest = _what_is_there(file)
    if not _append(file, start, digest, stored, read_from, progress) and (
        not start or not _append(file, 0, hashlib.sha256(), stored, read_from, progress)
    ):
        file.truncate(0)
        raise MismatchError(f"{stored.filename} has another size or hash than announced")


def _what_is_there(file: IO[bytes]) -> tuple[int, hashlib._Hash]:
    digest = hashlib.sha256()
    file.seek(0)
    size = 0
    for chunk in iter(partial(file.read, BLOCK), b""):
        digest.update(chunk)
        size += len(chunk)
    return size, digest


def _append(
    file: IO[bytes],
    start: int,
    digest: hashlib._Hash,
    stored: Attachment,
    read_from: Open,
    progress: Progress | None,
) -> bool:
    """Download from ``start`` on; returns whether the file has the right size and hash."""
    file.truncate(start)
    file.seek(start)
    size = start
    reader = read_from(start)
    while data := reader.read(BLOCK):
        file.write(data)
        digest.update(data)
        size += len(data)
        if progress:
            progress(size, stored.size)
    file.flush()
    return size == stored.size and digest.hexdigest() == stored.hash


def _unpack(file: IO[bytes], content: Content, output: IO[bytes]) -> IO[bytes]:
    """Decompress each layer, and verify those that are described; write the innermost one."""
    file.seek(0)
    chunks: Iterator[bytes] = iter(partial(file.read, BLOCK), b"")
    for layer in content.layers:
        chunks = gunzip(chunks, (layer or content.stored).filename)
        if layer is not None:
            chunks = _verified(chunks, layer)
    for chunk in chunks:
        output.write(chunk)
    output.flush()
    return output


def gunzip(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The content of a gzip file (RFC 1952), which may have several members.

    It is yielded in pieces of at most 256 KiB, however well it is compressed.

    :raises MismatchError: it is not a gzip file, or it is truncated.
    """
    decompressor = None
    try:
        for chunk in chunks:
            data = chunk
            while data:
                decompressor = decompressor or zlib.decompressobj(GZIP_FORMAT)
                yield decompressor.decompress(data, BLOCK)
                data = decompressor.unconsumed_tail or decompressor.unused_data
                if decompressor.eof:
                    decompressor = None
        while decompressor is not None and (rest := decompressor.decompress(b"", BLOCK)):
            yield rest
    except zlib.error as error:
        raise MismatchError(f"{name} cannot be decompressed ({error})") from error
    if decompressor is not None and not decompressor.eof:
        raise MismatchError(f"{name} cannot be decompressed: it is truncated")


def _verified(chunks: Iterator[bytes], layer: Original) -> Iterator[bytes]:
    digest = hashlib.sha256()
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > layer.size:
            break
        digest.update(chunk)
        yield chunk
    if size != layer.size or digest.hexdigest() != layer.hash:
        raise MismatchError(
            f"{layer.filename} has another size or hash than announced, after decompression"
        )


def _beside(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(8)}.part")


@contextlib.contextmanager
def _locked(file: IO[bytes]) -> Iterator[None]:
    """Lock the file, so that only one process downloads it.

    :raises BlockingIOError: another process has locked it.
    """
    if flock is None:
        yield
        return
    try:
        flock(file, LOCK_EX | LOCK_NB)
    except OSError as error:
        raise BlockingIOError("Another process is downloading this file") from error
    yield  # Closing the file releases the lock.
