"""``kinto-attachment uploads``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments import add_place
from kinto_attachment.commands.server import CLEAN, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import check_files_are_known
from kinto_attachment.maintenance.reports import Progress, Report
from kinto_attachment.maintenance.uploads import uploads

DESCRIPTION = (
    "List the uploads in several requests that are not finished, and how many "
    "bytes are stored of each. Those that expire are removed by gc."
)
EPILOG = "Exit code: 0 listed; 2 an error."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_place(parser)


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    check_files_are_known(registry)
    report = uploads(
        registry, bucket=arguments.bucket, collection=arguments.collection, progress=progress
    )
    return report, CLEAN
