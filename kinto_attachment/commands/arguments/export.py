"""The options of ``kinto-attachment export``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.selections import add_place
from kinto_attachment.commands.arguments.writing import add_permissions

DESCRIPTION = (
    "Write a collection with its records and files to a folder or a ZIP, or all collections of a "
    "bucket or of the site. It changes nothing, and can run while the server is running."
)
EPILOG = (
    "Exit code: 0 everything was exported; 1 records were left out, because their file is missing "
    "or damaged; 2 an error: the export is not complete."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_place(parser)
    parser.add_argument(
        "--to",
        required=True,
        metavar="PATH",
        help="where to write it: a folder that is empty or does not exist, or a new file that "
        "ends with .zip; a folder of a run that was ended is continued",
    )
    add_permissions(parser, "export")
