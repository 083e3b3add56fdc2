"""A set of many texts in little memory."""

from __future__ import annotations

from array import array
from bisect import bisect_left

from kinto_attachment.index.objects import digest_of


class Digests:
    """The first 8 bytes of each text's hash, with very few false positives."""

    def __init__(self) -> None:
        self._digests = array("Q")
        self._is_sorted = True

    def add(self, text: str) -> None:
        self._digests.append(_digest(text))
        self._is_sorted = False

    def __contains__(self, text: str) -> bool:
        """Call this after all texts were added, because it sorts them."""
        if not self._is_sorted:
            self._digests = array("Q", sorted(self._digests))
            self._is_sorted = True
        digest = _digest(text)
        position = bisect_left(self._digests, digest)
        return position < len(self._digests) and self._digests[position] == digest


def _digest(text: str) -> int:
    return int(digest_of(text)[:16], 16)
