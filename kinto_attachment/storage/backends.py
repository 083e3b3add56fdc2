"""The backend that the settings choose, and its capabilities."""

from __future__ import annotations

from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid_storage.registry import register_file_storage_impl

from kinto_attachment.kinto_types import Configurator
from kinto_attachment.options import DownloadMode
from kinto_attachment.settings import Settings, full_name

from . import CopiesFiles, FileStorage, HasPaths, ListsFiles, SignsUrls


def register(config: Configurator, settings: Settings) -> FileStorage:
    """Build the backend and register it as pyramid_storage's file storage."""
    backend = build(settings)
    # The name of the request's property: ``request.attachment``.
    config.registry.settings.setdefault("storage.name", "attachment")
    register_file_storage_impl(config, backend)
    return backend


def build(settings: Settings) -> FileStorage:
    """:raises ConfigurationError: a class or library cannot be used."""
    # Imported when chosen: boto3 and google-cloud-storage are extras.
    if settings.backend == "aws.bucket_name":
        from .s3 import S3Storage

        return S3Storage(**_options(settings, "aws."))
    if settings.backend == "gcloud.bucket_name":
        from .gcloud import GoogleStorage

        return GoogleStorage(**_options(settings, "gcloud."))
    if settings.backend == "backend":
        from .loading import load

        return load(settings)
    from .local import LocalStorage

    return LocalStorage(
        settings["base_path"], settings["base_url"] or "", file_mode=settings["file_mode"]
    )


def download_mode(backend: FileStorage, settings: Settings) -> DownloadMode:
    """How downloads are sent: as configured, or else by the backend's default.

    :raises ConfigurationError: the backend cannot do what is configured.
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
                f"{full_name('downloads')}: {mode} does not go with this storage, which has no "
                f"{lacking}."
            )
    return chosen


def capabilities(backend: FileStorage) -> dict[str, bool]:
    """What the server advertises about the backend, derived from what it implements."""
    return {
        "ranges": True,
        "signed_urls": isinstance(backend, SignsUrls),
        "lists_files": isinstance(backend, ListsFiles),
        "copies_files": isinstance(backend, CopiesFiles),
    }


def _options(settings: Settings, prefix: str) -> dict[str, Any]:
    """The backend's own options, as its keyword arguments."""
    options = {
        name.removeprefix(prefix): value
        for name, value in settings.values.items()
        if name.startswith(prefix) and value is not None
    }
    return {**options, "base_url": settings["base_url"] or ""}
