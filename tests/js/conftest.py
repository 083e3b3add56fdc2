"""What the tests of the JavaScript module in Node share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import live
from tests.support.faults import FaultProxy
from tests.support.javascript import COLLECTION


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Server]:
    folder = tmp_path_factory.mktemp("files")
    with live.kinto(
        {"base_path": str(folder), "extensions": "txt+bin", "resources.b.gz.gzipped": "true"}
    ) as server:
        yield server


@pytest.fixture
def server(running: live.Server) -> Iterator[live.Server]:
    """An empty collection."""
    with live.Client(running) as alice:
        alice.put("/buckets/b")
        alice.put(COLLECTION)
        yield running
        alice.request("DELETE", "/buckets/b")


@pytest.fixture
def proxy(server: live.Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.address) as proxy:
        yield proxy
