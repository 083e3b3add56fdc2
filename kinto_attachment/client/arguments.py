"""The options that the commands for uploads and downloads share."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator

from kinto_http.cli_utils import add_parser_options

from kinto_attachment.client.attachments import AttachmentClient
from kinto_attachment.client.jobs import Stop
from kinto_attachment.client.outcomes import JsonReport, Report
from kinto_attachment.client.retries import Retries

EXIT_CODES = """\
Exit code: 0 success; 1 some files failed; 2 invalid options; 130 interrupted.
"""

DEFAULT_SERVER = "http://127.0.0.1:8888/v1"


def add_options(parser: argparse.ArgumentParser, description: str, examples: str) -> None:
    """Add the options of both commands to a parser, which may be a subparser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = description
    parser.epilog = f"{EXIT_CODES}\nExamples:\n{examples}"
    add_parser_options(
        parser,
        default_server=DEFAULT_SERVER,
        default_bucket="default",
        default_retry=5,
        include_collection=False,
    )
    parser.add_argument("-c", "--collection", required=True, help="Collection name.")
    parser.add_argument(
        "-j", "--jobs", type=_count, default=1, metavar="N", help="transfer N files at a time"
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object for each file and a summary"
    )


def client_of(arguments: argparse.Namespace, stop: Stop) -> AttachmentClient:
    retries = Retries(arguments.retry, arguments.retry_after, stop.sleep)
    return AttachmentClient(
        arguments.server,
        arguments.bucket,
        arguments.collection,
        arguments.auth,
        retries=retries,
    )


@contextlib.contextmanager
def reporting(arguments: argparse.Namespace) -> Iterator[Report]:
    """The report for the options and the kind of terminal; log messages go there, too."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(
            stream, "reconfigure"
        ):  # Names may have characters that the terminal cannot show.
            stream.reconfigure(errors="replace")
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


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("should be 1 or more")
    return number
