"""``kinto-attachment release-hold``."""

from __future__ import annotations

import argparse
import getpass

from kinto_attachment.commands.arguments import add_dry_run
from kinto_attachment.commands.server import CLEAN, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import check_files_are_known
from kinto_attachment.maintenance.release_hold import release_hold
from kinto_attachment.maintenance.reports import Progress, Report

DESCRIPTION = (
    "End the holds of a record's files: of the current one, and of versions. Who "
    "did so and why is logged. It can run while the server is running."
)
EPILOG = (
    "Exit code: 0 no file of the record is held any more; 2 an error, or there is no such record "
    "or version."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "record", metavar="RECORD", help="URI of the record: /buckets/B/collections/C/records/R"
    )
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why, for the log")
    parser.add_argument(
        "--by", metavar="NAME", help="who, for the log (default: the user who runs the command)"
    )
    parser.add_argument("--version", metavar="ID", help="only the file of this version")
    add_dry_run(parser, "report without ending anything")


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    check_files_are_known(registry)
    report = release_hold(
        registry,
        arguments.record,
        by=getpass.getuser() if arguments.by is None else arguments.by,
        reason=arguments.reason,
        version=arguments.version,
        dry_run=arguments.dry_run,
    )
    return report, CLEAN
