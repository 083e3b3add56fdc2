"""Commands that do one thing and print it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from kinto_attachment.client import command
from kinto_attachment.client.arguments import client_of
from kinto_attachment.client.attachments import AttachmentClient
from kinto_attachment.client.errors import ClientError
from kinto_attachment.client.jobs import Stop
from kinto_attachment.terminal import accept_any_character, printable


def run(arguments: argparse.Namespace, work: Callable[[AttachmentClient], object]) -> int:
    """Run the work with a client; returns the exit code."""
    accept_any_character()
    try:
        work(client_of(arguments, Stop()))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return command.INTERRUPTED
    except BrokenPipeError:  # As of ``| head``.
        sys.stderr.close()
        return command.DONE
    except (ClientError, OSError, ValueError) as error:
        print(printable(command.reason(error)), file=sys.stderr)
        return command.ERROR
    return command.DONE
