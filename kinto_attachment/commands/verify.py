"""``kinto-attachment verify``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.selection import selection
from kinto_attachment.commands.server import CLEAN, ERROR, FOUND, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import check_files_are_known, chosen_storage
from kinto_attachment.maintenance.reports import Progress, Report
from kinto_attachment.maintenance.verify import verify


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    check_files_are_known(registry)
    chosen_storage(registry, arguments.storage)
    report = verify(
        registry,
        selection(registry, arguments),
        sample=arguments.sample,
        older_than=arguments.older_than,
        trust_storage=arguments.trust_storage,
        rate=arguments.rate,
        progress=progress,
    )
    if report.unreadable:
        return report, ERROR
    return report, FOUND if report.found or report.elsewhere else CLEAN
