"""The options of ``kinto-attachment relocate``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.selections import add_selection
from kinto_attachment.commands.arguments.writing import add_dry_run, add_server

DESCRIPTION = (
    "Write the locations that follow from the current configuration into the records, after a "
    "change of base_url, the server's name or the storage of the files. Records with the "
    "right location are not written. It can run while the server is running, and can be "
    "repeated."
)
EPILOG = (
    "Exit code: 0 all locations are right; 1 a record's file is unknown or in a storage that "
    "is not configured, or another plugin refused the change; 2 after an error."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    add_server(parser)
    parser.add_argument(
        "--quiet-writes",
        action="store_true",
        help="keep last_modified and the ETag of the collection, without events and history: "
        "clients that synchronize do not notice (only PostgreSQL)",
    )
    add_dry_run(parser, "report without writing anything")
