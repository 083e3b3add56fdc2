"""Making texts of others, such as filenames and servers' messages, safe for terminals and logs."""

from __future__ import annotations

import sys

REPLACED = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """The text in one line, without control sequences for terminals."""
    return "".join(c if c.isprintable() else REPLACED for c in text)


def accept_any_character() -> None:
    """Replace characters that the encoding of stdout or stderr lacks."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
