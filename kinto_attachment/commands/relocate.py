"""``kinto-attachment relocate``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments import add_dry_run, add_selection, add_server, selection
from kinto_attachment.commands.server import CLEAN, FOUND, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import check_files_are_known
from kinto_attachment.maintenance.relocate import relocate
from kinto_attachment.maintenance.reports import Progress, Report

DESCRIPTION = (
    "Write into the records the locations that their files have by the present configuration, "
    "after base_url, the server's name or the storage of the files has changed. Records with the "
    "right location are not written. It can run while the server is running, and again."
)
EPILOG = (
    "Exit code: 0 all locations are right; 1 records whose file is not known, that another plugin "
    "did not let be written, or whose file is in a storage that is not configured; 2 an error."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    add_server(parser)
    parser.add_argument(
        "--quiet-writes",
        action="store_true",
        help="keep last_modified and the ETag of the collection, without events and history: "
        "clients that synchronize notice nothing (only PostgreSQL)",
    )
    add_dry_run(parser, "report without writing anything")


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
