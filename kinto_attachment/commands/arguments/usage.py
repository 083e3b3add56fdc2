"""The options of ``kinto-attachment usage``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.selections import add_selection

DESCRIPTION = (
    "Count the files in the index and their bytes by bucket, collection, storage and state. "
    "`stored` counts shared files once, `quotas` contains the counters of quotas. It can run "
    "while the server is running."
)
EPILOG = "Exit code: 0 everything is in order; 2 after an error."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
