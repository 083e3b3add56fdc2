"""The options that the commands for uploads and downloads share."""

from __future__ import annotations

import argparse
import contextlib
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

from kinto_http.cli_utils import add_parser_options

from kinto_attachment.client import environment
from kinto_attachment.client.attachments import AttachmentClient
from kinto_attachment.client.jobs import Stop
from kinto_attachment.client.outcomes import JsonReport, Report
from kinto_attachment.client.retries import Retries
from kinto_attachment.terminal import accept_any_character

EXIT_CODES = """\
Exit code: 0 success; 1 some files failed; 2 an error, such as invalid options or no server; 130
interrupted.
"""
ENVIRONMENT = """\
Environment: KINTO_SERVER and KINTO_AUTH replace --server and --auth. Other users of the machine
can see command lines: prefer KINTO_AUTH or --auth-file. HTTP_PROXY, HTTPS_PROXY, NO_PROXY and
REQUESTS_CA_BUNDLE are respected.
"""

DEFAULT_SERVER = "http://127.0.0.1:8888/v1"
# The ids of buckets and collections in Kinto.
OBJECT_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]*")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Adds the default to the help of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        # The default of ``auth`` is a secret; those of flags say nothing new.
        shown = action.nargs != 0 and action.dest != "auth" and action.default is not None
        if shown and action.option_strings and "(default:" not in text:
            text += " (default: %(default)s)"
        return text


def add_connection(parser: argparse.ArgumentParser, description: str, examples: str) -> None:
    """Add the options of all commands to a parser, which may be a subparser."""
    parser.formatter_class = HelpFormatter
    parser.description = description
    parser.epilog = f"{EXIT_CODES}\n{ENVIRONMENT}\nExamples:\n{examples}"
    add_parser_options(
        parser,
        default_server=environment.server() or DEFAULT_SERVER,
        default_auth=environment.auth(),
        default_retry=5,
        include_bucket=False,
        include_collection=False,
    )
    parser.add_argument(
        "--auth-file", metavar="FILE", help="read what --auth takes from the first line of a file"
    )
    parser.add_argument(
        "--ca-bundle",
        metavar="FILE",
        help="certificates to trust, for a server with one of a private authority",
    )


def add_options(parser: argparse.ArgumentParser, description: str, examples: str) -> None:
    """Add the options of the commands for the files of a collection."""
    add_connection(parser, description, examples)
    add_collection(parser)
    parser.add_argument(
        "-j", "--jobs", type=_count, default=1, metavar="N", help="transfer N files at a time"
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object for each file and a summary"
    )


def add_collection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-b", "--bucket", type=_object_id, default="default", help="Bucket name.")
    parser.add_argument(
        "-c", "--collection", type=_object_id, required=True, help="Collection name."
    )


def client_of(arguments: argparse.Namespace, stop: Stop) -> AttachmentClient:
    retries = Retries(arguments.retry, arguments.retry_after, stop.sleep)
    return AttachmentClient(
        arguments.server,
        arguments.bucket,
        arguments.collection,
        auth_of(arguments),
        retries=retries,
        ca_bundle=arguments.ca_bundle,
    )


def auth_of(arguments: argparse.Namespace) -> Any:
    """The credentials: from the command line, a file, or the environment, in this order.

    :raises ValueError, OSError: the file cannot be read, or contains no credentials.
    """
    if arguments.auth_file is not None and arguments.auth in (None, environment.auth()):
        return environment.auth_of(arguments.auth_file)
    return arguments.auth


@contextlib.contextmanager
def reporting(arguments: argparse.Namespace) -> Iterator[Report]:
    """The report for the options and the kind of terminal; log messages go there, too."""
    accept_any_character()
    report = _report(arguments)
    handler = _LogHandler(report)
    logger = logging.getLogger("kinto_attachment.client")
    logger.addHandler(handler)
    logger.setLevel(arguments.verbosity or logging.WARNING)
    try:
        with report:
            yield report
    finally:
        logger.removeHandler(handler)


def _report(arguments: argparse.Namespace) -> Report:
    quiet = arguments.verbosity == logging.CRITICAL
    if arguments.json:
        return JsonReport(quiet=quiet)
    if sys.stdout.isatty() and not quiet:
        from kinto_attachment.client.bars import BarReport

        return BarReport()
    return Report(quiet=quiet)


class _LogHandler(logging.Handler):
    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        self._report.note(record.getMessage())


def _object_id(text: str) -> str:
    if not OBJECT_ID.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} should have letters, digits, - and _ only, and begin with one of the first "
            "two"
        )
    return text


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("should be 1 or more")
    return number
