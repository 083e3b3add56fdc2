"""The options of ``kinto-attachment release-hold``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.writing import add_dry_run

DESCRIPTION = (
    "End the holds of the current file and the versions of a record. The log contains who did "
    "it and why. It can run while the server is running."
)
EPILOG = (
    "Exit code: 0 no file of the record is held any more; 2 after an error, or if the record "
    "or version does not exist."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "record", metavar="RECORD", help="URI of the record: /buckets/B/collections/C/records/R"
    )
    parser.add_argument("--reason", required=True, metavar="TEXT", help="the reason, for the log")
    parser.add_argument(
        "--by",
        metavar="NAME",
        help="the person, for the log (default: the user who runs the command)",
    )
    parser.add_argument("--version", metavar="ID", help="only the file of this version")
    add_dry_run(parser, "report without ending anything")
