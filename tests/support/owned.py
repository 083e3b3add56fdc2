"""Storages that belong to the database of a test, as after an upload, and files in them.

It is also a plugin, for commands whose database is in memory and so begins without a site.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import transaction
from kinto.core.storage.exceptions import BackendError
from pyramid.events import ApplicationCreated

from kinto_attachment.errors import StorageError
from kinto_attachment.index import site, site_object
from kinto_attachment.names import filenames
from kinto_attachment.storage import KeepsSite

OWNER = "0123456789abcdef0123456789abcdef"


def includeme(config: Any) -> None:
    config.add_subscriber(on_created, ApplicationCreated)


def on_created(event: Any) -> None:
    with contextlib.suppress(BackendError, StorageError):
        own(event.app.registry)


def own(registry: Any) -> None:
    """Make the storages of an application belong to its database."""
    with transaction.manager:
        own_database(registry)
    own_storages(registry)


def own_database(registry: Any) -> None:
    """Do the first half, in the current transaction."""
    ours = registry.attachment_site
    database = ours._database
    if not hasattr(database, "known"):  # It does not change, and takes three statements.
        database.known = database.identity()
    ours._put(site.Identity(OWNER, database.known))


def own_storages(registry: Any) -> None:
    for storage in registry.attachment_storages:
        if isinstance(storage.files, KeepsSite):
            with contextlib.suppress(StorageError):
                found = site_object.read(storage) or {}
                if (found.get("site"), found.get("mark")) != (OWNER, ""):
                    site_object.write(storage, OWNER, "")
    remember(registry)


def remember(registry: Any) -> None:
    """Set the state after a first upload, so that all uploads have the same steps."""
    ours = registry.attachment_site
    ours._owner = OWNER
    ours._attempts = {each.name: site.ATTEMPTS for each in registry.attachment_storages}


def stored_paths(folder: Path) -> list[Path]:
    """The files in the folder of a local storage, with drafts, without the owner's file."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name != "site"]


def stray(number: int = 0) -> str:
    """A filename as this plugin generates it."""
    head = f"00000000-0000-4000-8000-{number:04x}"
    return f"{head}{filenames._seal(head, OWNER)}.txt"


STRAY = stray()
