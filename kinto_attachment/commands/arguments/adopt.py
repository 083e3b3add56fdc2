"""The options of ``kinto-attachment adopt``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.writing import add_dry_run

DESCRIPTION = (
    "Take over the files of a site that ran kinto-attachment 6.3 to 9, or this plugin before "
    "10.0: link every record to the file at its location, and report records without a file. "
    "Files without a record are listed and never deleted. It can run while the server is "
    "running, and can be repeated."
)
EPILOG = (
    "Exit code: 0 everything is in order; 1 some records could not be matched, each with the "
    "reason; 2 after an error."
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
        help="write the rows of the other release for all changes since then, to go back to it",
    )
    other.add_argument(
        "--forget",
        action="store_true",
        help="delete the rows of the other release, if nobody will go back to it",
    )
    other.add_argument(
        "--manifest",
        metavar="FILE",
        help="register objects that other programs have stored: one line of JSON each, with "
        "record, key, size, hash, and optionally filename, mimetype, storage, readonly (never "
        "deleted)",
    )
