"""``kinto-attachment move``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments import (
    add_dry_run,
    add_rate,
    add_selection,
    duration,
    selection,
)
from kinto_attachment.commands.server import CLEAN, ERROR, FOUND, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import (
    CommandError,
    check_files_are_known,
    chosen_storage,
)
from kinto_attachment.maintenance.move import move
from kinto_attachment.maintenance.reports import Progress, Report

DESCRIPTION = (
    "Move files to another storage: each is copied, the copy is read again and compared, the "
    "index is changed, and the copy in the other storage is deleted when nobody needs it any "
    "more. It can run while the server is running. If it is ended, the next run goes on."
)
EPILOG = (
    "Exit code: 0 all is well; 1 files that are damaged or missing, or in a storage that is not "
    "configured, or a --dry-run found files to move; 2 an error, and a file that could not be "
    "moved is one."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--to", required=True, metavar="NAME", help="the storage to move to (or `default`)"
    )
    add_selection(parser)
    add_rate(parser)
    parser.add_argument(
        "--keep",
        type=duration,
        metavar="TIME",
        help="leave the files in the other storages for so long: 1h, 7d (default: a minute, or "
        "signed_url_ttl if downloads are redirected there and it is longer)",
    )
    add_dry_run(parser, "count without moving anything")


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    check_files_are_known(registry)
    target = chosen_storage(registry, arguments.to, option="--to")
    assert target is not None  # noqa: S101 - the option is required.
    if chosen_storage(registry, arguments.storage) == target:
        raise CommandError("--storage and --to are the same storage")
    report = move(
        registry,
        target,
        selection(registry, arguments),
        rate=arguments.rate,
        keep=arguments.keep,
        dry_run=arguments.dry_run,
        progress=progress,
    )
    if report.failed or report.errors:
        return report, ERROR
    found = report.found or report.elsewhere or (arguments.dry_run and report.files)
    return report, FOUND if found else CLEAN
