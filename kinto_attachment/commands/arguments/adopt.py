"""The options of ``kinto-attachment adopt``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.writing import add_dry_run

DESCRIPTION = (
    "Take over the files of a site that ran kinto-attachment 6.3 to 9, or this "
    "plugin before 10.0: link every record to its file, wherever its location says that is, "
    "and report those that have none. The files that no record names are listed, and left "
    "alone for good. It can run while the server is running, and again."
)
EPILOG = (
    "Exit code: 0 all is well; 1 records that could not be matched, each with the "
    "reason; 2 an error."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--old-base-url",
        action="append",
        default=[],
        metavar="URL",
        help="former address of the files, in the locations of records (can be repeated)",
    )
    parser.add_argument(
        "--verify", action="store_true", help="read every file and compare its SHA-256"
    )
    add_dry_run(parser, "report without writing anything")
    other = parser.add_mutually_exclusive_group()
    other.add_argument(
        "--back",
        action="store_true",
        help="write the rows of the other release for what has changed since, to go back to it",
    )
    other.add_argument(
        "--forget",
        action="store_true",
        help="delete the rows of the other release, when nobody will go back to it",
    )
    other.add_argument(
        "--manifest",
        metavar="FILE",
        help="register objects that other programs have stored: a line of JSON for each, with "
        "record, key, size, hash, and optionally filename, mimetype, storage, readonly (never "
        "deleted)",
    )
