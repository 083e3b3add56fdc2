"""Types of the values of options, for argparse."""

from __future__ import annotations

import argparse
from datetime import timedelta

from kinto_attachment import quantities


def rate(text: str) -> int:
    """Bytes a second."""
    try:
        found = quantities.size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error
    if not found:
        raise argparse.ArgumentTypeError("should be more than 0")
    return found


def duration(text: str) -> timedelta:
    """A duration as in the settings."""
    try:
        return timedelta(seconds=quantities.duration(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error


def shard(text: str) -> tuple[int, int]:
    """A part of the work, such as 1/4: its number, and the number of parts."""
    try:
        return quantities.shard(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error
