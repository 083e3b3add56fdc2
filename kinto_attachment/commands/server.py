"""Running a command for a server's data: its application, report, errors and exit codes."""

from __future__ import annotations

import argparse
import json
import os
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

    ``work`` also returns the exit code.
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
        # After an uncaught exception, Python exits with 1, which means that something was found.
        except Exception as error:  # noqa: BLE001
            return _failed(arguments, error, application.reason(error))
        if arguments.json or code != CLEAN or not arguments.quiet:
            return _show(arguments, report, code)
        return code

    return run


def _show(arguments: argparse.Namespace, report: Report, code: int) -> int:
    """Print the report; returns the exit code, which changes if the report cannot be written."""
    try:
        console.show(report, as_json=arguments.json)
        if sys.stdout is not None:  # It may be closed.
            sys.stdout.flush()
    except BrokenPipeError:  # As of ``| head``, which has read enough.
        _discard_output()
    except OSError as error:  # As of a full disk.
        _discard_output()
        return _failed(arguments, error, f"The report: {application.reason(error)}")
    return code


def _discard_output() -> None:
    """Discard the rest of the output, so that Python does not fail again when it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _failed(arguments: argparse.Namespace, error: Exception, reason: str) -> int:
    """Print in one line why a command failed; with ``--debug``, also the traceback."""
    if arguments.debug:
        traceback.print_exception(error)
    if arguments.json:
        print(json.dumps({"errors": [reason]}))
    print(f"kinto-attachment {arguments.command}: {printable(reason)}", file=sys.stderr)
    return ERROR
