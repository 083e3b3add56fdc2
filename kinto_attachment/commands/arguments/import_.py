"""The options of ``kinto-attachment import``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.selections import add_place
from kinto_attachment.commands.arguments.writing import add_dry_run, add_permissions, add_server

DESCRIPTION = (
    "Bring the collections of an export, with their records and files, to this site. Everything "
    "is checked before anything is written. It can run while the server is running, and again: "
    "records that are there already are left out."
)
EPILOG = (
    "Exit code: 0 everything is there; 1 the server does not take some records, each with the "
    "reason; 2 an error, and something in the export that should not be there is one."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_place(parser)
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="PATH",
        help="the export: a folder, or a ZIP whose name ends with .zip",
    )
    add_permissions(parser, "import")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="replace records that exist with other content (default: refuse the import)",
    )
    add_server(parser)
    add_dry_run(parser, "check everything, write nothing")
