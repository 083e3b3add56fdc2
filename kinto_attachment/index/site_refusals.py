"""Why commands refuse to work with a database and a storage, and what to do about it."""

from __future__ import annotations

CLAIM = "run `kinto-attachment reindex --claim`"
MEMORY = (
    "Kinto's storage backend is in memory, which only the server's process knows: a command "
    "cannot tell which files have a record. Set kinto.storage_backend to the database."
)
MEMORY_IS_EMPTY = (
    "Kinto's storage backend is in memory, which only the server's process knows: this command "
    "finds nothing there. Set kinto.storage_backend to the database."
)
NO_ROW = (
    "The database has no site id, so no file was ever uploaded through it, or only by an earlier "
    "release. If it is the right one, " + CLAIM + " (or `kinto-attachment adopt`, for files of "
    "the kinto-attachment on PyPI); otherwise correct kinto.storage_url."
)
COPY = (
    "This database is a copy of the one that the files belong to, or was restored or moved. If "
    "it has taken the place of that one, " + CLAIM + ", and restart the servers; otherwise give "
    "this server a storage of its own."
)
CANNOT = (
    "The storage {title} cannot tell which database its files belong to: {kind} lacks the methods "
    "of KeepsSite, see docs/writing-a-storage.rst."
)
NOBODY = (
    "The storage {title} has no site id: it has files from before, or another folder or bucket "
    "is set or mounted than the one that was used. If it is the right one, " + CLAIM + " (or "
    "`kinto-attachment adopt`, for files of the kinto-attachment on PyPI)."
)
OTHER = (
    "The storage {title} belongs to another database. Correct the settings of the storage or of "
    "the database; if this database has taken the place of the other one, " + CLAIM + ", and "
    "restart the servers."
)
UNKNOWN_MARK = (
    "The storage {title} is used by another copy of this database, too: give one of the two "
    "servers a storage of its own. On the one that keeps this storage, "
    + CLAIM
    + ", and restart its servers."
)
UNKNOWN_FILES = (
    "The storage {title} has files, but the database knows none: it has no record with an "
    "attachment. Correct kinto.storage_url, or the settings of the storage. If both are right, "
    + CLAIM
    + "."
)
