"""Comparing a stored file with its data in the index."""

from __future__ import annotations

import hashlib
from contextlib import closing

from kinto_attachment.errors import FileNotFound
from kinto_attachment.index.link import Link
from kinto_attachment.maintenance.rates import Rate
from kinto_attachment.storage import CHUNK_SIZE, FileStorage, KnowsHashes


def is_vouched_for(files: FileStorage, link: Link) -> bool:
    """Whether the storage itself confirms that the file has this hash."""
    return isinstance(files, KnowsHashes) and bool(files.has_hash(link.key, link.hash))


def problem_of(files: FileStorage, link: Link, rate: Rate) -> str:
    """Read a file; returns its problem, or an empty text.

    :raises FileNotFound:
    :raises StorageUnavailable:
    """
    digest, size = hashlib.sha256(), 0
    with closing(files.open(link.key)) as reader:
        # One byte more than expected, which detects a file that is too long.
        while size <= link.size and (chunk := reader.read(min(CHUNK_SIZE, link.size - size + 1))):
            digest.update(chunk)
            size += len(chunk)
            rate.take(len(chunk))
    if size > link.size:
        return f"it has {_size(files, link.key, size)} bytes instead of {link.size}"
    if size < link.size:
        return f"it has {size} bytes instead of {link.size}"
    if digest.hexdigest() != link.hash:
        return f"its SHA-256 is {digest.hexdigest()} instead of {link.hash}"
    return ""


def _size(files: FileStorage, key: str, at_least: int) -> int:
    try:
        return files.stat(key).size
    except FileNotFound:  # The file was deleted in the meantime.
        return at_least
