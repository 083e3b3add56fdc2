"""``kinto-attachment ls``: lists the files of a collection."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from kinto_attachment.client import one_off
from kinto_attachment.client.arguments import add_collection, add_connection
from kinto_attachment.client.attachments import AttachmentClient
from kinto_attachment.client.outcomes import readable
from kinto_attachment.terminal import printable

DESCRIPTION = """\
List the files of a collection's records, the last changed records first: the id of the record,
the size in bytes, and the filename.

FILTER selects some of them, as in the server's list: NAME=VALUE, with filename, mimetype, size,
hash, id or last_modified as the NAME, and like_, not_, min_, max_, gt_, lt_, in_ or exclude_ in
front of it.
"""
EXAMPLES = """\
  %(prog)s --auth alice:secret --collection docs
  %(prog)s --collection pictures 'like_filename=*.png' gt_size=1000000
  %(prog)s --auth alice:secret --collection docs --kept --json
"""


def add_ls_arguments(parser: argparse.ArgumentParser) -> None:
    add_connection(parser, DESCRIPTION, EXAMPLES)
    add_collection(parser)
    parser.add_argument("filters", nargs="*", type=_filter, metavar="FILTER", help="NAME=VALUE")
    parser.add_argument(
        "--kept", action="store_true", help="list the files that keep_old_files keeps"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object for each file")


def ls(arguments: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    return one_off.run(arguments, lambda client: _list(client, arguments))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    add_ls_arguments(parser)
    return ls(parser.parse_args(argv))


def _list(client: AttachmentClient, arguments: argparse.Namespace) -> None:
    filters: dict[str, Any] = {}
    for name, value in arguments.filters:
        filters.setdefault(name, []).append(value)
    if arguments.kept:
        filters["state"] = "kept"
    count = size = 0
    for item in client.files(**filters):
        count += 1
        size += item["size"] or 0
        line = json.dumps(item) if arguments.json else _line(item)
        print(printable(line), flush=True)
    if not arguments.json:
        files = "file" if count == 1 else "files"
        print(f"{count} {files}, {readable(size)}", file=sys.stderr)


def _line(item: dict[str, Any]) -> str:
    return f"{item['id']}  {item['size']}  {item['filename']}"


def _filter(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator or name.startswith("_"):
        raise argparse.ArgumentTypeError(f"{text!r} should be NAME=VALUE, such as gt_size=1000")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
