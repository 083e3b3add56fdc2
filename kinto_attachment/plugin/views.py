"""The endpoints, and the extensions of Kinto's views."""

from __future__ import annotations

import re
from functools import partial

from pyramid.events import ContextFound, NewResponse
from pyramid.httpexceptions import HTTPForbidden
from pyramid.security import NO_PERMISSION_REQUIRED

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
from kinto_attachment.kinto_types import Configurator
from kinto_attachment.plugin.registry import has_default_bucket
from kinto_attachment.settings import Settings


def add_views(config: Configurator, settings: Settings) -> None:
    default_bucket = has_default_bucket(config)
    add_services(config, readonly=settings.readonly, default_bucket=default_bucket)
    add_options(config, readonly=settings.readonly)
    add_subscribers(config)
    add_derivers(config)
    add_error_views(config)
    if default_bucket:
        add_default_bucket(config)


def add_services(config: Configurator, *, readonly: bool, default_bucket: bool) -> None:
    for service in endpoints.services(readonly=readonly, default_bucket=default_bucket):
        config.add_cornice_service(service)
        # From here on, the path is only used for OpenAPI, which has no patterns in paths.
        service.path = re.sub(r":[^{}]+}", "}", service.path)
    openapi.describe_files()


def add_options(config: Configurator, *, readonly: bool) -> None:
    """Respond to OPTIONS with the allowed methods, as browsers request."""

    def writes(*methods: str) -> tuple[str, ...]:
        return () if readonly else methods

    reads = ("GET", "HEAD", "OPTIONS")
    changes = writes("POST", "PUT", "PATCH", "DELETE")
    creations = writes("POST")
    draft = () if readonly else (upload_answers.DRAFT,)
    protocols = () if readonly else upload_answers.PROTOCOLS
    cors.add_options(config, attachment.ROUTE, (*reads, *changes), *draft)
    cors.add_options(config, collection_attachments.ROUTE, (*reads, *creations))
    for route in (
        *(collection_archive.ROUTE, collection_rules.ROUTE, stored_file.ROUTE),
        *(versions.LIST_ROUTE, link.ROUTE, link.VERSION_ROUTE, archive_link.ROUTE),
    ):
        cors.add_options(config, route, reads)
    cors.add_options(config, uploads.ROUTE, (*creations, "OPTIONS"), *protocols)
    cors.add_options(config, uploads.UPLOAD_ROUTE, (*reads, *changes), *protocols)
    cors.add_options(config, uploads.COMPLETION_ROUTE, (*creations, "OPTIONS"))
    cors.add_options(config, uploads.LIST_ROUTE, reads)
    cors.add_options(config, hold.ROUTE, (*reads, *writes("PUT", "DELETE")))
    cors.add_options(config, versions.ROUTE, (*reads, *writes("DELETE")))
    cors.add_options(config, versions.RESTORE_ROUTE, ("OPTIONS", *creations))


def add_subscribers(config: Configurator) -> None:
    config.add_subscriber(upload_answers.on_error, NewResponse)
    config.add_subscriber(cors.on_response, NewResponse)
    config.add_subscriber(hidden_tokens.hide_token, ContextFound)


def add_derivers(config: Configurator) -> None:
    guarding = "kinto_attachment.record_writes"
    config.add_view_deriver(record_writes.guarding, name=guarding)
    # Closer to Kinto's view: it sees the body that Kinto will see.
    protecting = "kinto_attachment.protection"
    config.add_view_deriver(protection.protecting, name=protecting, under=guarding)


def add_error_views(config: Configurator) -> None:
    # Not add_exception_view: Kinto's batch would not find those.
    add_view = partial(config.add_view, permission=NO_PERMISSION_REQUIRED)
    add_view(refusals.error_view, context=AttachmentError)
    for route in cors.ROUTES:
        add_view(refusals.forbidden_view, context=HTTPForbidden, route_name=route)


def add_default_bucket(config: Configurator) -> None:
    add_view = partial(config.add_view, permission=NO_PERMISSION_REQUIRED)
    config.add_view_predicate("attachment_of_default_bucket", AttachmentOfDefaultBucket)
    below = {"route_name": "default_bucket_collection", "attachment_of_default_bucket": True}
    add_view(default_bucket_attachment, **below)
    add_view(refusals.forbidden_view, context=HTTPForbidden, **below)
