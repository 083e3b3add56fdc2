"""``kinto-attachment import``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments import (
    add_dry_run,
    add_permissions,
    add_place,
    add_server,
    place,
)
from kinto_attachment.commands.server import CLEAN, ERROR, FOUND, on_server
from kinto_attachment.index.site_refusals import MEMORY
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import CommandError, chosen_storage
from kinto_attachment.maintenance.importing import import_
from kinto_attachment.maintenance.reports import Progress, Report

DESCRIPTION = (
    "Bring the collections of an export, with their records and files, to this site. Everything "
    "is checked before anything is written. It can run while the server is running, and again: "
    "records that are there already are left out."
)
EPILOG = (
    "Exit code: 0 everything is there; 1 the server does not take some records, each with the "
    "reason; 2 an error, and something in the export that should not be there is one."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_place(parser)
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="PATH",
        help="the export: a folder, or a ZIP whose name ends with .zip",
    )
    add_permissions(parser)
    parser.add_argument(
        "--replace",
        action="store_true",
        help="replace records that exist with other content (default: refuse the import)",
    )
    add_server(parser)
    add_dry_run(parser, "check everything, write nothing")


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
