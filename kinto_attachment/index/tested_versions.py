"""The versions of Kinto whose classes and tables the faster ways were tested with."""

from __future__ import annotations

from importlib.metadata import version

TESTED = ("26.5.0",)


def is_tested() -> bool:
    """Whether the installed version is one of them; others get the ways that every version has."""
    return version("kinto") in TESTED
