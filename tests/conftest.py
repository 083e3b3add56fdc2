"""Fixtures and hooks that all tests share."""

from __future__ import annotations

import gc
import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# While tests are collected, nothing is freed, and garbage collection takes two thirds of the time.
gc.disable()

# A slow machine is not a failure.
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


# The slowest tests, which start first when tests run in parallel.
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
    # All current objects stay until the end, and an application, of 60,000 objects, stays for
    # long. Checking them repeatedly for garbage takes a tenth of the time of the tests.
    gc.freeze()
    gc.set_threshold(200_000, 10, 5)
    gc.enable()


def pytest_configure() -> None:
    # Without keys, the libraries of Amazon and Google wait for the server in their clouds that
    # provides some, at 169.254.169.254. Google's library reads this when it is imported.
    os.environ.update(AWS_EC2_METADATA_DISABLED="true", NO_GCE_CHECK="true")
    # A shell makes background processes ignore Ctrl-C. The commands that tests start and interrupt
    # would inherit this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
