"""Texts of others, such as names and messages of servers, on a terminal or in a log."""

from __future__ import annotations

import sys

REPLACED = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """The text in one line, without control sequences for terminals."""
    return "".join(c if c.isprintable() else REPLACED for c in text)


def accept_any_character() -> None:
    """Have characters replaced that the encoding of stdout or stderr does not have."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
