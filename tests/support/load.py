"""Clients that change records and their files at random, while a server is being killed."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from tests.support import live, waiting
from tests.support.live import Client

BUCKET = "/buckets/b"
COLLECTIONS = ("c", "named", "kept", "public")
SETTINGS = {
    "resources.b.named.randomize": "false",
    "resources.b.kept.keep_old_files": "true",
    # Makes the server update counters, which are compared with the sums.
    "quota_bytes": "1G",
    "resources.b.public.quota_files": "1000000",
}
RECORDS_EACH = 6
JSON = {"Content-Type": "application/json"}
BROKEN = (OSError, http.client.HTTPException, ValueError)  # Errors from a killed server.
SIZES = (0, 10, 5_000, 300_000)


class Load:
    """Concurrent clients; ``answers`` counts statuses, with 0 for broken connections."""

    def __init__(self, server: live.Server, clients: int = 8, seed: int = 0) -> None:
        self.server = server
        self.answers: Counter[int] = Counter()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(seed + number),), daemon=True)
            for number in range(clients)
        ]

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            waiting.join(*self._threads)

    def _run(self, choices: random.Random) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(*BROKEN), Client(self.server) as client:
                while not self._stop.is_set():
                    self.answers[0] += 1  # Subtracted below if there is an answer.
                    status = act(client, choices)
                    self.answers[0] -= 1
                    self.answers[status] += 1


def prepare(server: live.Server) -> None:
    with Client(server) as client:
        for path in (BUCKET, *(f"{BUCKET}/collections/{name}" for name in COLLECTIONS)):
            assert client.put(path) in (200, 201)


def act(client: Client, choices: random.Random) -> int:
    """Change one of a few records, for which all clients compete."""
    record = a_record(choices, *COLLECTIONS)
    attachment = f"{record}/attachment"
    content = os.urandom(choices.choice(SIZES))
    match choices.randrange(12):
        case 0 | 1 | 2 | 3:
            return client.attach(record, content, "a file.bin")[0]
        case 4 | 5:
            return client.request("PUT", f"{attachment}?filename=raw.bin", content)[0]
        case 6:
            return client.request("DELETE", attachment)[0]
        case 7:
            return client.request("DELETE", record)[0]
        case 8:
            body = json.dumps({"data": {"title": str(choices.random())}})
            return client.request("PATCH", record, body, JSON)[0]
        case 9:
            return client.put(record, {"title": "all that is left"})
        case 10:
            copies = {a_record(choices, "c", "kept", "named"): a_record(choices, "public")}
            return client.request("POST", "/publish", json.dumps({"copies": copies}), JSON)[0]
        case _:
            calls = [
                {"method": "DELETE", "path": attachment},
                {"method": "PATCH", "path": a_record(choices, "c"), "body": {"data": {"n": 1}}},
            ]
            return client.request("POST", "/batch", json.dumps({"requests": calls}), JSON)[0]


def a_record(choices: random.Random, *collections: str) -> str:
    name = choices.choice(collections)
    return f"{BUCKET}/collections/{name}/records/r{choices.randrange(RECORDS_EACH)}"


def kill_workers(server: live.Server, enough: Callable[[int], bool], seed: int = 0) -> int:
    """Kill one or all workers again and again, until ``enough`` is true; returns how many."""
    choices = random.Random(seed)
    killed = 0
    while not enough(killed):
        time.sleep(choices.uniform(0.05, 0.6))
        killed += server.kill_workers(only=choices.choice((1, 1, None)))
    return killed


def wait_for_quiet(registry: Any) -> None:
    """Wait until the database has noticed the killed workers and no transaction is open."""
    import sqlalchemy
    import transaction

    busy = sqlalchemy.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND state <> 'idle'"
    )

    def is_quiet() -> bool:
        with transaction.manager, registry.storage.client.connect(readonly=True) as session:
            return not session.execute(busy).scalar()

    waiting.until(is_quiet, lambda: "the database is still busy")
