"""``kinto-attachment gc``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.server import CLEAN, ERROR, FOUND, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import chosen_storage
from kinto_attachment.maintenance.gc import gc
from kinto_attachment.maintenance.reports import Progress, Report
from kinto_attachment.maintenance.shards import Shard


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    storage = chosen_storage(registry, arguments.storage)
    report = gc(
        registry,
        grace=arguments.grace,
        orphan_age=arguments.orphan_age,
        really=arguments.really,
        dry_run=arguments.dry_run,
        shard=Shard(*arguments.shard),
        storage=storage,
        progress=progress,
    )
    if report.errors:
        return report, ERROR
    found = report.missing or (arguments.dry_run and report.found)
    return report, FOUND if found else CLEAN
