"""Warnings at the start of a server."""

from __future__ import annotations

import logging

from pyramid.events import ApplicationCreated

from kinto_attachment.kinto_types import ApplicationEvent, Configurator
from kinto_attachment.settings import Settings

logger = logging.getLogger(__name__)


def warn_of_names(config: Configurator, settings: Settings) -> None:
    """Log a warning at the start if the server does not know its own name."""
    own_urls = any(storage["base_url"] is None for storage in settings.storages.values())
    if not own_urls or settings.http_host is not None:
        return
    if getattr(config.registry, "command", None):  # This is one of the server's commands.
        return

    def warn(event: ApplicationEvent) -> None:
        logger.warning(
            "Neither kinto.http_host nor kinto.attachment.base_url is set: the `location` of an "
            "attachment starts with the host name that its uploader used for this server."
        )

    config.add_subscriber(warn, ApplicationCreated)


def warn_of_relative_locations(config: Configurator, settings: Settings) -> None:
    """Log a warning at the start if clients cannot make URLs of locations."""
    storage = settings.storages[""]
    if storage["base_url"] != "" or storage["extra.base_url"]:
        return

    def warn(event: ApplicationEvent) -> None:
        logger.warning(
            "kinto.attachment.base_url is empty and kinto.attachment.extra.base_url is not set: "
            "the `location` of an attachment is relative, such as `a.txt`. Clients add it to the "
            "`base_url` of the capability, which is empty, so they ask for the file beside the "
            "page or API that they are at. Set extra.base_url to the URL of the files."
        )

    if not getattr(config.registry, "command", None):  # Not for a server's commands.
        config.add_subscriber(warn, ApplicationCreated)
