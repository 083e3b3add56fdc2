"""``kinto-attachment hold``: protects the file of a record against deletion."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone

from kinto_attachment.client import one_off
from kinto_attachment.client.arguments import add_collection, add_connection
from kinto_attachment.client.attachments import AttachmentClient

DESCRIPTION = """\
Hold the file of a record: until the hold ends, nobody can delete or replace it, not even along
with its record, collection or bucket. Without --until, the hold is open-ended, and --release ends
it. A date can be moved later, but not earlier. Requires permission to write the collection.
"""
EXAMPLES = """\
  %(prog)s --auth alice:secret --collection docs --reason "An audit" hello
  %(prog)s --auth alice:secret --collection docs --until 2030-01-01 hello
  %(prog)s --auth alice:secret --collection docs --show hello
  %(prog)s --auth alice:secret --collection docs --release hello
"""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add_hold_arguments(parser: argparse.ArgumentParser) -> None:
    add_connection(parser, DESCRIPTION, EXAMPLES)
    add_collection(parser)
    parser.add_argument("record", metavar="RECORD", help="id of the record")
    parser.add_argument(
        "--until",
        type=point_in_time,
        metavar="TIME",
        help="a date (2030-01-01), a time with its zone (2030-01-01T12:00:00Z), or from now on "
        "(90s, 30m, 12h, 30d)",
    )
    parser.add_argument("--reason", metavar="TEXT", help="why, in one line")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--show", action="store_true", help="only print the hold")
    other.add_argument("--release", action="store_true", help="end an open-ended hold")


def hold(arguments: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    return one_off.run(arguments, lambda client: _hold(client, arguments))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    add_hold_arguments(parser)
    return hold(parser.parse_args(argv))


def point_in_time(text: str) -> int:
    """A time in ms since the epoch; dates are in UTC."""
    if (match := re.fullmatch(r"([0-9]{1,9})([smhd])", text)) is not None:
        return int((time.time() + int(match[1]) * UNITS[match[2]]) * 1000)
    try:
        parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a date nor a time") from error
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=timezone.utc)
    return int(parsed.timestamp() * 1000)


def _hold(client: AttachmentClient, arguments: argparse.Namespace) -> None:
    """:raises ValueError: options contradict each other."""
    record = arguments.record
    sets = arguments.until is not None or arguments.reason is not None
    if sets and (arguments.release or arguments.show):
        raise ValueError("--until and --reason are for a hold that is set")
    if arguments.release:
        client.release_hold(record)
        return
    if arguments.show:
        print(json.dumps(client.get_hold(record)))
        return
    print(json.dumps(client.hold(record, until=arguments.until, reason=arguments.reason)))


if __name__ == "__main__":
    sys.exit(main())
