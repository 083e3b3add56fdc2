"""Files that are being written to a disk and get their names when they are complete."""

from __future__ import annotations

import os
from contextlib import suppress

from kinto_attachment.storage.disk import Output, rename_to_free

# Linux has a link to each open file of the process here.
OPEN_FILES = "/proc/self/fd"
# The largest size of a draft without a name. Operators can watch larger ones grow.
SMALL = 64 * 1024


class Draft(Output):
    """A file that is being written, with a temporary name (``path``) until it is complete.

    If ``is_unnamed``, it has no name while it is small, so nothing remains if the process dies.
    """

    def __init__(self, path: str, *, is_unnamed: bool = False) -> None:
        # Names of drafts are random. If a name came twice, this would be an error, not a mixture.
        if is_unnamed:
            super().__init__(os.path.dirname(path), os.O_TMPFILE)
        else:
            super().__init__(path, os.O_CREAT | os.O_EXCL)
        self.path = path
        self._is_named = not is_unnamed

    def __exit__(self, *exc_info: object) -> None:
        # Errors do not matter: if the file stays behind, it is listed as unfinished.
        super().__exit__(*exc_info)
        if self._is_named:
            with suppress(OSError):
                os.unlink(self.path)

    def write(self, chunk: bytes) -> None:
        super().write(chunk)
        if not self._is_named and self._size > SMALL:
            self._link(self.path)
            self._is_named = True

    def complete(self, mode: int | None, *, durable: bool) -> os.stat_result:
        """:raises OSError: it could not be completely written or synced."""
        if self._is_named:
            return self.sync_and_close(mode, durable=durable)
        found = self.sync(mode, durable=durable)
        os.close(os.dup(self._descriptor))  # Some file systems report errors only here.
        return found

    def give_name(self, path: str) -> None:
        """:raises FileExistsError: there is something at ``path``."""
        if self._is_named:
            rename_to_free(self.path, path)
        else:
            self._link(path)

    def _link(self, path: str) -> None:
        # With a descriptor, Python calls linkat(2), which follows the link to the file.
        source = f"{OPEN_FILES}/{self._descriptor}"
        os.link(source, path, src_dir_fd=self._descriptor, follow_symlinks=True)


def can_be_unnamed(path: str) -> bool:
    """Whether drafts in a folder need no names; ``path`` is an unused name."""
    if not hasattr(os, "O_TMPFILE") or not os.path.isdir(OPEN_FILES):
        return False
    try:
        with Draft(path, is_unnamed=True) as draft:
            draft.give_name(path)
        os.unlink(path)
    except OSError:  # Each file system without support has another error for it.
        return False
    return True
