"""The URLs of unfinished uploads, each in a small file, for the next run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

# Servers forget an upload after a week at the latest, by default.
MAX_AGE = 30 * 24 * 3600
SLACK = 24 * 3600  # The clocks of server and client may differ.


@dataclass(frozen=True)
class Unfinished:
    """The URL of an upload, kept in the user's cache until the upload ends or expires.

    The time of the file is when the upload expires. If the folder is not writable, interrupted
    uploads start from the beginning.
    """

    path: Path

    @classmethod
    def of(cls, *texts: str) -> Unfinished:
        """The entry of an upload, identified by all texts that must be the same to continue it."""
        name = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
        return cls(folder() / name)

    def load(self) -> str | None:
        try:
            if is_over(self.path):
                return None
            return self.path.read_text("ascii").strip() or None
        except (OSError, UnicodeDecodeError):
            return None

    def save(self, url: str, headers: Mapping[str, str]) -> None:
        """Keep a URL until it expires, as a response says; remove others that have expired."""
        # The URL is a credential where anonymous users may write: the folder is the user's alone.
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            remove_old(self.path.parent)
            with tempfile.NamedTemporaryFile(
                "w", dir=self.path.parent, prefix=".", delete=False
            ) as file:
                file.write(url)
            os.replace(file.name, self.path)
        self.extend(headers)

    def extend(self, headers: Mapping[str, str]) -> None:
        """Store when the upload expires, as the response says."""
        expires = expiry_in(headers) or time.time() + MAX_AGE
        with contextlib.suppress(OSError):
            os.utime(self.path, (expires, expires))

    def forget(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def expiry_in(headers: Mapping[str, str]) -> float | None:
    """When an upload expires, in seconds since the epoch, if the response says so."""
    try:
        return parsedate_to_datetime(headers.get("Upload-Expires", "")).timestamp()
    except (ValueError, OverflowError):
        return None


def is_over(path: Path) -> bool:
    return path.stat().st_mtime < time.time() - SLACK


def remove_old(folder: Path) -> None:
    """Remove the URLs of expired uploads, and the remains of killed processes."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if is_over(path):
                path.unlink()


def folder() -> Path:
    """Below the cache of the user (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return cache / "kinto-attachment" / "uploads"
