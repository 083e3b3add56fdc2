"""Options that several commands share: which files they process, and how fast."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.values import rate, shard


def add_place(parser: argparse.ArgumentParser) -> None:
    """The buckets and collections to process."""
    parser.add_argument("--bucket", metavar="ID", help="only those of one bucket")
    parser.add_argument(
        "--collection", metavar="ID", help="only those of collections with this id"
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """The files to process."""
    add_place(parser)
    parser.add_argument(
        "--storage", metavar="NAME", help="only those in one of several storages (or `default`)"
    )
    add_shard(parser)


def add_shard(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shard",
        type=shard,
        default="1/1",
        metavar="I/N",
        help="process part I of N, to run in parallel (default: %(default)s)",
    )


def add_rate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rate",
        type=rate,
        default=0,
        metavar="SIZE",
        help="read at most this many bytes per second: 50M, 1G (default: no limit)",
    )
