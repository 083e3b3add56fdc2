"""``kinto-attachment bundle``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.selection import selection
from kinto_attachment.commands.server import CLEAN, ERROR, FOUND, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import check_files_are_known, chosen_storage
from kinto_attachment.maintenance.bundle import bundle
from kinto_attachment.maintenance.reports import Progress, Report


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    check_files_are_known(registry)
    chosen_storage(registry, arguments.storage)
    report = bundle(
        registry, selection(registry, arguments), dry_run=arguments.dry_run, progress=progress
    )
    if report.errors:
        return report, ERROR
    return report, FOUND if report.found else CLEAN
