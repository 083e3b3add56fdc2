"""The subscribers to Kinto's events."""

from __future__ import annotations

from kinto.core.events import ACTIONS, ResourceChanged
from kinto.events import ServerFlushed
from pyramid.events import ContextFound

from kinto_attachment.files import listeners
from kinto_attachment.kinto_types import Configurator


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
