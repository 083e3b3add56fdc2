"""The options of ``kinto-attachment reindex``."""

from __future__ import annotations

import argparse

DESCRIPTION = (
    "Link every record to its file. Use it for records written by another plugin or after "
    "restoring a backup, and before gc, which deletes files without a link."
)
EPILOG = (
    "Exit code: 0 all records were matched; 1 some were not, or their file is missing; 2 "
    "after an error."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--claim",
        action="store_true",
        help="then make the storages belong to this database, so that gc works with it, and no "
        "longer with another one",
    )
