"""SHA-256 over several requests: a hash whose state can be saved, which hashlib's cannot."""

from __future__ import annotations

from typing import Protocol


class SavedHash(Protocol):
    """A SHA-256 that can be continued by another process."""

    def update(self, data: bytes) -> None: ...

    def hexdigest(self) -> str: ...

    def save(self) -> str:
        """The state, as ASCII text; see :func:`sha256`."""
        ...


def sha256(saved: str = "") -> SavedHash | None:
    """A new hash, or the one that was saved.

    None if no library of this machine can do it, or cannot read a state that another machine has
    saved: then the bytes have to be read again.
    """
    raise NotImplementedError
