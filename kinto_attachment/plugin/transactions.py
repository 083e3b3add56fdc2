"""The tweens around each request, and the faster way to write records."""

from __future__ import annotations

from pyramid.events import ApplicationCreated, ContextFound
from pyramid.tweens import EXCVIEW

from kinto_attachment.files import transactions
from kinto_attachment.files.fast_records import FastRecords
from kinto_attachment.kinto_types import ApplicationEvent, Configurator


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

    def find(event: ApplicationEvent) -> None:  # All views and policies exist at this point.
        registry = event.app.registry
        registry.attachment_fast_records = FastRecords.find(registry)

    config.add_subscriber(find, ApplicationCreated)
