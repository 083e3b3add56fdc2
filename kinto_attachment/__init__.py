"""Attach files to Kinto records: ``kinto.includes = kinto_attachment``."""

from __future__ import annotations

import logging
import re
from collections import deque
from functools import partial
from importlib.metadata import version

from kinto.core.events import ACTIONS, ResourceChanged
from kinto.core.metrics import watch_execution_time
from kinto.events import ServerFlushed
from pyramid.events import ApplicationCreated, ContextFound, NewResponse
from pyramid.httpexceptions import HTTPForbidden
from pyramid.security import NO_PERMISSION_REQUIRED
from pyramid.settings import aslist
from pyramid.tweens import EXCVIEW

from kinto_attachment import endpoints
from kinto_attachment.endpoints import (
    archive_link,
    attachment,
    collection_archive,
    collection_attachments,
    collection_rules,
    cors,
    hidden_tokens,
    hold,
    link,
    openapi,
    protection,
    record_writes,
    refusals,
    stored_file,
    upload_answers,
    uploads,
    versions,
)
from kinto_attachment.endpoints.default_bucket import (
    AttachmentOfDefaultBucket,
    default_bucket_attachment,
)
from kinto_attachment.errors import AttachmentError
from kinto_attachment.files import listeners, transactions
from kinto_attachment.files.acting_users import let_users_act
from kinto_attachment.files.collection_settings import CollectionSettingsResolver
from kinto_attachment.files.direct_uploads import is_possible
from kinto_attachment.files.events import (
    AttachmentAdded,
    AttachmentEvent,
    AttachmentRead,
    AttachmentReceiving,
    AttachmentRemoved,
    AttachmentReplaced,
)
from kinto_attachment.files.fast_records import FastRecords
from kinto_attachment.files.guard import allow_metadata_changes
from kinto_attachment.files.overviews import add_overviews
from kinto_attachment.files.server_code import (
    attach,
    copy_attachment,
    open_attachment,
    signed_url,
)
from kinto_attachment.files.settling import MAX_LINGERING
from kinto_attachment.files.signatures import signatures
from kinto_attachment.index.holds import HoldsInUse
from kinto_attachment.index.links import Links
from kinto_attachment.index.postgresql_overviews import overviews
from kinto_attachment.index.sessions import Sessions
from kinto_attachment.index.site import Site
from kinto_attachment.index.usage import Usage
from kinto_attachment.kinto_types import ApplicationEvent, Configurator
from kinto_attachment.maintenance import heartbeat
from kinto_attachment.settings import Settings
from kinto_attachment.storage import ContinuesWrites, backends
from kinto_attachment.storage.storages import Storages, metric_of

__all__ = [
    "AttachmentAdded",
    "AttachmentEvent",
    "AttachmentRead",
    "AttachmentReceiving",
    "AttachmentRemoved",
    "AttachmentReplaced",
    "allow_metadata_changes",
    "attach",
    "copy_attachment",
    "includeme",
    "open_attachment",
    "signed_url",
]

logger = logging.getLogger(__name__)

__version__ = version("kinto-attachment")

DOCS = "https://github.com/Kinto/kinto-attachment/"


def includeme(config: Configurator) -> None:
    """Set the plugin up in Kinto's Pyramid application."""
    settings = Settings.parse(config.get_settings())
    warn_of_names(config, settings)
    warn_of_relative_locations(config, settings)
    add_storage(config, settings)
    add_views(config, settings)
    let_users_act(config)
    add_transactions(config)
    add_overviews(config)
    add_fast_records(config)
    add_listeners(config)
    add_heartbeat(config, settings)
    add_metrics(config)
    add_capability(config, settings)


def add_storage(config: Configurator, settings: Settings) -> None:
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


def warn_of_names(config: Configurator, settings: Settings) -> None:
    """Log a warning at the start if the server does not know its own name."""
    own_urls = any(storage["base_url"] is None for storage in settings.storages.values())
    if not own_urls or settings.http_host is not None:
        return
    if getattr(config.registry, "command", None):  # No server, but one of its commands.
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


def add_views(config: Configurator, settings: Settings) -> None:
    default_bucket = has_default_bucket(config)
    for service in endpoints.services(readonly=settings.readonly, default_bucket=default_bucket):
        config.add_cornice_service(service)
        # From here on, the path is only used for OpenAPI, which has no patterns in paths.
        service.path = re.sub(r":[^{}]+}", "}", service.path)
    openapi.describe_files()
    methods = ("GET", "HEAD", "OPTIONS")
    writes = () if settings.readonly else ("POST", "PUT", "PATCH", "DELETE")
    draft = () if settings.readonly else (upload_answers.DRAFT,)
    protocols = () if settings.readonly else upload_answers.PROTOCOLS
    cors.add_options(config, attachment.ROUTE, (*methods, *writes), *draft)
    creations = () if settings.readonly else ("POST",)
    cors.add_options(config, collection_attachments.ROUTE, (*methods, *creations))
    for route in (
        *(collection_archive.ROUTE, collection_rules.ROUTE, stored_file.ROUTE),
        *(versions.LIST_ROUTE, link.ROUTE, link.VERSION_ROUTE, archive_link.ROUTE),
    ):
        cors.add_options(config, route, methods)
    cors.add_options(config, uploads.ROUTE, (*creations, "OPTIONS"), *protocols)
    changes = () if settings.readonly else ("POST", "PUT", "PATCH", "DELETE")
    cors.add_options(config, uploads.UPLOAD_ROUTE, (*methods, *changes), *protocols)
    cors.add_options(config, uploads.COMPLETION_ROUTE, (*creations, "OPTIONS"))
    cors.add_options(config, uploads.LIST_ROUTE, methods)
    config.add_subscriber(upload_answers.on_error, NewResponse)
    deletions = () if settings.readonly else ("DELETE",)
    holds = () if settings.readonly else ("PUT", "DELETE")
    cors.add_options(config, hold.ROUTE, (*methods, *holds))
    cors.add_options(config, versions.ROUTE, (*methods, *deletions))
    cors.add_options(config, versions.RESTORE_ROUTE, ("OPTIONS", *creations))
    config.add_subscriber(cors.on_response, NewResponse)
    config.add_subscriber(hidden_tokens.hide_token, ContextFound)
    guarding = "kinto_attachment.record_writes"
    config.add_view_deriver(record_writes.guarding, name=guarding)
    # Closer to Kinto's view: it sees the body that Kinto will see.
    protecting = "kinto_attachment.protection"
    config.add_view_deriver(protection.protecting, name=protecting, under=guarding)
    # Not add_exception_view: Kinto's batch would not find those.
    add_view = partial(config.add_view, permission=NO_PERMISSION_REQUIRED)
    add_view(refusals.error_view, context=AttachmentError)
    for route in cors.ROUTES:
        add_view(refusals.forbidden_view, context=HTTPForbidden, route_name=route)
    if default_bucket:
        config.add_view_predicate("attachment_of_default_bucket", AttachmentOfDefaultBucket)
        below = {"route_name": "default_bucket_collection", "attachment_of_default_bucket": True}
        add_view(default_bucket_attachment, **below)
        add_view(refusals.forbidden_view, context=HTTPForbidden, **below)


def can_link(config: Configurator) -> bool:
    """Whether links that need no credentials can be made to all files."""
    registry = config.registry
    presigned = all(each.downloads.mode == "redirect" for each in registry.attachment_storages)
    return presigned or registry.attachment_signatures is not None


def add_transactions(config: Configurator) -> None:
    config.add_tween(
        "kinto_attachment.files.transactions.linking_tween",
        under=EXCVIEW,
        over="kinto.core.events.notify_resource_events_before",
    )
    config.add_tween(
        "kinto_attachment.files.transactions.settling_tween", over="pyramid_tm.tm_tween_factory"
    )
    config.add_tween(
        "kinto_attachment.storage.wait_budget.tween",
        over="kinto_attachment.files.transactions.settling_tween",
    )
    config.add_tween(
        "kinto_attachment.wsgi.bodies.draining_tween",
        over="kinto_attachment.files.transactions.settling_tween",
    )
    config.add_subscriber(transactions.before_part_of_batch, ContextFound)


def add_fast_records(config: Configurator) -> None:
    config.registry.attachment_fast_records = None

    def find(event: ApplicationEvent) -> None:  # All views and policies are there by now.
        registry = event.app.registry
        registry.attachment_fast_records = FastRecords.find(registry)

    config.add_subscriber(find, ApplicationCreated)


def add_listeners(config: Configurator) -> None:
    changed = (ACTIONS.CREATE, ACTIONS.UPDATE)
    for listener, resource, actions in (
        (listeners.on_records_changed, "record", changed),
        (listeners.on_buckets_created, "bucket", (ACTIONS.CREATE,)),
        (listeners.on_records_deleted, "record", (ACTIONS.DELETE,)),
        (listeners.on_collections_deleted, "collection", (ACTIONS.DELETE,)),
        (listeners.on_buckets_deleted, "bucket", (ACTIONS.DELETE,)),
    ):
        config.add_subscriber(
            listener, ResourceChanged, for_resources=(resource,), for_actions=actions
        )
    config.add_subscriber(listeners.before_merge_patch, ContextFound)
    config.add_subscriber(listeners.before_bucket_deleted, ContextFound)
    config.add_subscriber(listeners.before_flush, ContextFound)
    config.add_subscriber(listeners.on_server_flushed, ServerFlushed)


def add_heartbeat(config: Configurator, settings: Settings) -> None:
    registry = config.registry
    for storage in registry.attachment_storages:
        check = heartbeat.check(storage, readonly=settings.readonly)
        registry.heartbeats[metric_of(storage.name, "attachments")] = check
    registry.heartbeats["attachments.storages"] = heartbeat.check_storages(registry)


def add_metrics(config: Configurator) -> None:
    def watch(event: ApplicationEvent) -> None:
        registry = event.app.registry
        for storage in registry.attachment_storages:
            prefix = metric_of(storage.name, "attachments")
            watch_execution_time(registry.metrics, storage.files, prefix=prefix)

    config.add_subscriber(watch, ApplicationCreated)


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


def resumable(storages: Storages, settings: Settings) -> dict[str, list[str]]:
    """The protocols for uploads in several requests, where the default storage can do it."""
    can = isinstance(storages.default.files, ContinuesWrites) and not settings.readonly
    return {"resumable": [each.name for each in upload_answers.PROTOCOLS]} if can else {}
