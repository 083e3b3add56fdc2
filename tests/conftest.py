"""What all tests share."""

from __future__ import annotations

import signal

import pytest

pytest.register_assert_rewrite("tests.support.application")

pytest_plugins = [f"tests.support.{name}" for name in ("sampling", "services", "backends")]


def pytest_configure() -> None:
    # A shell has what it starts in the background ignore Ctrl-C, and so would the commands that
    # the tests start, and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
