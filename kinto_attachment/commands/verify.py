"""``kinto-attachment verify``."""

from __future__ import annotations

import argparse
import re

from kinto_attachment.commands.arguments import add_rate, add_selection, duration, selection
from kinto_attachment.commands.server import CLEAN, ERROR, FOUND, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import check_files_are_known, chosen_storage
from kinto_attachment.maintenance.reports import Progress, Report
from kinto_attachment.maintenance.verify import verify

DESCRIPTION = (
    "Read the files, compare their sizes and SHA-256 hashes with those that the index has, and "
    "note which files are whole. It changes nothing else, and can run while the server is running."
)
EPILOG = (
    "Exit code: 0 all files are whole; 1 files that are damaged or missing, or in a storage that "
    "is not configured; 2 an error, and a file that could not be read is one."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument(
        "--sample",
        type=share,
        default=1.0,
        metavar="PERCENT",
        help="verify a random part of the files, such as 1%% or 0.1%% (default: all)",
    )
    parser.add_argument(
        "--older-than",
        type=duration,
        metavar="TIME",
        help="leave out files that were whole less than such a time ago: 12h, 30d; with it, a run "
        "goes on where one that was ended had been",
    )
    parser.add_argument(
        "--trust-storage",
        action="store_true",
        help="do not read the files whose SHA-256 the storage itself has, such as those that were "
        "sent to S3 directly with their hash",
    )
    add_rate(parser)


def share(text: str) -> float:
    """The part of a whole that a percentage is."""
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%?", text)
    if match is None or not 0 < float(match[1]) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} should be a percentage such as 1% or 0.1%")
    return float(match[1]) / 100


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    check_files_are_known(registry)
    chosen_storage(registry, arguments.storage)
    report = verify(
        registry,
        selection(registry, arguments),
        sample=arguments.sample,
        older_than=arguments.older_than,
        trust_storage=arguments.trust_storage,
        rate=arguments.rate,
        progress=progress,
    )
    if report.unreadable:
        return report, ERROR
    return report, FOUND if report.found or report.elsewhere else CLEAN
