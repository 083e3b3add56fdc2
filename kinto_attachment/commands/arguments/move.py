"""The options of ``kinto-attachment move``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.selections import add_rate, add_selection
from kinto_attachment.commands.arguments.values import duration
from kinto_attachment.commands.arguments.writing import add_dry_run

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
