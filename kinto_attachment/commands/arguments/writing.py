"""Options that several commands share: what they write."""

from __future__ import annotations

import argparse


def add_dry_run(parser: argparse.ArgumentParser, meaning: str) -> None:
    parser.add_argument("--dry-run", action="store_true", help=meaning)


def add_permissions(parser: argparse.ArgumentParser, verb: str) -> None:
    """For ``export`` and ``import``; ``verb`` says what the command does with them."""
    parser.add_argument(
        "--permissions",
        action="store_true",
        help=f"also {verb} the permissions of buckets, collections and records",
    )


def add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server",
        metavar="URL",
        help="the server's address, in the locations of files without base_url (default: that of "
        "kinto.http_scheme and kinto.http_host)",
    )
