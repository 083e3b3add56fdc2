"""What all tests share."""

from __future__ import annotations

import gc
import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# While tests are collected, everything stays: looking for garbage takes two thirds of that time.
gc.disable()

# A slow machine is no failure.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# So that a failing assertion shows the values it compared.
pytest.register_assert_rewrite("tests.support.application", "kinto_attachment.storage.samples")

pytest_plugins = [
    f"tests.support.{name}"
    for name in (
        *("sampling", "ways", "forking", "services", "cloud_clients", "backends"),
        *("old_site", "crashes", "compiling"),
    )
]


# What takes longest, and begins first when tests run side by side.
SLOW = tuple(
    f"tests/{path}"
    for path in (
        *("consistency/test_faults", "maintenance/test_moving", "storage/test_s3"),
        *("wsgi/test_slow_clients", "storage/test_patience", "client/test_upload_script"),
        *("maintenance/test_site", "files/test_quotas", "consistency/test_sessions", "wsgi/"),
        *("consistency/", "client/", "storage/", "files/", "maintenance/"),
    )
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: order_of(item.nodeid))


def order_of(name: str) -> int:
    return next((n for n, start in enumerate(SLOW) if name.startswith(start)), len(SLOW))


def pytest_collection_finish() -> None:
    # What is there now stays until the end, and an application, of 60,000 objects, for long. To
    # look at them for garbage, again and again, takes a tenth of the time of the tests.
    gc.freeze()
    gc.set_threshold(200_000, 10, 5)
    gc.enable()


def pytest_configure() -> None:
    # Without keys, the libraries of Amazon and Google look for the server of their clouds that has
    # some, at 169.254.169.254, and wait for it. Google's reads this when it is imported.
    os.environ.update(AWS_EC2_METADATA_DISABLED="true", NO_GCE_CHECK="true")
    # A shell makes background processes ignore Ctrl-C. So would the commands that the tests start
    # and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
