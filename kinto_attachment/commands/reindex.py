"""``kinto-attachment reindex``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.server import CLEAN, FOUND, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import check_files_are_known
from kinto_attachment.maintenance.reindex import reindex
from kinto_attachment.maintenance.reports import Progress, Report

DESCRIPTION = (
    "Link every record to its file. Use it for records written by another plugin "
    "or after restoring a backup, and before gc, which deletes files without a link."
)
EPILOG = (
    "Exit code: 0 all records were matched; 1 some were not, or their file is missing; 2 an error."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--claim",
        action="store_true",
        help="then have the storages belong to this database, so that gc works with it, and no "
        "longer with another one",
    )


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    if not arguments.claim:  # Which is refused.
        check_files_are_known(registry)
    report = reindex(registry, claim=arguments.claim, progress=progress)
    return report, FOUND if report.found else CLEAN
