"""``kinto-attachment relocate``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.selection import selection
from kinto_attachment.commands.server import CLEAN, FOUND, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import check_files_are_known
from kinto_attachment.maintenance.relocate import relocate
from kinto_attachment.maintenance.reports import Progress, Report


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    check_files_are_known(registry)
    report = relocate(
        registry,
        selection(registry, arguments),
        server=arguments.server,
        quietly=arguments.quiet_writes,
        dry_run=arguments.dry_run,
        progress=progress,
    )
    return report, FOUND if report.found or report.elsewhere else CLEAN
