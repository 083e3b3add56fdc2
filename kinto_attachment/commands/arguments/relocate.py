"""The options of ``kinto-attachment relocate``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.selections import add_selection
from kinto_attachment.commands.arguments.writing import add_dry_run, add_server

DESCRIPTION = (
    "Write into the records the locations that their files have by the present configuration, "
    "after base_url, the server's name or the storage of the files has changed. Records with the "
    "right location are not written. It can run while the server is running, and again."
)
EPILOG = (
    "Exit code: 0 all locations are right; 1 records whose file is not known, that another plugin "
    "did not let be written, or whose file is in a storage that is not configured; 2 an error."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    add_server(parser)
    parser.add_argument(
        "--quiet-writes",
        action="store_true",
        help="keep last_modified and the ETag of the collection, without events and history: "
        "clients that synchronize notice nothing (only PostgreSQL)",
    )
    add_dry_run(parser, "report without writing anything")
