"""Maintain the files of a Kinto server, or upload and download files as a client."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinto_attachment.kinto_types import Registry
    from kinto_attachment.maintenance.reports import Report

CLEAN, FOUND, ERROR = 0, 1, 2
SHOWN = 20  # Findings of one kind that are printed; `--json` prints all of them.


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="kinto-attachment", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_gc(commands)
    add_reindex(commands)
    for name in ("upload", "download"):
        add_transfer(commands, name, chosen=name in argv[:1])
    arguments = parser.parse_args(argv)
    code: int = arguments.run(arguments)
    return code


def add_gc(commands: Any) -> None:
    parser = commands.add_parser(
        "gc",
        help="delete files that belong to no record",
        description="Complete deletions that failed, delete files that belong to no record and "
        "the remains of interrupted uploads, and report records whose file is missing. It can "
        "run while the server is running.",
        epilog="Exit code: 0 success; 1 a --dry-run found something; 2 an error.",
    )
    add_server_options(parser)
    parser.add_argument(
        "--grace",
        type=duration,
        default=timedelta(hours=1),
        metavar="TIME",
        help="skip files that are younger: 90s, 30m, 1h, 7d (default: 1h); choose more than the "
        "longest upload takes",
    )
    parser.add_argument("--dry-run", action="store_true", help="report without deleting anything")
    parser.add_argument(
        "--shard", default="1/1", metavar="I/N", help="process part I of N, to run in parallel"
    )
    parser.add_argument(
        "--storage", metavar="NAME", help="look at one of several storages only (or `default`)"
    )
    parser.set_defaults(run=run_gc)


def add_reindex(commands: Any) -> None:
    parser = commands.add_parser(
        "reindex",
        help="rebuild the index of files from the records",
        description="Link every record to its file. Use it for records written by another plugin "
        "or after restoring a backup, and before gc, which deletes files without a link.",
        epilog="Exit code: 0 all records were matched; 1 some were not; 2 an error.",
    )
    add_server_options(parser)
    parser.set_defaults(run=run_reindex)


def add_transfer(commands: Any, name: str, *, chosen: bool) -> None:
    """Add a command of the client. Its libraries may be missing, unless it is ``chosen``."""
    parser = commands.add_parser(name, help=f"{name} files as a client of a server")
    if not chosen:
        return
    try:
        module = import_module(f"kinto_attachment.client.{name}_command")
    except ModuleNotFoundError as error:
        parser.error(f'{error}; pip install "kinto-attachment[client]"')
    getattr(module, f"add_{name}_arguments")(parser)
    parser.set_defaults(run=getattr(module, name))


def add_server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ini", required=True, metavar="FILE", help="Kinto's configuration file")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def duration(text: str) -> timedelta:
    """A duration as in the settings."""
    # Imported only here: a client does not have the libraries of a server.
    from kinto_attachment import options

    try:
        return timedelta(seconds=options.duration(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error


def run_gc(arguments: argparse.Namespace) -> int:
    from kinto_attachment.maintenance.gc import gc
    from kinto_attachment.maintenance.shards import Shard
    from kinto_attachment.options import storage

    try:
        shard = Shard.parse(arguments.shard)
    except ValueError as error:
        print(f"--shard {error}", file=sys.stderr)
        return ERROR
    registry = bootstrap(arguments.ini)
    names = [each.title for each in registry.attachment_storages]
    if arguments.storage not in (None, *names):
        print(f"--storage should be one of {', '.join(names)}", file=sys.stderr)
        return ERROR
    with Meter() as meter:
        report = gc(
            registry,
            grace=arguments.grace,
            dry_run=arguments.dry_run,
            shard=shard,
            storage=None if arguments.storage is None else storage(arguments.storage),
            progress=meter.show,
        )
    show(report, as_json=arguments.json)
    if report.errors:
        return ERROR
    return FOUND if arguments.dry_run and report.found else CLEAN


def run_reindex(arguments: argparse.Namespace) -> int:
    from kinto_attachment.maintenance.reindex import reindex

    with Meter() as meter:
        report = reindex(bootstrap(arguments.ini), progress=meter.show)
    show(report, as_json=arguments.json)
    return FOUND if report.found else CLEAN


def bootstrap(ini: str) -> Registry:
    """The registry of the application that a Kinto configuration file describes."""
    from pyramid.paster import bootstrap as bootstrap_application

    # With ``command``, Kinto skips checks that only a server needs.
    registry: Registry = bootstrap_application(ini, options={"command": "kinto-attachment"})[
        "registry"
    ]
    return registry


def show(report: Report, *, as_json: bool) -> None:
    findings = asdict(report)
    if as_json:
        print(json.dumps(findings))
        return
    for name, value in findings.items():
        print(f"{name}: {len(value) if isinstance(value, list) else value}")
        for item in value[:SHOWN] if isinstance(value, list) else ():
            print(f"  {item}")
        if isinstance(value, list) and len(value) > SHOWN:
            print(f"  … and {len(value) - SHOWN} more")


class Meter:
    """Shows progress on stderr: on a terminal in one line that changes, else in many lines."""

    def __init__(self) -> None:
        self.stream = sys.stderr
        self.on_terminal = self.stream.isatty()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.on_terminal:
            print("\r\033[K", end="", file=self.stream, flush=True)

    def show(self, step: str, count: int) -> None:
        if self.on_terminal:
            print(f"\r\033[K{step}: {count:,}", end="", file=self.stream, flush=True)
        elif count % 10_000 == 0:
            print(f"{step}: {count:,}", file=self.stream, flush=True)


if __name__ == "__main__":
    sys.exit(main())
