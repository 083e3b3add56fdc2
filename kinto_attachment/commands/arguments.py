"""Options that several commands have, and the types of their values."""

from __future__ import annotations

import argparse
from datetime import timedelta

from kinto_attachment import parsers
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import chosen_title
from kinto_attachment.maintenance.selection import Selection
from kinto_attachment.maintenance.shards import Shard


def add_options_of_all(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ini", required=True, metavar="FILE", help="Kinto's configuration file")
    parser.add_argument("--json", action="store_true", help="print the report as a JSON object")
    parser.add_argument(
        "--quiet", action="store_true", help="print nothing if all is well, and no progress"
    )
    parser.add_argument(
        "--debug", action="store_true", help="print tracebacks and everybody's log"
    )


def add_place(parser: argparse.ArgumentParser) -> None:
    """The buckets and collections to work on."""
    parser.add_argument("--bucket", metavar="ID", help="only those of one bucket")
    parser.add_argument("--collection", metavar="ID", help="only those of collections of this id")


def place(arguments: argparse.Namespace) -> Selection:
    """What these options select."""
    return Selection(bucket=arguments.bucket, collection=arguments.collection)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """The files to work on."""
    add_place(parser)
    parser.add_argument(
        "--storage", metavar="NAME", help="only those in one of several storages (or `default`)"
    )
    add_shard(parser)


def selection(registry: Registry, arguments: argparse.Namespace) -> Selection:
    """What these options select.

    :raises CommandError: there is no storage of this name.
    """
    return Selection(
        bucket=arguments.bucket,
        collection=arguments.collection,
        storage=chosen_title(registry, arguments.storage),
        shard=arguments.shard,
    )


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
        help="read so many bytes a second at most: 50M, 1G (default: as fast as possible)",
    )


def add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server",
        metavar="URL",
        help="the server's address, in the locations of files without base_url (default: that of "
        "kinto.http_scheme and kinto.http_host)",
    )


def add_permissions(parser: argparse.ArgumentParser) -> None:
    """For ``export`` and ``import``."""
    parser.add_argument(
        "--permissions",
        action="store_true",
        help="the permissions of buckets, collections and records, too",
    )


def add_dry_run(parser: argparse.ArgumentParser, meaning: str) -> None:
    parser.add_argument("--dry-run", action="store_true", help=meaning)


def rate(text: str) -> int:
    """Bytes a second."""
    try:
        found = parsers.size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error
    if not found:
        raise argparse.ArgumentTypeError("should be more than 0")
    return found


def duration(text: str) -> timedelta:
    """A duration as in the settings."""
    try:
        return timedelta(seconds=parsers.duration(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error


def shard(text: str) -> Shard:
    """A part of the work, such as 1/4."""
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error
