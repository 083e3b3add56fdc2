"""The servers to measure: Kinto on gunicorn or waitress, and nginx."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from benchmarks.client import Client
from tests.support.environments import Environment
from tests.support.faults import HOST

Engine = Literal["gunicorn", "waitress"]
START_TIMEOUT = 60.0

INI = """\
[server:main]
use = egg:waitress#main
host = 127.0.0.1
port = {port}
{waitress}

[app:main]
use = egg:kinto
kinto.includes = kinto.plugins.default_bucket
                 kinto_attachment
kinto.userid_hmac_secret = benchmark
kinto.bucket_create_principals = system.Authenticated
multiauth.policies = basicauth
multiauth.policy.basicauth.use = kinto.core.authentication.BasicAuthAuthenticationPolicy
{settings}

[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys =
[logger_root]
level = WARNING
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
"""


class Missing(Exception):
    """A program that a row needs is not installed."""


@dataclass(frozen=True)
class Kinto:
    """A running server."""

    name: str
    port: int
    folder: Path
    files: Path
    process: subprocess.Popen[bytes]

    def client(self) -> Client:
        return Client(self.port)

    def workers(self) -> list[psutil.Process]:
        """The processes that answer requests: gunicorn's children or waitress itself."""
        main = psutil.Process(self.process.pid)
        return main.children() or [main]


def free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def kinto(
    environment: Environment,
    folder: Path,
    *,
    engine: Engine = "gunicorn",
    database: str | None = None,
    workers: int = 1,
    threads: int = 8,
    storage: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    waitress: Mapping[str, str] | None = None,
) -> Iterator[Kinto]:
    """Kinto with the plugin of ``environment``, in memory unless there is a ``database``.

    ``storage`` and ``settings`` are the plugin's, without their prefix. By default, it stores
    files in a folder. ``waitress`` has the settings of that server.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "files"
    files.mkdir(exist_ok=True)
    port = free_port()
    ini = folder / "kinto.ini"
    plugin = {
        "base_url": "http://127.0.0.1/files/",
        **(storage or {"base_path": str(files)}),
        **(settings or {}),
    }
    ini.write_text(
        INI.format(
            port=port,
            waitress=_lines(waitress or {}),
            settings=_lines({**_prefixed(plugin), **_backends(database)}),
        )
    )
    if engine == "gunicorn":
        command = _gunicorn(environment, ini, port, workers, threads)
    else:
        command = [str(environment.python.with_name("kinto")), "start", "--ini", str(ini)]
        command += ["--port", str(port), "-q"]
    with running(command, folder) as process:
        server = Kinto(environment.name, port, folder, files, process)
        wait(server)
        yield server


def _lines(settings: Mapping[str, str]) -> str:
    return "\n".join(f"{name} = {value}" for name, value in settings.items())


def _prefixed(plugin: Mapping[str, str]) -> dict[str, str]:
    return {f"kinto.attachment.{name}": value for name, value in plugin.items()}


def _backends(database: str | None) -> dict[str, str]:
    names = ("storage", "permission", "cache")
    if database is None:
        return {f"kinto.{name}_backend": f"kinto.core.{name}.memory" for name in names}
    backends = {f"kinto.{name}_backend": f"kinto.core.{name}.postgresql" for name in names}
    return {**backends, **{f"kinto.{name}_url": database for name in names}}


def _gunicorn(
    environment: Environment, ini: Path, port: int, workers: int, threads: int
) -> list[str]:
    app = ini.with_name("app.py")
    app.write_text(
        "from pyramid.paster import get_app, setup_logging\n"
        f"setup_logging({str(ini)!r})\n"
        f"application = get_app({str(ini)!r})\n"
    )
    return [
        *(str(environment.python), "-m", "gunicorn", "-k", "gthread", "-b", f"127.0.0.1:{port}"),
        *("-w", str(workers), "--threads", str(threads), "--timeout", "300"),
        *("--keep-alive", "30", "--log-level", "warning", "--no-control-socket"),
        *("--pythonpath", str(ini.parent), "app:application"),
    ]


@contextlib.contextmanager
def running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    # Not in our folder, from which a peer would import our checkout.
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait(server: Kinto) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and server.process.poll() is None:
        with contextlib.suppress(OSError), server.client() as client:
            client.expect(200, "GET", "/v1/__lbheartbeat__")
            return
        time.sleep(0.05)
    print((server.folder / "log").read_text("utf-8", "replace")[-3000:], file=sys.stderr)
    raise RuntimeError(f"{server.name} does not start")
