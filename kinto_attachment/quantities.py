"""Parsers of numbers, sizes and times. Each raises ValueError, which describes valid values."""

from __future__ import annotations

import re
from collections.abc import Callable

MAX_TIMEOUT = 600  # Seconds.


def text(value: object) -> str:
    # Kinto parses settings as JSON if possible: ``folder = 2024`` becomes a number.
    return str(value).strip()


def number(value: object) -> int:
    try:
        parsed = int(text(value))
    except ValueError:
        raise ValueError("should be a whole number") from None
    if parsed < 0:
        raise ValueError("should not be negative")
    return parsed


def within(least: int, most: int, shown: str = "") -> Callable[[object], int]:
    """A parser of whole numbers between two bounds; messages show the bounds as ``shown``."""

    def bounded(value: object) -> int:
        parsed = number(value)
        if not least <= parsed <= most:
            raise ValueError(f"should be {shown or f'{least} to {most}'}")
        return parsed

    return bounded


def seconds(value: object) -> float:
    try:
        parsed = float(text(value))
    except ValueError:
        raise ValueError("should be a number of seconds") from None
    if not 0 < parsed <= MAX_TIMEOUT:  # This also refuses NaN.
        raise ValueError(f"should be more than 0, and {MAX_TIMEOUT} at most")
    return parsed


def duration(value: object) -> float:
    """Seconds, from a number of them or from a number with a unit: ``90s``, ``30m``, ``1h``."""
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([smhd]?)", text(value))
    if match is None:
        raise ValueError("should be a time such as 90s, 30m, 1h or 7d")
    parsed = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
    if parsed > 36500 * 86400:  # Larger values overflow in sockets and dates.
        raise ValueError("should not be more than 100 years")
    return parsed


def age(value: object) -> float:
    """A duration that is not 0."""
    parsed = duration(value)
    if not parsed:
        raise ValueError("should be longer than 0")
    return parsed


def longest_link(value: object) -> int:
    """Seconds; S3 and Google sign URLs for a week at most."""
    parsed = duration(value)
    if not 1 <= parsed <= 7 * 86400:
        raise ValueError("should be 1s to 7d")
    return int(parsed)


def size(value: object) -> int:
    """A number of bytes such as ``512``, ``64K``, ``10M`` or ``1G``, in powers of 1,024."""
    match = re.fullmatch(r"([0-9]{1,18})([KMG]?)", text(value))
    if match is None:
        raise ValueError("should be a number of bytes like 512, 64K, 10M or 1G")
    units = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
    return int(match[1]) * units[match[2]]


# The limits of S3 for all parts of a file but the last.
part_size = within(5 * 2**20, 5 * 2**30, "5 MiB (5242880) to 5 GiB")


def bytes_of_part(value: object) -> int:
    """The same, as a size such as ``64M``."""
    return part_size(size(value))


def shard(value: str) -> tuple[int, int]:
    """A part of the work of a command, and the number of parts: 1/4 to 4/4."""
    match = re.fullmatch(r"(\d+)/(\d+)", value)
    index, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= index <= count <= 256:
        raise ValueError("should be i/n, with i from 1 to n and n up to 256")
    return index, count
