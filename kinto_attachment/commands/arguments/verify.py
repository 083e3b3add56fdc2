"""The options of ``kinto-attachment verify``."""

from __future__ import annotations

import argparse
import re

from kinto_attachment.commands.arguments.selections import add_rate, add_selection
from kinto_attachment.commands.arguments.values import duration

DESCRIPTION = (
    "Read the files, compare their sizes and SHA-256 hashes with the index, and note which "
    "files are intact. It changes nothing else, and can run while the server is running."
)
EPILOG = (
    "Exit code: 0 all files are intact; 1 files are damaged or missing, or in a storage that "
    "is not configured; 2 after an error, such as a file that could not be read."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument(
        "--sample",
        type=share,
        default=1.0,
        metavar="PERCENT",
        help="verify a random part of the files, such as 1%% or 0.1%% (default: all)",
    )
    parser.add_argument(
        "--older-than",
        type=duration,
        metavar="TIME",
        help="leave out files that were found intact less than this time ago: 12h, 30d; with it, "
        "a run continues an interrupted one",
    )
    parser.add_argument(
        "--trust-storage",
        action="store_true",
        help="do not read files whose SHA-256 the storage has, such as those that clients sent "
        "directly to S3 with their hash",
    )
    add_rate(parser)


def share(text: str) -> float:
    """A percentage as a fraction of 1."""
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%?", text)
    if match is None or not 0 < float(match[1]) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} should be a percentage such as 1% or 0.1%")
    return float(match[1]) / 100
