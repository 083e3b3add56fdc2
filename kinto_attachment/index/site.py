"""The site: which database and which storages belong together.

The database has a random id, and each storage an object with the same id (see
:class:`~kinto_attachment.storage.KeepsSite`). Commands that delete files refuse unless they match.

The row of the id also identifies the database in which it was written, which detects copies of the
database, but not a clone of the disk. Therefore, each gc commits a random *mark* to the database
and then writes it into the object. A database that does not know the object's mark is not the one
that used the storage last. It does not know which of the two is the clone. So it *disputes* the
storage with a mark that no database knows, and gc refuses to run with both until one claims the
storage.

The names of new files are sealed with the id, so only files of this site can be garbage.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import transaction
from kinto.core.storage.memory import MemoryBasedStorage
from kinto.core.utils import msec_time

from kinto_attachment import names
from kinto_attachment.errors import DisputedSite, NotThisSite, StorageError
from kinto_attachment.index import marks
from kinto_attachment.index.database import Database
from kinto_attachment.index.elsewhere import commit_elsewhere
from kinto_attachment.index.marks import Marks
from kinto_attachment.index.objects import Objects
from kinto_attachment.index.queries import LinkQueries
from kinto_attachment.index.site_object import is_empty, read, write
from kinto_attachment.index.site_refusals import (
    COPY,
    MEMORY,
    NO_ROW,
    NOBODY,
    OTHER,
    UNKNOWN_MARK,
)
from kinto_attachment.kinto_types import StorageBackend
from kinto_attachment.storage import KeepsSite, ListsFiles
from kinto_attachment.storage.storages import Storage, Storages

logger = logging.getLogger(__name__)

PARENT, SITE = "attachments-site", "site"
FILES_TRIED = 20  # Files of a storage without an object, to check whether the site has used it.
ATTEMPTS = 3  # Attempts to look at a failing storage, one per upload.


@dataclass(frozen=True)
class Identity:
    """The row of a site: its id, the database in which it was written, and when (ms)."""

    id: str
    database: str
    since: int = 0


class Site:
    """The site of a process. Its methods open separate transactions."""

    def __init__(self, backend: StorageBackend, storages: Storages, links: LinkQueries) -> None:
        self.storages = storages
        self._links = links
        self._rows = Objects(backend, "attachment-site")
        self._marks = Marks(backend)
        self._database = Database(backend)
        self._lock = threading.Lock()
        self._owner = ""  # Of new names.
        self._attempts: dict[str, int] = {}  # Storages that an upload has looked at.
        self.is_in_memory = isinstance(backend, MemoryBasedStorage)

    # For requests.

    def random_name(self, storage: Storage, filename: str) -> str:
        """A random name for a new file in a storage, which is recognizable as this site's."""
        self.look_at(storage)
        return names.random_name(filename, self._owner)

    def look_at(self, storage: Storage) -> None:
        """Before the first upload of this process to a storage: take it if it is empty."""
        if self._attempts.get(storage.name, 0) >= ATTEMPTS:
            return
        # Other uploads have to wait: with their files, the storage would no longer be empty.
        with self._lock:
            attempts = self._attempts.get(storage.name, 0)
            if attempts < ATTEMPTS:
                done = self._look_at(storage)
                self._attempts[storage.name] = ATTEMPTS if done else attempts + 1

    def forget(self) -> None:
        """Look at everything again."""
        with self._lock:
            self._attempts.clear()

    # For commands.

    def check(self, storages: Iterable[Storage]) -> str:
        """Make sure that database and storages belong together; returns the site's id.

        :raises NotThisSite: they do not; the message says what to do.
        :raises StorageError: a storage does not answer.
        """
        with transaction.manager:
            identity, database = self._identity(), self._database.identity()
        if identity is None:
            raise NotThisSite(MEMORY if self.is_in_memory else NO_ROW)
        if identity.database != database:
            raise NotThisSite(COPY)
        for storage in storages:
            self._check_object(storage, identity)
        return identity.id

    def check_not_of_others(self) -> None:
        """Make sure that each storage belongs to nobody or to this database.

        :raises NotThisSite: one belongs to another database, or this one is a copy of another.
        :raises StorageError: a storage does not answer.
        """
        if self.is_in_memory:
            raise NotThisSite(MEMORY)
        with transaction.manager:
            identity, database = self._identity(), self._database.identity()
        if identity is not None and identity.database != database:
            raise NotThisSite(COPY)
        for storage in self.storages:
            found = read(storage)
            if found is not None and identity is None:
                raise NotThisSite(OTHER.format(title=storage.title))
            if found is not None and identity is not None:
                self._check_object(storage, identity)

    def is_free(self, storage: Storage) -> bool:
        """Whether a storage has no files and belongs to nobody."""
        files = storage.files
        return isinstance(files, ListsFiles) and read(storage) is None and is_empty(files)

    def may_be_anothers(self, storage: Storage) -> bool:
        """Whether a storage has files and is not known to belong to this database.

        If a storage does not know, it is enough that the database was used for uploads.
        """
        with transaction.manager:
            identity = self._identity()
        files = storage.files
        if identity is not None:
            if not isinstance(files, KeepsSite):
                return False
            found = read(storage)
            if found is not None and found.get("site") == identity.id:
                return False
        return isinstance(files, ListsFiles) and not is_empty(files)

    def since(self) -> int:
        """When the site got its id (ms since the epoch). Older files may be another site's."""
        with transaction.manager:
            identity = self._identity()
        return 0 if identity is None else identity.since

    def mark(self, storages: Iterable[Storage]) -> None:
        """Write a new mark to the database, and then the site's id and the mark to storages."""
        storages, written = list(storages), None
        # Another database may claim the storages in the meantime. Both need the id of the last
        # one.
        while (found := self._marked(written)) is not None:
            written, mark = found
            for storage in storages:
                write(storage, written.id, mark)

    def dispute(self, storage: Storage) -> None:
        """Prevent copies of the database from using a storage that another one has used."""
        found = read(storage)
        with transaction.manager:
            identity = self._identity()
        if identity is not None and (found or {}).get("site") == identity.id:
            write(storage, identity.id, secrets.token_hex(16))

    def claim(self) -> str:
        """Make all storages belong to this database; returns the site's id.

        Unless they already did, the site gets a new id. So neither existing files nor future files
        of another database can be treated as garbage of this site.

        :raises NotThisSite: a storage cannot store the id, or the database is in memory.
        """
        if self.is_in_memory:
            raise NotThisSite(MEMORY)
        objects = {storage.name: read(storage) for storage in self.storages}
        is_used = all(self._has_files(name) for name in objects if objects[name] is None)
        with transaction.manager:
            identity = self._identity()
            database = self._database.identity()
            is_known = identity is not None and identity.database == database
            if not (is_known and is_used) or not all(
                found is None or self._is_own(found, identity) for found in objects.values()
            ):
                identity = Identity(secrets.token_hex(16), database, msec_time())
                self._put(identity)
        assert identity is not None  # noqa: S101
        self.mark(self.storages)
        self.forget()
        return identity.id

    # For a flush, in its transaction.

    def rows(self) -> list[tuple[Objects, str, dict[str, Any]]]:
        """The rows of the site and its marks."""
        site = [(self._rows, PARENT, row) for row in self._rows.list(PARENT)]
        return site + [(self._marks.rows, marks.PARENT, row) for row in self._marks.latest()]

    def put_back(self, rows: Iterable[tuple[Objects, str, dict[str, Any]]]) -> None:
        """Write rows that a flush has deleted."""
        for objects, parent, row in rows:
            objects.put(parent, row["id"], row)

    def _look_at(self, storage: Storage) -> bool:
        """False if the storage failed. Then the next upload tries again."""
        identity = None
        while identity is None:
            identity, database = commit_elsewhere(self._establish)
        if identity.database != database:
            # Names that neither this database nor the original treats as garbage.
            self._owner = secrets.token_hex(16)
            logger.error("Attachments: %s", COPY)
            return True
        self._owner = identity.id
        try:
            self._take_if_empty(storage, identity)
        except StorageError as error:
            logger.warning("Could not see who owns the storage %s: %s", storage.title, error)
            return False
        return True

    def _establish(self) -> tuple[Identity | None, str]:
        """The identity of the site and that of the database.

        Neither, if another process is just writing the row.
        """
        identity, database = self._identity(), self._database.identity()
        if identity is None:
            identity = Identity(secrets.token_hex(16), database)
            if not self._rows.create(PARENT, SITE, _row(identity)):
                identity = None
        return identity, database

    def _take_if_empty(self, storage: Storage, identity: Identity) -> None:
        files = storage.files
        if not isinstance(files, KeepsSite):
            return
        found = read(storage)
        if found is None and isinstance(files, ListsFiles) and is_empty(files):
            if write(storage, identity.id, "", replace=False):
                return
            found = read(storage)
        if found is None:
            logger.warning("Attachments: %s", NOBODY.format(title=storage.title))
        elif found.get("site") != identity.id:
            logger.warning("Attachments: %s", OTHER.format(title=storage.title))

    def _check_object(self, storage: Storage, identity: Identity) -> None:
        found = read(storage)
        if found is None:
            raise NotThisSite(NOBODY.format(title=storage.title))
        if found.get("site") != identity.id:
            raise NotThisSite(OTHER.format(title=storage.title))
        with transaction.manager:
            is_own = self._is_own(found, identity)
        if not is_own:
            raise DisputedSite(UNKNOWN_MARK.format(title=storage.title))

    def _has_files(self, name: str) -> bool:
        """Whether a storage has the files that the index knows, judging by a few of them.

        If not, the settings name another folder, in which files of this site would look like
        orphans.
        """
        with transaction.manager:
            links = self._links.some_in(name, FILES_TRIED)
        return all(self.storages[name].files.exists(link.key) for link in links)

    def _is_own(self, found: dict[str, Any], identity: Identity | None) -> bool:
        """Whether an object has the site's id and a mark that the database knows."""
        mark = str(found.get("mark", ""))
        if identity is None or found.get("site") != identity.id:
            return False
        return not mark or self._marks.has(mark)

    def _identity(self) -> Identity | None:
        row = self._rows.get(PARENT, SITE)
        return None if row is None else Identity(row["site"], row["database"], row.get("since", 0))

    def _put(self, identity: Identity) -> None:
        self._rows.put(PARENT, SITE, _row(identity))

    def _marked(self, written: Identity | None) -> tuple[Identity, str] | None:
        """The identity and a new mark in the database; None if there is none but ``written``."""
        with transaction.manager:
            identity = self._identity()
            if identity is None or identity == written:
                return None
            return identity, self._marks.new()


def _row(identity: Identity) -> dict[str, Any]:
    return {"site": identity.id, "database": identity.database, "since": identity.since}
