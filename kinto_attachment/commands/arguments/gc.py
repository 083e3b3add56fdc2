"""The options of ``kinto-attachment gc``."""

from __future__ import annotations

import argparse
from datetime import timedelta

from kinto_attachment.commands.arguments.selections import add_shard
from kinto_attachment.commands.arguments.values import duration
from kinto_attachment.commands.arguments.writing import add_dry_run

DESCRIPTION = (
    "Complete deletions that failed, delete files that belong to no record and the remains of "
    "interrupted uploads, and report records whose file is missing. It can run while the "
    "server is running."
)
EPILOG = (
    "Exit code: 0 everything is in order; 1 the file of a record is missing, or a --dry-run "
    "found something; 2 after an error, such as a file that could not be deleted."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--grace",
        type=duration,
        default=timedelta(hours=1),
        metavar="TIME",
        help="skip files that are younger: 90s, 30m, 1h, 7d (default: 1h); choose more than "
        "the duration of the longest upload",
    )
    parser.add_argument(
        "--orphan-age",
        type=duration,
        default=timedelta(days=1),
        metavar="TIME",
        help="delete files that an earlier run noted without a record at least this long ago "
        "(default: 1d); note others",
    )
    add_dry_run(parser, "report without deleting anything")
    parser.add_argument(
        "--really",
        action="store_true",
        help="allow deleting more than a tenth of all files, and deleting while there are records "
        "whose files are elsewhere",
    )
    add_shard(parser)
    parser.add_argument(
        "--storage", metavar="NAME", help="process only one of several storages (or `default`)"
    )
