"""The options of ``kinto-attachment move``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.selections import add_rate, add_selection
from kinto_attachment.commands.arguments.values import duration
from kinto_attachment.commands.arguments.writing import add_dry_run

DESCRIPTION = (
    "Move files to another storage: copy each file, read the copy back and compare it, change "
    "the index, and delete the file in the other storage when it is no longer needed. It can "
    "run while the server is running. The next run continues an interrupted one."
)
EPILOG = (
    "Exit code: 0 everything is in order; 1 files are damaged or missing, or in a storage "
    "that is not configured, or a --dry-run found files to move; 2 after an error, such as a "
    "file that could not be moved."
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
        help="keep the files in the other storages for this time: 1h, 7d (default: a minute, or "
        "signed_url_ttl if it is longer and downloads are redirected there)",
    )
    add_dry_run(parser, "count without moving anything")
