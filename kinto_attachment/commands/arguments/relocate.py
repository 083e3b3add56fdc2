"""The options of ``kinto-attachment relocate``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.selections import add_selection

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
    parser.add_argument(
        "--server",
        metavar="URL",
        help="the server's address, in the locations of files without base_url (default: that of "
        "kinto.http_scheme and kinto.http_host)",
    )
    parser.add_argument(
        "--quiet-writes",
        action="store_true",
        help="keep last_modified and the ETag of the collection, without events and history: "
        "clients that synchronize notice nothing (only PostgreSQL)",
    )
    parser.add_argument("--dry-run", action="store_true", help="report without writing anything")
