"""The plugin's capability in the server's root view."""

from __future__ import annotations

from kinto_attachment import __version__
from kinto_attachment.endpoints import upload_answers
from kinto_attachment.files.direct_uploads import is_possible
from kinto_attachment.kinto_types import Configurator
from kinto_attachment.settings import Settings
from kinto_attachment.storage import ContinuesWrites, backends
from kinto_attachment.storage.storages import Storages

DOCS = "https://github.com/Kinto/kinto-attachment/"


def add_capability(config: Configurator, settings: Settings) -> None:
    config.add_api_capability(
        "attachments",
        version=__version__,
        description="Attach files to records",
        url=DOCS,
        gzipped=settings["gzipped"],
        max_size=settings["max_size"],
        min_size=settings["min_size"],
        content_encodings=sorted(settings["content_encodings"]),
        links=can_link(config),
        versions=True,
        quotas=config.registry.attachment_usage.is_exact,
        holds=not settings.readonly,
        direct=is_possible(config.registry, settings.for_collection("", "")),
        **backends.capabilities(config.registry.attachment_storages),
        **resumable(config.registry.attachment_storages, settings),
    )


def can_link(config: Configurator) -> bool:
    """Whether the server can make links without credentials to all files."""
    registry = config.registry
    presigned = all(each.downloads.mode == "redirect" for each in registry.attachment_storages)
    return presigned or registry.attachment_signatures is not None


def resumable(storages: Storages, settings: Settings) -> dict[str, list[str]]:
    """The protocols for uploads in several requests, if the default storage supports them."""
    can = isinstance(storages.default.files, ContinuesWrites) and not settings.readonly
    return {"resumable": [each.name for each in upload_answers.PROTOCOLS]} if can else {}
