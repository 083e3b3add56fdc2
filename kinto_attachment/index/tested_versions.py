"""The versions of Kinto whose private parts are used; with others, only its interfaces are."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

TESTED = ("26.5.0",)


def is_tested() -> bool:
    """Whether the installed version is one of them."""
    return installed() in TESTED


@cache
def installed() -> str:
    return version("kinto")
