"""Kinto's application for a command: opened from its configuration file, and checked."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import transaction
from kinto.core.storage.exceptions import BackendError

from kinto_attachment.errors import AttachmentError, StorageError, cause
from kinto_attachment.index.site_refusals import MEMORY_IS_EMPTY, UNKNOWN_FILES
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.records import count_with_attachment
from kinto_attachment.storage.storages import Storage

logger = logging.getLogger(__name__)

NOT_INCLUDED = "{ini}: kinto_attachment is not in kinto.includes"
NOT_MIGRATED = "The database has no tables of Kinto: run kinto migrate --ini {ini}"
OLDER = "The tables of the database are of an earlier Kinto: run kinto migrate --ini {ini}"


class CommandError(Exception):
    """A command cannot do its work; the message is one line for the operator."""


def open_application(ini: str) -> Registry:
    """The registry of the application that a Kinto configuration file describes.

    :raises CommandError: the file cannot be used, or the database cannot.
    """
    registry = _bootstrap(ini)
    if not hasattr(registry, "attachment_storages"):
        raise CommandError(NOT_INCLUDED.format(ini=ini))
    _check_database(registry, ini)
    return registry


def check_files_are_known(registry: Registry) -> None:
    """Refuse a database without files if a storage that may belong to another one has some.

    It is for commands that would find no work in such a database and end without an error.

    :raises CommandError: a storage has files, and the database, which is not known to belong to
        the storage, has neither links nor records with attachments.
    """
    site = registry.attachment_site
    if not _knows_files(registry):
        for storage in registry.attachment_storages:
            # Commands that need a storage report it if it does not answer.
            with suppress(StorageError):
                if site.may_be_anothers(storage):
                    message = MEMORY_IS_EMPTY if site.is_in_memory else UNKNOWN_FILES
                    raise CommandError(message.format(title=storage.title))
    if site.is_in_memory:
        logger.warning("%s", MEMORY_IS_EMPTY)


def _knows_files(registry: Registry) -> bool:
    with transaction.manager:
        return registry.attachment_links.exist() or count_with_attachment(registry) > 0


def chosen_storage(
    registry: Registry, title: str | None, *, option: str = "--storage"
) -> str | None:
    """The name in the index of the only storage to look at; None for all.

    :raises CommandError: there is none of this title, or none of those to look at answers: a
        command would else fail once for each file.
    """
    storages = registry.attachment_storages
    name = chosen_title(registry, title, option=option)
    _check(storages if name is None else [storages[name]])
    return name


def chosen_title(
    registry: Registry, title: str | None, *, option: str = "--storage"
) -> str | None:
    """The same for a command that does not access storages, which need not answer.

    :raises CommandError: there is none of this title.
    """
    titles = {storage.title: storage.name for storage in registry.attachment_storages}
    if title is None:
        return None
    if title not in titles:
        raise CommandError(f"{option} should be one of {', '.join(titles)}")
    return titles[title]


def _check(storages: Iterable[Storage]) -> None:
    failed: CommandError | None = None
    for storage in storages:
        try:
            storage.files.exists(f"{uuid4()}")
        except StorageError as error:
            failed = CommandError(f"The storage {storage.title!r}: {error.reason}")
            failed.__cause__ = error
        else:
            return  # Missing files of the others are reported, and the command continues.
    if failed is not None:
        raise failed


def reason(error: BaseException) -> str:
    """The reason of an error in one line."""
    if isinstance(error, CommandError):
        return str(error)
    if isinstance(error, AttachmentError) and not isinstance(error, StorageError):
        return first_line(error)
    return cause(error)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the error's name if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(": ") if lines else type(error).__name__


def _bootstrap(ini: str) -> Registry:
    # Slow to import.
    from pyramid.paster import bootstrap

    path = ini.partition("#")[0]
    if not Path(path).is_file():
        raise CommandError(f"{path}: there is no such file")
    # The plugin for Prometheus empties this folder, which may be that of a running server.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of servers: that HTTPS is not enabled, and the like.
            # With ``command``, Kinto skips checks that only a server needs.
            found = bootstrap(ini, options={"command": "kinto-attachment"})
    # Kinto, Pyramid and plugins raise all kinds of errors for invalid settings.
    except Exception as error:
        raise CommandError(f"{path}: {first_line(error)}") from error
    found["closer"]()  # End the request that Pyramid has made, which a command does not need.
    registry: Registry = found["registry"]
    return registry


def _check_database(registry: Registry, ini: str) -> None:
    storage = registry.storage
    # Only backends with tables have schema versions.
    installed = getattr(storage, "get_installed_version", None)
    try:
        with transaction.manager:
            if installed is None:
                storage.list_all(resource_name="bucket", parent_id="", limit=1)
                return
            version = installed()
    except BackendError as error:
        raise CommandError(f"The database: {reason(error)}") from error
    if version is None:
        raise CommandError(NOT_MIGRATED.format(ini=ini))
    if version < getattr(storage, "schema_version", 0):
        raise CommandError(OLDER.format(ini=ini))
