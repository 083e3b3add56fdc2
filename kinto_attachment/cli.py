"""The command ``kinto-attachment``: its subcommands for operators and for users."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from keyword import iskeyword
from typing import Any

DESCRIPTION = "Maintain the files of a Kinto server, or upload and download files as a client."

SERVER_COMMANDS = {
    "gc": "delete files that belong to no record",
    "reindex": "rebuild the index of files from the records",
    "adopt": "take over a site of another release of kinto-attachment, or go back to it",
    "verify": "read the files and compare them with their hashes",
    "export": "write collections with their records and files to a folder or a ZIP",
    "import": "copy the collections of an export to this site",
    "relocate": "write the current locations of files into their records",
    "move": "move files to another storage",
    "bundle": "store the archives of collections that ask for one",
    "usage": "count files and bytes",
    "uploads": "list unfinished uploads",
    "release-hold": "end the holds of a record's files, even before their date",
}
CLIENT_COMMANDS = {
    "upload": "upload files as a client of a server",
    "download": "download files as a client of a server",
    "ls": "list the files of a collection as a client of a server",
    "versions": "list the current and the earlier files of a record",
    "restore": "make an earlier file of a record its current one again",
    "cp": "attach the file of a record to another record",
    "url": "print a link to a file that needs no credentials",
    "hold": "protect the file of a record against deletion",
    "delete": "delete the files of records as a client of a server",
    "create-account": "create an account of Kinto's accounts plugin",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="kinto-attachment", description=DESCRIPTION)
    parser.add_argument(
        "--version",
        action=ShowVersion,
        nargs=0,
        default=argparse.SUPPRESS,
        help="show program's version number and exit",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in SERVER_COMMANDS.items():
        add_server_command(commands, name, summary, chosen=name in argv[:1])
    for name, summary in CLIENT_COMMANDS.items():
        add_client_command(commands, name, summary, chosen=name in argv[:1])
    arguments = parser.parse_args(argv)
    code: int = arguments.run(arguments)
    return code


class ShowVersion(argparse.Action):
    """Looks up the version, which takes a while, only on request."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(version("kinto-attachment"))
        parser.exit()


def add_server_command(commands: Any, name: str, summary: str, *, chosen: bool) -> None:
    """Add a command for a server's data. The server itself is imported when the command runs."""
    parser = commands.add_parser(name, help=summary)
    if not chosen:
        return
    of_all = import_module("kinto_attachment.commands.arguments")
    own = import_module(f"kinto_attachment.commands.arguments.{module_name(name)}")
    parser.description, parser.epilog = own.DESCRIPTION, own.EPILOG
    of_all.add_options_of_all(parser)
    own.add_arguments(parser)
    parser.set_defaults(run=partial(run_server_command, parser, name))


def run_server_command(
    parser: argparse.ArgumentParser, name: str, arguments: argparse.Namespace
) -> int:
    """Run the command. Kinto may be missing where only clients are installed."""
    try:
        module = import_module(f"kinto_attachment.commands.{module_name(name)}")
    except ModuleNotFoundError as error:
        parser.error(f"{error}; pip install kinto")
    code: int = module.run(arguments)
    return code


def module_name(command: str) -> str:
    name = command.replace("-", "_")
    return f"{name}_" if iskeyword(name) else name


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


if __name__ == "__main__":
    sys.exit(main())
