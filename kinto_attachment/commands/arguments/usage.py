"""The options of ``kinto-attachment usage``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.selections import add_selection

DESCRIPTION = (
    "Count the files and their bytes by bucket, collection, storage and state, as "
    "the index knows them. `stored` counts a file that several records share once, `quotas` "
    "what quotas count. It can run while the server is running."
)
EPILOG = "Exit code: 0 all is well; 2 an error."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
