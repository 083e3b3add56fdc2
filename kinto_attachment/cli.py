"""Maintain the files of a Kinto server, or upload and download files as a client."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import wraps
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from kinto_attachment.terminal import accept_any_character, printable

if TYPE_CHECKING:
    from kinto_attachment.kinto_types import Registry
    from kinto_attachment.maintenance.reports import Progress, Report
    from kinto_attachment.maintenance.shards import Shard

    Work = Callable[[Registry, argparse.Namespace, Progress], tuple[Report, int]]

CLIENT_COMMANDS = {
    "upload": "upload files as a client of a server",
    "download": "download files as a client of a server",
    "ls": "list the files of a collection as a client of a server",
    "versions": "list the files that a record has and had",
    "restore": "make an earlier file of a record its current one again",
    "cp": "give a record the file of another one",
    "url": "print a link to a file that needs no credentials",
    "hold": "protect the file of a record against deletion for a time",
    "delete": "delete the files of records as a client of a server",
    "create-account": "create an account of Kinto's accounts plugin",
}
CLEAN, FOUND, ERROR, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="kinto-attachment", description=__doc__)
    parser.add_argument("--version", action="version", version=version("kinto-attachment"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_gc(commands)
    add_reindex(commands)
    add_adopt(commands)
    add_usage(commands)
    add_uploads(commands)
    add_release_hold(commands)
    for name, summary in CLIENT_COMMANDS.items():
        add_client_command(commands, name, summary, chosen=name in argv[:1])
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
        epilog="Exit code: 0 all is well; 1 records whose file is missing, or a --dry-run found "
        "something; 2 an error, and a file that could not be deleted is one.",
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
    parser.add_argument(
        "--orphan-age",
        type=duration,
        default=timedelta(days=1),
        metavar="TIME",
        help="delete files that an earlier run found to have no record, and which have had none "
        "for so long (default: 1d); younger ones are noted",
    )
    parser.add_argument("--dry-run", action="store_true", help="report without deleting anything")
    parser.add_argument(
        "--really",
        action="store_true",
        help="delete even more than a tenth of all files, and while there are records whose files "
        "are elsewhere",
    )
    parser.add_argument(
        "--shard",
        type=shard,
        default="1/1",
        metavar="I/N",
        help="process part I of N, to run in parallel (default: %(default)s)",
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
        epilog="Exit code: 0 all records were matched; 1 some were not, or their file is missing; "
        "2 an error.",
    )
    add_server_options(parser)
    parser.add_argument(
        "--claim",
        action="store_true",
        help="then have the storages belong to this database, so that gc works with it, and no "
        "longer with another one",
    )
    parser.set_defaults(run=run_reindex)


def add_adopt(commands: Any) -> None:
    parser = commands.add_parser(
        "adopt",
        help="take over a site of another release of kinto-attachment, or go back to it",
        description="Take over the files of a site that ran kinto-attachment 6.3 to 9, or this "
        "plugin before 10.0: link every record to its file, wherever its location says that is, "
        "and report those that have none. The files that no record names are listed, and left "
        "alone for good. It can run while the server is running, and again.",
        epilog="Exit code: 0 all is well; 1 records that could not be matched, each with the "
        "reason; 2 an error.",
    )
    add_server_options(parser)
    parser.add_argument(
        "--old-base-url",
        action="append",
        default=[],
        metavar="URL",
        help="former address of the files, in the locations of records (can be repeated)",
    )
    parser.add_argument(
        "--verify", action="store_true", help="read every file and compare its SHA-256"
    )
    parser.add_argument("--dry-run", action="store_true", help="report without writing anything")
    other = parser.add_mutually_exclusive_group()
    other.add_argument(
        "--back",
        action="store_true",
        help="write the rows of the other release for what has changed since, to go back to it",
    )
    other.add_argument(
        "--forget",
        action="store_true",
        help="delete the rows of the other release, when nobody will go back to it",
    )
    other.add_argument(
        "--manifest",
        metavar="FILE",
        help="register objects that other programs have stored: a line of JSON for each, with "
        "record, key, size, hash, and optionally filename, mimetype, storage, readonly (never "
        "deleted)",
    )
    parser.set_defaults(run=run_adopt)


def add_usage(commands: Any) -> None:
    parser = commands.add_parser(
        "usage",
        help="count files and bytes",
        description="Count the files and their bytes by bucket, collection, storage and state, as "
        "the index knows them. `stored` counts a file that several records share once, `quotas` "
        "what quotas count. It can run while the server is running.",
        epilog="Exit code: 0 all is well; 2 an error.",
    )
    add_server_options(parser)
    parser.add_argument("--bucket", metavar="ID", help="only those of one bucket")
    parser.add_argument("--collection", metavar="ID", help="only those of collections of this id")
    parser.add_argument(
        "--storage", metavar="NAME", help="only those in one of several storages (or `default`)"
    )
    parser.add_argument(
        "--shard",
        type=shard,
        default="1/1",
        metavar="I/N",
        help="process part I of N, to run in parallel (default: %(default)s)",
    )
    parser.set_defaults(run=run_usage)


def add_uploads(commands: Any) -> None:
    parser = commands.add_parser(
        "uploads",
        help="list unfinished uploads",
        description="List the uploads in several requests that are not finished, and how many "
        "bytes are stored of each. Those that expire are removed by gc.",
        epilog="Exit code: 0 listed; 2 an error.",
    )
    add_server_options(parser)
    parser.add_argument("--bucket", metavar="ID", help="list those in this bucket only")
    parser.add_argument("--collection", metavar="ID", help="in collections of this id only")
    parser.set_defaults(run=run_uploads)


def add_release_hold(commands: Any) -> None:
    parser = commands.add_parser(
        "release-hold",
        help="end the holds of a record's files, also before their date",
        description="End the holds of a record's files: of the current one, and of versions. Who "
        "did so and why is logged. It can run while the server is running.",
        epilog="Exit code: 0 no file of the record is held any more; 2 an error.",
    )
    add_server_options(parser)
    parser.add_argument(
        "record", metavar="RECORD", help="URI of the record: /buckets/B/collections/C/records/R"
    )
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why, for the log")
    parser.add_argument(
        "--by", metavar="NAME", help="who, for the log (default: the user who runs the command)"
    )
    parser.add_argument("--version", metavar="ID", help="only the file of this version")
    parser.add_argument("--dry-run", action="store_true", help="report without ending anything")
    parser.set_defaults(run=run_release_hold)


def add_client_command(commands: Any, name: str, summary: str, *, chosen: bool) -> None:
    """Add a command of the client. Its libraries may be missing, unless it is ``chosen``."""
    parser = commands.add_parser(name, help=summary)
    if not chosen:
        return
    function = name.replace("-", "_")
    try:
        module = import_module(f"kinto_attachment.client.{function}_command")
    except ModuleNotFoundError as error:
        parser.error(f"{error}; pip install kinto-http rich")
    getattr(module, f"add_{function}_arguments")(parser)
    parser.set_defaults(run=getattr(module, function))


def add_server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ini", required=True, metavar="FILE", help="Kinto's configuration file")
    parser.add_argument("--json", action="store_true", help="print the report as a JSON object")
    parser.add_argument(
        "--quiet", action="store_true", help="print nothing if all is well, and no progress"
    )
    parser.add_argument(
        "--debug", action="store_true", help="print tracebacks and everybody's log"
    )


def duration(text: str) -> timedelta:
    """A duration as in the settings."""
    # Imported only here: a client does not have the libraries of a server.
    from kinto_attachment import parsers

    try:
        return timedelta(seconds=parsers.duration(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error


def shard(text: str) -> Shard:
    """A part of the work, such as 1/4."""
    from kinto_attachment.maintenance.shards import Shard

    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error


def on_server(work: Work) -> Callable[[argparse.Namespace], int]:
    """A command that works on the server's data: with its reports, errors and exit codes.

    ``work`` returns a report, and the exit code for it.
    """

    @wraps(work)
    def run(arguments: argparse.Namespace) -> int:
        from kinto_attachment.maintenance import application, console

        accept_any_character()
        try:
            # Kinto logs the errors of its database in full, also while it is opened.
            with console.logging_to_stderr(quiet=arguments.quiet, debug=arguments.debug):
                registry = application.open_application(arguments.ini)
                with console.Meter(quiet=arguments.quiet) as meter:
                    report, code = work(registry, arguments, meter.show)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED
        # An uncaught exception would end Python with 1, which says that something was found.
        except Exception as error:  # noqa: BLE001
            return failed(arguments, error, application.reason(error))
        if arguments.json or code != CLEAN or not arguments.quiet:
            console.show(report, as_json=arguments.json)
        return code

    return run


def failed(arguments: argparse.Namespace, error: Exception, reason: str) -> int:
    """Say in one line why a command could not do its work; with ``--debug``, also where."""
    if arguments.debug:
        traceback.print_exception(error)
    if arguments.json:
        print(json.dumps({"errors": [reason]}))
    print(f"kinto-attachment {arguments.command}: {printable(reason)}", file=sys.stderr)
    return ERROR


@on_server
def run_gc(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    from kinto_attachment.maintenance.application import chosen_storage
    from kinto_attachment.maintenance.gc import gc

    storage = chosen_storage(registry, arguments.storage)
    report = gc(
        registry,
        grace=arguments.grace,
        orphan_age=arguments.orphan_age,
        really=arguments.really,
        dry_run=arguments.dry_run,
        shard=arguments.shard,
        storage=storage,
        progress=progress,
    )
    if report.errors:
        return report, ERROR
    found = report.missing or (arguments.dry_run and report.found)
    return report, FOUND if found else CLEAN


@on_server
def run_reindex(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    from kinto_attachment.maintenance.application import warn_of_memory
    from kinto_attachment.maintenance.reindex import reindex

    if not arguments.claim:  # Which is refused.
        warn_of_memory(registry)
    report = reindex(registry, claim=arguments.claim, progress=progress)
    return report, FOUND if report.found else CLEAN


@on_server
def run_uploads(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    from kinto_attachment.maintenance.application import warn_of_memory
    from kinto_attachment.maintenance.uploads import uploads

    warn_of_memory(registry)
    report = uploads(
        registry, bucket=arguments.bucket, collection=arguments.collection, progress=progress
    )
    return report, CLEAN


@on_server
def run_release_hold(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    from kinto_attachment.maintenance.application import warn_of_memory
    from kinto_attachment.maintenance.release_hold import release_hold

    warn_of_memory(registry)
    report = release_hold(
        registry,
        arguments.record,
        by=getpass.getuser() if arguments.by is None else arguments.by,
        reason=arguments.reason,
        version=arguments.version,
        dry_run=arguments.dry_run,
    )
    return report, CLEAN


@on_server
def run_adopt(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    from kinto_attachment.maintenance import adopt, manifest, rollback
    from kinto_attachment.maintenance.application import chosen_storage

    chosen_storage(registry, None)
    report: Report
    if arguments.back:
        report = rollback.back(registry, dry_run=arguments.dry_run, progress=progress)
    elif arguments.forget:
        report = rollback.forget(registry, dry_run=arguments.dry_run, progress=progress)
    elif arguments.manifest:
        # What is not UTF-8 becomes surrogates, which are refused line by line.
        with open(arguments.manifest, encoding="utf-8-sig", errors="surrogateescape") as lines:
            report = manifest.register(
                registry,
                lines,
                verify=arguments.verify,
                dry_run=arguments.dry_run,
                progress=progress,
            )
    else:
        report = adopt.adopt(
            registry,
            old_base_urls=arguments.old_base_url,
            verify=arguments.verify,
            dry_run=arguments.dry_run,
            progress=progress,
        )
    return report, FOUND if report.found else CLEAN


@on_server
def run_usage(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    from kinto_attachment.maintenance.application import chosen_title, warn_of_memory
    from kinto_attachment.maintenance.usage import usage

    warn_of_memory(registry)
    report = usage(
        registry,
        bucket=arguments.bucket,
        collection=arguments.collection,
        storage=chosen_title(registry, arguments.storage),
        shard=arguments.shard,
        progress=progress,
    )
    return report, CLEAN


if __name__ == "__main__":
    sys.exit(main())
