"""The notes of verify: which files were intact, and when.

A row contains the files of one storage whose keys have hashes with the same three first digits, as
the first eight bytes of these hashes. A million files are 4,096 rows of 4 KB.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from kinto_attachment.index.objects import Objects, batches
from kinto_attachment.index.orphans import LENGTH, Digest
from kinto_attachment.kinto_types import StorageBackend

PREFIX = 3  # Hexadecimal digits that the files of a row have in common.


class VerifiedFiles:
    """The rows, in the caller's transaction. Times are in ms since the epoch."""

    def __init__(self, backend: StorageBackend) -> None:
        self._rows = Objects(backend, "attachment-verified")

    def read(self, storage: str, digests: Iterable[Digest]) -> dict[Digest, int]:
        """When the files of a storage with the prefixes of these keys were last intact."""
        found: dict[Digest, int] = {}
        for batch in batches({digest[:PREFIX] for digest in digests}):
            for row in self._rows.list(_parent(storage), Filter("id", batch, COMPARISON.IN)):
                for time, joined in row["at"].items():
                    for start in range(0, len(joined), LENGTH):
                        found[joined[start : start + LENGTH]] = int(time)
        return found

    def write(self, storage: str, verified: Mapping[str, Mapping[Digest, int]]) -> None:
        """Replace the rows of some prefixes, or delete them if they have no files."""
        for prefix in sorted(prefix for prefix, found in verified.items() if not found):
            self._rows.delete(_parent(storage), prefix)
        rows = {prefix: _row(found) for prefix, found in sorted(verified.items()) if found}
        if rows:
            self._rows.put_all(_parent(storage), rows)


def _row(verified: Mapping[Digest, int]) -> dict[str, Any]:
    at: dict[str, list[Digest]] = defaultdict(list)
    for digest, time in verified.items():
        at[str(time)].append(digest)
    return {"at": {time: "".join(digests) for time, digests in at.items()}}


def _parent(storage: str) -> str:
    return f"attachments-verified:{storage}"
