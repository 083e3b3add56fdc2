"""Interruptions: another request, a connection or worker that ends, a failing disk."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import transaction
from pyramid.events import ContextFound

from kinto_attachment.errors import StorageUnavailable
from tests.support import live, waiting
from tests.support.faults import FaultProxy


@contextlib.contextmanager
def overtaken(app: Any, action: Callable[[], object]) -> Iterator[None]:
    """Call ``action`` when a request has found its record, before it does anything."""
    registry = app.app.registry
    done = []

    def act(event: Any) -> None:
        if not done:
            done.append(event)
            waiting.elsewhere(action)

    registry.registerHandler(act, (ContextFound,))
    try:
        yield
    finally:
        registry.unregisterHandler(act, (ContextFound,))
    assert done


@contextlib.contextmanager
def broken_half_way(server: live.Server, how: str, size: int) -> Iterator[FaultProxy]:
    """A proxy to a server for a file of ``size`` bytes, half of which arrive at the first attempt.

    Then the ``connection`` is reset, or each ``worker`` is killed while the connection hangs.
    """
    with FaultProxy(server.address) as proxy:
        if how == "connection":
            proxy.cut(sent=size // 2, once=True)
            yield proxy
            assert proxy.connections > 1
            return
        proxy.hang(sent=size // 2)

        def kill() -> None:
            assert proxy.broken.wait(waiting.SECONDS)
            server.kill_workers()
            proxy.cut()
            proxy.work()

        killing = threading.Thread(target=kill)
        killing.start()
        yield proxy
        waiting.join(killing)
        server.wait()


class Meanwhile(io.BytesIO):
    """A body that calls ``action`` after its first bytes were read."""

    def __init__(self, content: bytes, action: Callable[[], object]) -> None:
        super().__init__(content)
        self.action: Callable[[], object] | None = action

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if self.action is not None:
            action, self.action = self.action, None
            # In another thread, because each thread has its own transaction.
            failures: list[BaseException] = []
            thread = threading.Thread(target=self._run, args=(action, failures))
            thread.start()
            waiting.join(thread)
            if failures:
                raise failures[0]
        return data

    def _run(self, action: Callable[[], object], failures: list[BaseException]) -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - raised in the test's own thread.
            failures.append(error)
        finally:
            transaction.abort()


@contextlib.contextmanager
def failing_deletes(app: Any, *, late: bool = False, storage: str = "") -> Iterator[None]:
    """Make deletions of files fail like on a broken disk, which tests cannot have.

    ``late``: they fail after the files are deleted.
    """
    files = app.app.registry.attachment_storages[storage].files
    delete = files.delete

    def fail(*keys: str) -> bool:
        if late:
            delete(*keys)
        raise StorageUnavailable() from OSError(5, "Input/output error")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "delete", fail)
        yield
