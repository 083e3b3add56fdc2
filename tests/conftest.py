"""What all tests share."""

from __future__ import annotations

import signal

import pytest

# So that a failing assertion shows the values it compared.
pytest.register_assert_rewrite("tests.support.application", "kinto_attachment.storage.samples")

pytest_plugins = ["tests.support.services", "tests.support.backends", "tests.support.sampling"]


def pytest_configure() -> None:
    # A shell has what it starts in the background ignore Ctrl-C, and so would the commands that
    # the tests start, and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
