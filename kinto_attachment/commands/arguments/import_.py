"""The options of ``kinto-attachment import``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.selections import add_place
from kinto_attachment.commands.arguments.writing import add_dry_run, add_permissions, add_server

DESCRIPTION = (
    "Copy the collections of an export, with their records and files, to this site. "
    "Everything is checked before anything is written. It can run while the server is "
    "running. A repeated run skips existing records."
)
EPILOG = (
    "Exit code: 0 everything is on the site; 1 the server refuses some records, each with the "
    "reason; 2 after an error, or if the export is invalid."
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
        help="replace existing records with other content (default: refuse the import)",
    )
    add_server(parser)
    add_dry_run(parser, "check everything, write nothing")
