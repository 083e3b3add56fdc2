"""Two minutes of load on a cluster that loses a Kinto server and a volume server meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from kinto_attachment.client import (
    AttachmentClient,
    NotFoundError,
    Retries,
    resumable as resuming,
)
from kinto_attachment.client.errors import ClientError
from tests.support import invariants, load, waiting
from tests.support.cluster import Cluster, cluster
from tests.support.environments import ours

pytestmark = pytest.mark.cluster

SECONDS = 120.0
KINTO_DIES, VOLUME_DIES = 40.0, 60.0  # Seconds after the start.
RECOVERED = 90.0  # From here on, every request has to succeed.
CLIENTS = 8
RECORDS_EACH = 4
SHARDS = 4
KIB, MIB = 1024, 1024 * 1024
SIZES = {"form": 300 * KIB, "resumed": 20 * MIB, "direct": 12 * MIB}
ACTIONS = [*["form"] * 4, *["download"] * 4, "delete", "resumed", "direct"]
# An upload that its client never resumed expires, so that gc may remove it.
IDLE = 20
USER = ("alice", "secret")


class Interrupted(Exception):
    """The client's connection breaks during an upload."""


class Worker:
    """A client with its own records, which knows what may be in them.

    ``known`` has the SHA-256 hashes that a record's file may have, None for no file: one after an
    acknowledged request, two after a request that may have taken effect.
    """

    def __init__(self, url: str, number: int) -> None:
        # Real clients are patient: nginx needs seconds to exclude a dead server.
        self.client = AttachmentClient(url, "b", "c", USER, retries=Retries(8, pause=1.0))
        self.choices = random.Random(number)
        names = [f"client{number}-{index}" for index in range(RECORDS_EACH)]
        self.known: dict[str, set[str | None]] = {name: {None} for name in names}
        self.done: Counter[str] = Counter()
        self.failures: list[tuple[float, str, str]] = []  # Seconds since the start.

    def run(self, start: float, until: float) -> None:
        while time.monotonic() < until:
            action = self.choices.choice(
                ["form"] * 4 + ["download"] * 4 + ["delete", "resumed", "direct"]
            )
            begun = time.monotonic() - start
            try:
                getattr(self, action)(self.choices.choice(list(self.known)))
                self.done[action] += 1
            except (ClientError, requests.RequestException) as error:
                self.failures.append((begun, action, str(error)))

    def form(self, record: str) -> None:
        self._upload(record, "form", resumable=False)

    def direct(self, record: str) -> None:
        self._upload(record, "direct", direct=True)

    def resumed(self, record: str) -> None:
        """An upload that is interrupted and continues, possibly on the other server."""
        stop_at = self.choices.randrange(SIZES["resumed"])

        def stop(done: int, total: int) -> None:
            nonlocal stop_at
            if done >= stop_at:
                stop_at = total + 1
                raise Interrupted

        content = self._content("resumed")
        with contextlib.suppress(Interrupted):
            self._send(record, content, resumable=True, progress=stop)
        self._send(record, content, resumable=True)

    def download(self, record: str) -> None:
        target = io.BytesIO()
        try:
            self.client.download(record, target)
            found = hashlib.sha256(target.getvalue()).hexdigest()
        except NotFoundError:
            found = None
        assert found in self.known[record], (record, found, self.known[record])

    def delete(self, record: str) -> None:
        self.known[record].add(None)
        with contextlib.suppress(NotFoundError):
            self.client.remove(record)
        self.known[record] = {None}

    def _upload(self, record: str, how: str, **options: Any) -> None:
        self._send(record, self._content(how), **options)

    def _content(self, how: str) -> bytes:
        return os.urandom(self.choices.randrange(SIZES[how]))

    def _send(self, record: str, content: bytes, **options: Any) -> None:
        digest = hashlib.sha256(content).hexdigest()
        self.known[record].add(digest)
        file = io.BytesIO(content)
        file.name = "film.bin"
        attachment = self.client.upload(record, file, **options)
        assert attachment.hash == digest
        self.known[record] = {digest}


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    with cluster({"uploads.idle_age": f"{IDLE}s"}) as servers:
        for path in ("/buckets/b", "/buckets/b/collections/c"):
            requests.put(f"{servers.url}{path}", auth=USER, timeout=60).raise_for_status()
        yield servers


def test_no_acknowledged_file_is_lost(
    running: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(resuming, "CHUNK", 4 * MIB)
    workers = [Worker(running.url, number) for number in range(CLIENTS)]
    under_load(running, workers)

    done = sum((worker.done for worker in workers), Counter())
    failures = sorted(failure for worker in workers for failure in worker.failures)
    print(f"\n{dict(done)}; {len(failures)} failed: {failures[:20]}")
    assert all(done[action] for action in ("form", "resumed", "direct", "download", "delete")), (
        done
    )
    assert not [failure for failure in failures if failure[0] > RECOVERED]

    (survivor,) = [server for server in running.servers if server.process.poll() is None]
    with invariants.inside(survivor) as registry:
        load.wait_for_quiet(registry)
        assert not (lost := invariants.lost(registry)), lost
        found = {
            uri.rpartition("/")[2]: (record.get("attachment") or {}).get("hash")
            for uri, record in invariants.records(registry).items()
        }
        for worker in workers:
            for record, possible in worker.known.items():
                assert found.get(record) in possible, (record, found.get(record), possible)
        time.sleep(IDLE)
        collect_side_by_side(survivor.ini)
        assert not (lost := invariants.lost(registry)), lost
        assert not (left := invariants.left(registry)), left


def under_load(running: Cluster, workers: list[Worker]) -> None:
    """Run all workers for a while, and kill a part of the cluster twice."""
    start = time.monotonic()
    errors: list[BaseException] = []

    def run(worker: Worker) -> None:
        try:
            worker.run(start, start + SECONDS)
        except BaseException as error:  # noqa: BLE001 - raised below.
            errors.append(error)

    threads = [threading.Thread(target=run, args=(w,), daemon=True) for w in workers]
    for thread in threads:
        thread.start()
    time.sleep(KINTO_DIES)
    running.servers[0].kill()
    time.sleep(VOLUME_DIES - KINTO_DIES)
    volume = running.store.volumes[0]
    os.killpg(volume.pid, signal.SIGKILL)
    volume.wait(waiting.SECONDS)
    deadline = start + SECONDS + 2 * waiting.SECONDS
    for thread in threads:
        thread.join(deadline - time.monotonic())
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def collect_side_by_side(ini: Path) -> None:
    command = [str(ours().python.with_name("kinto-attachment")), "gc", "--json", "--really"]
    command += ["--ini", str(ini), "--grace", "0s", "--orphan-age", "0s", "--shard"]
    parts = [
        subprocess.Popen(
            [*command, f"{number}/{SHARDS}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(1, SHARDS + 1)
    ]
    for part in parts:
        out, err = part.communicate(timeout=waiting.SECONDS)
        assert part.returncode == 0, err
        assert not json.loads(out)["missing"]
