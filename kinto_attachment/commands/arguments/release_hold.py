"""The options of ``kinto-attachment release-hold``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.writing import add_dry_run

DESCRIPTION = (
    "End the holds of a record's files: of the current one, and of versions. Who "
    "did so and why is logged. It can run while the server is running."
)
EPILOG = (
    "Exit code: 0 no file of the record is held any more; 2 an error, or there is no such record "
    "or version."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "record", metavar="RECORD", help="URI of the record: /buckets/B/collections/C/records/R"
    )
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why, for the log")
    parser.add_argument(
        "--by", metavar="NAME", help="who, for the log (default: the user who runs the command)"
    )
    parser.add_argument("--version", metavar="ID", help="only the file of this version")
    add_dry_run(parser, "report without ending anything")
