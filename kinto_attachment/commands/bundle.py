"""``kinto-attachment bundle``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments import add_dry_run, add_selection, selection
from kinto_attachment.commands.server import CLEAN, ERROR, FOUND, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import check_files_are_known, chosen_storage
from kinto_attachment.maintenance.bundle import bundle
from kinto_attachment.maintenance.reports import Progress, Report

DESCRIPTION = (
    "Store an archive of each collection whose data ask for one, if the collection has changed "
    "since the last one. Clients get it as long as it is fresh, instead of one that is made for "
    "each of them. It can run while the server is running, and again."
)
EPILOG = (
    "Exit code: 0 all bundles are fresh, but for those of collections that did not stop changing; "
    "1 collections with too many files, with files that are missing or damaged, or with data that "
    "are not valid; 2 an error."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    add_dry_run(parser, "report without storing anything")


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
