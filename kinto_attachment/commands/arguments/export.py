"""The options of ``kinto-attachment export``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.selections import add_place
from kinto_attachment.commands.arguments.writing import add_permissions

DESCRIPTION = (
    "Write a collection with its records and files, or all collections of a bucket or of the "
    "site, to a folder or a ZIP. It changes nothing, and can run while the server is running."
)
EPILOG = (
    "Exit code: 0 everything was exported; 1 records were left out because their file is "
    "missing or damaged; 2 after an error, which leaves the export incomplete."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_place(parser)
    parser.add_argument(
        "--to",
        required=True,
        metavar="PATH",
        help="the target: a folder that is empty or does not exist, or a new file that ends "
        "with .zip; the folder of an interrupted run is continued",
    )
    add_permissions(parser, "export")
