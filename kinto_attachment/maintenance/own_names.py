"""Recognizing the plugin's filenames, since only files with these can be garbage."""

from __future__ import annotations

from datetime import datetime

import transaction

from kinto_attachment import names
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance import heartbeat
from kinto_attachment.maintenance.shards import Shard
from kinto_attachment.storage import FileStat, Unfinished


class OwnNames:
    """The random names of the site, and the reserved names of requests that died."""

    def __init__(self, registry: Registry, owner: str, shard: Shard, before: datetime) -> None:
        """Reservations from ``before`` are those of requests that died."""
        self.registry = registry
        self.links = registry.attachment_links
        self.sessions = registry.attachment_sessions
        self.owner = owner
        self.shard = shard
        self.before = before
        self.abandoned: set[str] = set()  # Reserved names of requests that died; see settling.

    def read_reservations(self) -> None:
        """Find the reserved keys of requests that died.

        Keys from before the site got its id may belong to files of another database.
        """
        since = self.registry.attachment_site.since()
        with transaction.manager:
            stale = self.links.reservations.before(int(self.before.timestamp() * 1000), since)
            going_on = self.sessions.owned_partials({*filter(None, stale.values())})
        self.abandoned = {
            key
            for key, session in stale.items()
            if self.shard.has(key) and session not in going_on
        }

    def release_reservations(self) -> None:
        """Release the keys of requests that died, unless their file exists without a record."""
        storages = [storage.files for storage in self.registry.attachment_storages]
        for key in self.abandoned:
            is_there = any(files.exists(key) for files in storages)
            with transaction.manager:
                if not is_there or self.links.of_key(key):
                    self.links.reservations.release(key)

    def has(self, key: str) -> bool:
        """Whether the plugin gave a file its name, in a request that is no longer running."""
        name = key.rpartition("/")[2]
        return names.is_name_of(self.owner, name) or key in self.abandoned

    def has_file(self, file: FileStat) -> bool:
        return self.has(file.key) or _is_of_heartbeat(file)

    def has_remains(self, remains: Unfinished) -> bool:
        """Whether an upload of this plugin has left it; other programs may use the same bucket."""
        return remains.is_private or self.has(remains.key)


def _is_of_heartbeat(file: FileStat) -> bool:
    """Whether a heartbeat has left this file."""
    folder, _, name = file.key.rpartition("/")
    return (
        folder == heartbeat.FOLDER
        and file.size == len(heartbeat.CONTENT)
        and bool(names.RANDOM_NAME.fullmatch(name))
    )
