"""The heartbeat and the metrics of the storages."""

from __future__ import annotations

from kinto.core.metrics import watch_execution_time
from pyramid.events import ApplicationCreated

from kinto_attachment.kinto_types import ApplicationEvent, Configurator
from kinto_attachment.maintenance import heartbeat
from kinto_attachment.settings import Settings
from kinto_attachment.storage.storages import metric_of


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
