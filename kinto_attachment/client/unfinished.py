"""Where an unfinished upload is, for the next run: the URL of each in a small file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

# Servers forget an upload after a week at the latest, by default.
MAX_AGE = 30 * 24 * 3600


@dataclass(frozen=True)
class Unfinished:
    """The URL of an upload, kept in the user's cache until the upload ends.

    If the folder cannot be written, uploads begin again after an interruption.
    """

    path: Path

    @classmethod
    def of(cls, *texts: str) -> Unfinished:
        """The place for an upload, by everything that has to be the same when it goes on."""
        name = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
        return cls(folder() / name)

    def load(self) -> str | None:
        try:
            if self.path.stat().st_mtime < time.time() - MAX_AGE:
                return None
            return self.path.read_text("ascii").strip() or None
        except (OSError, UnicodeDecodeError):
            return None

    def save(self, url: str) -> None:
        # The URL is a credential where anonymous users may write. The folder is for the user only.
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=self.path.parent, prefix=".", delete=False
            ) as file:
                file.write(url)
            os.replace(file.name, self.path)

    def forget(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def folder() -> Path:
    """Below the cache of the user (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return cache / "kinto-attachment" / "uploads"
