"""Fixtures of the tests in Chromium: pages, and servers of other origins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import live
from tests.support.browser import (
    chromium,
    context,
    other_pages,
    page,
    pages_fixture,
)

__all__ = ["chromium", "context", "other_pages", "page", "pages_fixture"]


@pytest.hookimpl(tryfirst=True)  # Before -m selects by marks.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker("browser")


# For the log of a server, because a page does not see the requests of its service worker.
LOG = {"GUNICORN_CMD_ARGS": "--access-logfile - --access-logformat 'seen %(m)s %(U)s %(s)s'"}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Server]:
    """Kinto with private files."""
    folder = tmp_path_factory.mktemp("private")
    with live.kinto({"base_path": str(folder)}, threads=16, environ=LOG) as server:
        yield server


@pytest.fixture(scope="session")
def public_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Server]:
    """Kinto with files that everybody may read, and that browsers display whatever their type."""
    folder = tmp_path_factory.mktemp("public")
    shown = "text/html image/svg+xml application/pdf image/png audio/x-wav audio/wav video/webm"
    settings = {"base_path": str(folder), "public": "true", "inline_types": shown}
    with live.kinto(settings, threads=16, environ=LOG) as server:
        yield server
