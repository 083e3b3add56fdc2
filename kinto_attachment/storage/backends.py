"""Building the backends in the settings, and advertising their capabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid_storage.registry import register_file_storage_impl

from kinto_attachment.kinto_types import Configurator
from kinto_attachment.parsers import DownloadMode
from kinto_attachment.setting_values import full_name
from kinto_attachment.settings import Settings
from kinto_attachment.storage_settings import StorageSettings

from . import CopiesFiles, FileStorage, HasPaths, ListsFiles, SignsUrls
from .storages import Storage, Storages


def register(config: Configurator, settings: Settings) -> Storages:
    """Build all storages; the default one becomes pyramid_storage's file storage."""
    storages = Storages({name: build(own) for name, own in settings.storages.items()})
    check_places(storages, settings)
    # The name of the request's property: ``request.attachment``.
    config.registry.settings.setdefault("storage.name", "attachment")
    register_file_storage_impl(config, storages.default.files)
    return storages


def build(settings: StorageSettings) -> Storage:
    """:raises ConfigurationError: a class or library cannot be used."""
    backend = build_backend(settings)
    advertised = settings["extra.base_url"]
    return Storage(
        settings.name,
        backend,
        download_mode(backend, settings),
        base_url=settings["base_url"],
        advertised_url=(settings["base_url"] if advertised is None else advertised) or "",
        public=settings["public"],
        signed_url_ttl=settings["signed_url_ttl"],
    )


def build_backend(settings: StorageSettings) -> FileStorage:
    # Imported when chosen: boto3 and google-cloud-storage are extras.
    if settings.backend == "aws.bucket_name":
        from .s3 import S3Storage

        return _configured(S3Storage, settings, "aws.")
    if settings.backend == "gcloud.bucket_name":
        from .gcloud import GoogleStorage

        return _configured(GoogleStorage, settings, "gcloud.")
    if settings.backend == "backend":
        from .loading import load

        return load(settings)
    from .local import LocalStorage

    return LocalStorage(
        settings["base_path"], settings["base_url"] or "", file_mode=settings["file_mode"]
    )


def download_mode(backend: FileStorage, settings: StorageSettings) -> DownloadMode:
    """The way in which downloads are sent: as configured, or else the backend's default.

    :raises ConfigurationError: the backend does not support the configured way.
    """
    chosen: DownloadMode | None = settings["downloads"]
    if chosen is None:
        return DownloadMode("redirect" if isinstance(backend, SignsUrls) else "stream")
    for mode, capability, lacking in (
        ("redirect", SignsUrls, "signed URLs"),
        ("x-sendfile", HasPaths, "paths"),
    ):
        if chosen.mode == mode and not isinstance(backend, capability):
            raise ConfigurationError(
                f"{settings.full_name('downloads')}: {mode} does not go with this storage, which "
                f"has no {lacking}."
            )
    return chosen


def check_places(storages: Iterable[Storage], settings: Settings) -> None:
    """Refuse storages that have a place in common, as far as backends tell their places.

    A file could be listed, sent or deleted as one of the other storage.

    :raises ConfigurationError: the message names both.
    """
    for one, other in combinations(storages, 2):
        names = [settings.storages[each.name] for each in (one, other)]
        if _overlap(one.files.place, other.files.place):
            both = " and ".join(own.full_name(own.backend) for own in names)
            raise ConfigurationError(f"{both}: each storage needs a place of its own.")
        if _overlap(one.downloads.prefix, other.downloads.prefix):
            both = " and ".join(own.full_name("downloads") for own in names)
            raise ConfigurationError(f"{both}: each storage needs a location of its own.")


def capabilities(storages: Storages) -> dict[str, Any]:
    """What the server advertises about its storages.

    What is said without a name is about the default storage.
    """
    described = {storage.title: describe(storage) for storage in storages}
    return {**described[storages.default.title], "storages": described}


def describe(storage: Storage) -> dict[str, Any]:
    """The advertised properties of a storage, derived from the capabilities of its backend."""
    return {
        "base_url": storage.advertised_url,
        "ranges": True,
        "signed_urls": isinstance(storage.files, SignsUrls),
        "lists_files": isinstance(storage.files, ListsFiles),
        "copies_files": isinstance(storage.files, CopiesFiles),
    }


def _overlap(one: str, other: str) -> bool:
    """Whether the places, which end with a slash, are the same or one contains the other."""
    return bool(one and other) and (one.startswith(other) or other.startswith(one))


def _configured(
    backend: Callable[..., FileStorage], settings: StorageSettings, prefix: str
) -> FileStorage:
    """A backend with its own options, as its keyword arguments."""
    options = {
        name.removeprefix(prefix): value
        for name, value in settings.values.items()
        if name.startswith(prefix) and value is not None
    }
    try:
        return backend(**options, base_url=settings["base_url"] or "")
    except ConfigurationError as error:
        # The backend does not know its name, so its message names settings of the default storage.
        message = str(error).replace(full_name(""), settings.full_name(""))
        raise ConfigurationError(message) from error
