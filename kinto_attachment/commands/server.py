"""The frame of a command on a server's data: its application, report, errors and exit codes."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable
from functools import wraps

from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance import application, console
from kinto_attachment.maintenance.reports import Progress, Report
from kinto_attachment.terminal import accept_any_character, printable

Work = Callable[[Registry, argparse.Namespace, Progress], tuple[Report, int]]

CLEAN, FOUND, ERROR, INTERRUPTED = 0, 1, 2, 130


def on_server(work: Work) -> Callable[[argparse.Namespace], int]:
    """A command that opens the application, and prints the report that ``work`` returns.

    ``work`` returns the exit code for it, too.
    """

    @wraps(work)
    def run(arguments: argparse.Namespace) -> int:
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
            return _failed(arguments, error, application.reason(error))
        if arguments.json or code != CLEAN or not arguments.quiet:
            console.show(report, as_json=arguments.json)
        return code

    return run


def _failed(arguments: argparse.Namespace, error: Exception, reason: str) -> int:
    """Say in one line why a command could not do its work; with ``--debug``, also where."""
    if arguments.debug:
        traceback.print_exception(error)
    if arguments.json:
        print(json.dumps({"errors": [reason]}))
    print(f"kinto-attachment {arguments.command}: {printable(reason)}", file=sys.stderr)
    return ERROR
