"""``kinto-attachment usage``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments import add_selection, selection
from kinto_attachment.commands.server import CLEAN, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import check_files_are_known
from kinto_attachment.maintenance.reports import Progress, Report
from kinto_attachment.maintenance.usage import usage

DESCRIPTION = (
    "Count the files and their bytes by bucket, collection, storage and state, as "
    "the index knows them. `stored` counts a file that several records share once, `quotas` "
    "what quotas count. It can run while the server is running."
)
EPILOG = "Exit code: 0 all is well; 2 an error."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    check_files_are_known(registry)
    report = usage(registry, selection(registry, arguments), progress=progress)
    return report, CLEAN
