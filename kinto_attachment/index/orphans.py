"""The notes of gc: the files without a record, and since when.

A row contains the files of one storage whose keys have hashes with the same two first digits, as
the first eight bytes of these hashes. A million orphans are 256 rows of 64 KB.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from kinto_attachment.index.objects import Objects, batches, digest_of
from kinto_attachment.kinto_types import StorageBackend

LENGTH = 16  # Hexadecimal digits of a hash.
ROWS_AT_ONCE = 16

Digest = str


def short_digest(key: str) -> Digest:
    return digest_of(key)[:LENGTH]


class OrphanNotes:
    """The rows, in the caller's transaction. Times are in ms since the epoch."""

    def __init__(self, backend: StorageBackend) -> None:
        self._rows = Objects(backend, "attachment-orphans")

    def read(self, storage: str, prefixes: Iterable[str]) -> dict[Digest, int]:
        """The times since when the files of a storage are orphans, by their hashes."""
        found: dict[Digest, int] = {}
        parent = f"attachments-orphans:{storage}"
        if not self._rows.count(parent):
            return found
        for batch in batches(prefixes, ROWS_AT_ONCE):
            for row in self._rows.list(parent, Filter("id", batch, COMPARISON.IN)):
                for since, digests in row["since"].items():
                    time = int(since)
                    for start in range(0, len(digests), LENGTH):
                        found[digests[start : start + LENGTH]] = time
        return found

    def write(self, storage: str, prefix: str, orphans: Mapping[Digest, int]) -> None:
        """Replace the row of a prefix, or delete it if there are no orphans."""
        parent = f"attachments-orphans:{storage}"
        if not orphans:
            self._rows.delete(parent, prefix)
            return
        since: dict[str, list[Digest]] = defaultdict(list)
        for digest, time in orphans.items():
            since[str(time)].append(digest)
        joined = {time: "".join(digests) for time, digests in since.items()}
        self._rows.put(parent, prefix, {"since": joined})
