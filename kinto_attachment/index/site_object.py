"""The object in a storage that identifies the site to which the storage belongs."""

from __future__ import annotations

import json
from typing import Any

from kinto_attachment.errors import NotThisSite
from kinto_attachment.index.site_refusals import CANNOT
from kinto_attachment.storage import KeepsSite, ListsFiles
from kinto_attachment.storage.storages import Storage

HEARTBEATS = "__heartbeat__/"
COMMENT = "Tells kinto-attachment which database these files belong to. Do not copy or delete it."


def read(storage: Storage) -> dict[str, Any] | None:
    """The content of a storage's object; empty if the plugin did not write it."""
    files = storage.files
    if not isinstance(files, KeepsSite):
        raise NotThisSite(CANNOT.format(title=storage.title, kind=type(files).__name__))
    content = files.read_site()
    if content is None:
        return None
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def write(storage: Storage, site: str, mark: str, *, replace: bool = True) -> bool:
    """Write the object; False if one existed, which only ``replace`` overwrites."""
    assert isinstance(storage.files, KeepsSite)  # noqa: S101 - read has checked it.
    content = json.dumps({"site": site, "mark": mark, "comment": COMMENT}).encode()
    return storage.files.write_site(content, replace=replace)


def is_empty(files: ListsFiles) -> bool:
    """Whether a storage has no files."""
    # Load balancers may call the heartbeat before the first upload.
    return all(file.key.startswith(HEARTBEATS) for file in files.list())
