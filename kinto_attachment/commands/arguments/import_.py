"""The options of ``kinto-attachment import``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.selections import add_place

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
    parser.add_argument(
        "--permissions",
        action="store_true",
        help="import the permissions of buckets, collections and records, too",
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="replace records that exist with other content (default: refuse the import)",
    )
    parser.add_argument(
        "--server",
        metavar="URL",
        help="the server's address, in the locations of files without base_url (default: that of "
        "kinto.http_scheme and kinto.http_host)",
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
