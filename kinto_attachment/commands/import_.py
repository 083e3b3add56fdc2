"""``kinto-attachment import``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.selection import place
from kinto_attachment.commands.server import CLEAN, ERROR, FOUND, on_server
from kinto_attachment.index.site_refusals import MEMORY
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import CommandError, chosen_storage
from kinto_attachment.maintenance.importing import import_
from kinto_attachment.maintenance.reports import Progress, Report


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    if registry.attachment_site.is_in_memory:
        raise CommandError(MEMORY)
    chosen_storage(registry, None)
    registry.attachment_site.check_not_of_others()
    report = import_(
        registry,
        arguments.source,
        place(arguments),
        permissions=arguments.permissions,
        replace=arguments.replace,
        server=arguments.server,
        dry_run=arguments.dry_run,
        progress=progress,
    )
    if report.invalid:
        return report, ERROR
    return report, FOUND if report.found else CLEAN
