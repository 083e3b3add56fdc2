"""The plugin's attributes of the registry: settings, storages, the index."""

from __future__ import annotations

from collections import deque

from pyramid.settings import aslist

from kinto_attachment.files.collection_settings import CollectionSettingsResolver
from kinto_attachment.files.settling import MAX_LINGERING
from kinto_attachment.files.signatures import signatures
from kinto_attachment.index.holds import HoldsInUse
from kinto_attachment.index.links import Links
from kinto_attachment.index.postgresql_overviews import overviews
from kinto_attachment.index.sessions import Sessions
from kinto_attachment.index.site import Site
from kinto_attachment.index.usage import Usage
from kinto_attachment.kinto_types import Configurator
from kinto_attachment.settings import Settings
from kinto_attachment.storage import backends


def fill_registry(config: Configurator, settings: Settings) -> None:
    registry = config.registry
    registry.attachment_settings = settings
    registry.attachment_storages = backends.register(config, settings)
    page_size = int(config.get_settings()["storage_max_fetch_size"])
    registry.attachment_usage = Usage(registry.storage, settings.quotas, page_size)
    registry.attachment_links = Links(
        registry.storage,
        registry.attachment_storages,
        page_size=page_size,
        usage=registry.attachment_usage,
        fast=settings["fast_records"],
    )
    registry.attachment_overviews = overviews(
        registry.storage,
        registry.permission,
        registry.attachment_links.collections,
        fast=settings["fast_records"],
    )
    registry.attachment_holds = HoldsInUse(registry.storage, by_settings=settings.are_set("hold"))
    registry.attachment_sessions = Sessions(registry.storage, page_size)
    registry.attachment_site = Site(
        registry.storage, registry.attachment_storages, registry.attachment_links
    )
    registry.attachment_signatures = signatures(settings["signing_keys"], settings.server_secret)
    registry.attachment_lingering = deque(maxlen=MAX_LINGERING)
    registry.attachment_collection_settings = CollectionSettingsResolver(
        settings, registry, default_bucket=has_default_bucket(config)
    )


def has_default_bucket(config: Configurator) -> bool:
    return "kinto.plugins.default_bucket" in aslist(config.get_settings()["includes"])
