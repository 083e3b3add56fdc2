"""The server and the credentials from the environment, which keeps them off command lines."""

from __future__ import annotations

import os
from pathlib import Path

SERVER = "KINTO_SERVER"
AUTH = "KINTO_AUTH"


def server() -> str | None:
    """The URL of the server, with its ``/v1``; None if it is not set."""
    return os.environ.get(SERVER) or None


def auth() -> str | None:
    """``user:password`` or the value of an Authorization header; None if it is not set."""
    return os.environ.get(AUTH) or None


def auth_of(path: str | os.PathLike[str]) -> str:
    """The credentials from the first line of a file.

    :raises ValueError: the line is empty.
    :raises OSError: the file cannot be read.
    """
    lines = Path(path).read_text("utf-8").splitlines()
    if not lines or not lines[0].strip():
        raise ValueError(f"{path}: the first line should be user:password, or Bearer and a token")
    return lines[0].strip()
