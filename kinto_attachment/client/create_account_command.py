"""``kinto-attachment create-account``: creates an account of Kinto's accounts plugin."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from urllib.parse import quote

from kinto_attachment.client import command
from kinto_attachment.client.arguments import add_connection, auth_of
from kinto_attachment.client.errors import (
    ClientError,
    ConflictError,
    NotAllowedError,
    NotFoundError,
)
from kinto_attachment.client.retries import Retries
from kinto_attachment.client.session import Session
from kinto_attachment.terminal import printable

DESCRIPTION = """\
Create the account of the credentials, with their password. The server needs
kinto.plugins.accounts, and has to let everybody create accounts, with its setting
account_create_principals = system.Everyone.
"""
EXAMPLES = """\
  KINTO_AUTH=alice:secret %(prog)s
  %(prog)s -s https://kinto.example.com/v1 --auth-file alice.auth
"""


def add_create_account_arguments(parser: argparse.ArgumentParser) -> None:
    add_connection(parser, DESCRIPTION, EXAMPLES)


def create_account(arguments: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    try:
        user, password = _credentials(auth_of(arguments))
        _create(arguments, user, password)
    except (ClientError, OSError, ValueError) as error:
        print(printable(command.reason(error)), file=sys.stderr)
        return command.ERROR
    print(json.dumps({"account": user}))
    return command.DONE


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    add_create_account_arguments(parser)
    return create_account(parser.parse_args(argv))


def _credentials(auth: object) -> tuple[str, str]:
    pair = auth.split(":", 1) if isinstance(auth, str) else auth
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(pair):
        raise ValueError("An account needs credentials of the form user:password")
    return str(pair[0]), str(pair[1])


def _create(arguments: argparse.Namespace, user: str, password: str) -> None:
    retries = Retries(arguments.retry, arguments.retry_after)
    # Without credentials, because their account does not exist yet.
    session = Session(arguments.server, retries=retries, ca_bundle=arguments.ca_bundle)
    endpoint = f"/accounts/{quote(user, safe='')}"
    try:
        session.request(
            "put", endpoint, data={"password": password}, headers={"If-None-Match": "*"}
        )
    except ConflictError as error:
        raise ValueError(f"The account {user} already exists") from error
    except NotFoundError as error:
        raise ValueError(f"{error} (does this server have kinto.plugins.accounts?)") from error
    except NotAllowedError as error:
        raise ValueError(f"{error} (may everybody create accounts on this server?)") from error


if __name__ == "__main__":
    sys.exit(main())
