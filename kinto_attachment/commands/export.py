"""``kinto-attachment export``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.selection import place
from kinto_attachment.commands.server import CLEAN, FOUND, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import check_files_are_known, chosen_storage
from kinto_attachment.maintenance.export import export
from kinto_attachment.maintenance.reports import Progress, Report


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    check_files_are_known(registry)
    chosen_storage(registry, None)
    report = export(
        registry,
        arguments.to,
        place(arguments),
        permissions=arguments.permissions,
        progress=progress,
    )
    return report, FOUND if report.found else CLEAN
