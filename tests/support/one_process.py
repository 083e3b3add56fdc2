"""Kinto with attachments on a port of this process, for tests that call its maintenance as well.

:mod:`live` starts a process, and :func:`invariants.inside` builds its application a second time.
Here, one application does both.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import kinto

from tests.support import live, waiting
from tests.support.application import forget_database, postgresql_settings
from tests.support.faults import HOST

POLL = 0.05  # Seconds until the server notices that it has to stop.


@dataclass(frozen=True)
class Address:
    address: tuple[str, int]


class Handler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""


@contextlib.contextmanager
def kinto_here(
    attachment: Mapping[str, str],
    database: str,
    includes: Iterable[str] = ("kinto.plugins.default_bucket",),
) -> Iterator[tuple[Any, live.Client]]:
    """The registry of the application, and a client of alice.

    ``attachment`` are the plugin's settings without their prefix; the ``database`` has Kinto's
    schema. Requests are handled one at a time.
    """
    backends = {f"kinto.{k}": value for k, value in postgresql_settings(database).items()}
    of_plugin = {f"kinto.attachment.{name}": value for name, value in attachment.items()}
    plugins = {"kinto.includes": " ".join([*includes, "kinto_attachment"])}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="HTTPS is not enabled")
        warnings.filterwarnings("ignore", message="Reuse existing PostgreSQL connection")
        app = kinto.main({}, **live.DEFAULTS, **plugins, **backends, **of_plugin)
    with make_server(HOST, 0, app, handler_class=Handler) as server:
        thread = Thread(target=server.serve_forever, args=(POLL,), daemon=True)
        thread.start()
        try:
            with live.Client(Address((HOST, server.server_port))) as client:
                yield app.registry, client
        finally:
            server.shutdown()
            waiting.join(thread)
            forget_database(database)
