"""The output of commands: the report on stdout, progress and log on stderr."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from kinto_attachment.maintenance.reports import Report
from kinto_attachment.terminal import printable

SHOWN = 20  # Findings of one kind that are printed; `--json` prints all of them.
EVERY = 10_000  # Items between two lines of progress, if lines cannot be rewritten.


def show(report: Report, *, as_json: bool) -> None:
    findings = asdict(report)
    if as_json:
        print(json.dumps(findings))
        return
    for name, value in findings.items():
        if isinstance(value, dict):
            print(_line(name, value))
            continue
        print(f"{name}: {len(value) if isinstance(value, list) else value}")
        for item in value[:SHOWN] if isinstance(value, list) else ():
            # A finding of another class has its own text for people.
            print(f"  {printable(_members(item) if type(item) is dict else str(item))}")
        if isinstance(value, list) and len(value) > SHOWN:
            print(f"  … and {len(value) - SHOWN} more")


def _line(name: str, value: dict[str, Any]) -> str:
    """An object with its name; for an object of objects, a line for each of them."""
    if any(isinstance(member, dict) for member in value.values()):
        lines = (f"  {printable(key)}: {_members(member)}" for key, member in value.items())
        return "\n".join([f"{name}:", *lines])
    return f"{name}: {_members(value)}"


def _members(value: dict[str, Any]) -> str:
    return ", ".join(f"{name} {member}" for name, member in value.items()) or "none"


class Meter:
    """Shows progress on stderr: on a terminal in one changing line, otherwise in many lines."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.stream = sys.stderr
        self.quiet = quiet
        self.on_terminal = self.stream.isatty() and not quiet

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.on_terminal:
            print("\r\033[K", end="", file=self.stream, flush=True)

    def show(self, step: str, count: int, total: int | None = None) -> None:
        text = f"{step}: {count:,}"
        if total is not None:
            text += f" of {max(count, total):,}"
        if self.on_terminal:
            print(f"\r\033[K{text}", end="", file=self.stream, flush=True)
        elif not self.quiet and count and count % EVERY == 0:
            print(text, file=self.stream, flush=True)


@contextlib.contextmanager
def logging_to_stderr(*, quiet: bool, debug: bool) -> Iterator[None]:
    """Log the plugin's messages to stderr, one line each; with ``debug``, all messages in full.

    Without ``debug``, there are no tracebacks. The last line of a command says why it failed.
    """
    root, ours = logging.getLogger(), logging.getLogger("kinto_attachment")
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines() if not debug else logging.Formatter(logging.BASIC_FORMAT))
    # Without any handler, Python writes warnings to stderr.
    silence = logging.NullHandler()
    levels = root.level, ours.level
    root.addHandler(handler if debug else silence)
    if debug:
        root.setLevel(logging.DEBUG)
    else:
        ours.addHandler(handler)
        ours.setLevel(logging.ERROR if quiet else logging.INFO)
    try:
        yield
    finally:
        for logger in (root, ours):
            logger.removeHandler(handler)
            logger.removeHandler(silence)
        root.setLevel(levels[0])
        ours.setLevel(levels[1])


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(f"{record.levelname}: {record.getMessage()}".replace("\n", " "))
