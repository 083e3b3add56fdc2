"""Kinto with attachments as in production: processes, threads, sockets.

Plain Python, usable without pytest::

    with live.kinto({"base_path": "/tmp/files"}, engine="waitress") as server:
        requests.get(server.url)
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import psutil

from tests.support import ROOT, environments, forking, waiting
from tests.support.application import ALICE, Part, form
from tests.support.environments import Environment
from tests.support.faults import HOST
from tests.support.services import _folder, _free_port, _reaper, _wait

Engine = Literal["gunicorn", "waitress"]

STOP_TIMEOUT = 10  # Seconds.

INI = """\
[server:main]
use = egg:waitress#main
host = 127.0.0.1
port = %(http_port)s
threads = {threads}
# Waitress refuses bodies of more than 1 GiB otherwise.
max_request_body_size = 1099511627776

[app:main]
use = egg:kinto
{settings}

[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = WARNING
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain
[formatter_plain]
format = %(process)d %(levelname)s %(name)s %(message)s
"""

DEFAULTS = {
    "kinto.userid_hmac_secret": "test",
    "kinto.default_bucket_hmac_secret": "test",
    "kinto.bucket_create_principals": "system.Authenticated",
    "multiauth.policies": "basicauth",
    "kinto.attachment.extensions": "any",
}


@dataclass(frozen=True)
class Server:
    """A running Kinto; ``url`` ends with ``/v1``, without a slash."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> tuple[str, int]:
        return HOST, self.port

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    @property
    def ini(self) -> Path:
        """The configuration, for programs that are run beside the server."""
        return self.folder / "kinto.ini"

    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", "replace")

    def workers(self) -> list[psutil.Process]:
        """The processes that handle requests: gunicorn's children, or waitress itself."""
        main = psutil.Process(self.process.pid)
        return main.children() or [main]

    def kill(self) -> None:
        """Kill all processes at once, as the kernel does when memory runs out."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(waiting.SECONDS)

    def kill_workers(self, only: int | None = None) -> int:
        """Kill all workers, or ``only`` so many; gunicorn replaces them. Returns how many."""
        workers = [worker for worker in self.workers() if worker.pid != self.process.pid]
        workers = workers[:only]
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        return len(workers)

    def wait(self) -> None:
        """Wait until it answers (again)."""
        if not _wait(self.process, f"{self.url}/__lbheartbeat__"):
            raise RuntimeError(f"Kinto does not answer:\n{self.log()[-4000:]}")


class Listener(Protocol):
    """What a client needs to know about a server."""

    @property
    def address(self) -> tuple[str, int]: ...


class Client:
    """One keep-alive connection of alice; paths are without the API's version.

    ``below`` is the path of another application of the server.
    """

    def __init__(self, server: Listener, below: str = "") -> None:
        self.below = below
        self.connection = http.client.HTTPConnection(*server.address, timeout=waiting.SECONDS)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON."""
        headers = {**ALICE, **(headers or {})}
        chunked = "Transfer-Encoding" in headers
        url = f"{self.below}/v1{path}"
        self.connection.request(method, url, body, headers, encode_chunked=chunked)
        response = self.connection.getresponse()
        content = response.read()
        if body and response.status >= 400:
            # A server that has not read the body may close the connection soon.
            self.connection.close()
        is_json = "json" in response.headers.get("Content-Type", "")
        return (
            response.status,
            dict(response.headers),
            json.loads(content) if content and is_json else content,
        )

    def put(self, path: str, data: Any = None) -> int:
        body = json.dumps({"data": data or {}})
        return self.request("PUT", path, body, {"Content-Type": "application/json"})[0]

    def attach(
        self, record: str, content: bytes, filename: str = "a.bin", **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        body, content_type = form(Part("attachment", content, filename))
        headers = {"Content-Type": content_type, **headers}
        return self.request("POST", f"{record}/attachment", body, headers)


@contextlib.contextmanager
def kinto(
    attachment: Mapping[str, str],
    *,
    engine: Engine = "gunicorn",
    workers: int = 1,
    threads: int = 8,
    database: str | None = None,
    includes: Iterable[str] = ("kinto.plugins.default_bucket",),
    settings: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    preload: bool = False,
    environment: Environment | None = None,
    fork: bool = True,
    others: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[Server]:
    """Run Kinto until the end of the ``with`` block.

    ``attachment`` are the plugin's settings without their prefix; ``settings`` are others, in
    full. Records are in memory (one worker only), or in a ``database`` that has Kinto's schema.
    With ``preload``, a worker that was killed is replaced within milliseconds. ``environment`` is
    that of another release. In pytest, the process is a fork (``forking``) by default. ``others``
    are more applications in the same process, on waitress: the plugin's settings of each, by the
    name of its path.
    """
    environment = environment or environments.ours()
    assert database or workers == 1, "workers share nothing but a database"
    with _folder("kinto") as folder:
        ini = folder / "kinto.ini"
        text = _ini(attachment, database, includes, settings or {}, threads)
        for name, attached in (others or {}).items():
            other = _ini(attached, database, includes, settings or {}, threads)
            text = _with_other(text, name, other)
        ini.write_text(text)
        if others:
            shutil.copy(ROOT / "tests" / "support" / "below.py", folder)
        port = _free_port()
        command = _command(environment.python, engine, ini, port, workers, threads)
        command += ["--preload"] if preload else []
        with (folder / "log").open("wb") as log:
            process = forking.Popen(
                command,
                fork=fork,
                env={
                    **os.environ,
                    "TMPDIR": str(folder),
                    "PYTHONPATH": str(folder) if others else environment.path,
                    **(environ or {}),
                },
                # Python also finds modules in the current folder.
                cwd=None if environment.path else folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        server = Server(port, folder, process)
        with _reaper(-process.pid, "KILL", folder):
            try:
                server.wait()
                yield server
            finally:
                _stop(server)


def peak_over_idle(server: Server, before: Mapping[int, int]) -> int:
    """The growth of the worker that grew most, in bytes since :func:`idle_memory`."""
    return max(_memory(pid, "VmHWM") - idle for pid, idle in before.items())


def idle_memory(server: Server) -> dict[int, int]:
    """The resident memory of each worker now; the kernel records the peak from here on."""
    memory = {}
    for worker in server.workers():
        Path(f"/proc/{worker.pid}/clear_refs").write_text("5")  # proc(5): resets the peak.
        memory[worker.pid] = worker.memory_info().rss
    return memory


def _memory(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise LookupError(field)


def _ini(
    attachment: Mapping[str, str],
    database: str | None,
    includes: Iterable[str],
    settings: Mapping[str, str],
    threads: int,
) -> str:
    kind = "postgresql" if database else "memory"
    lines = {
        **DEFAULTS,
        "kinto.includes": " ".join([*includes, "kinto_attachment"]),
        **{f"kinto.attachment.{name}": value for name, value in attachment.items()},
    }
    for name in ("storage", "permission", "cache"):
        lines[f"kinto.{name}_backend"] = f"kinto.core.{name}.{kind}"
        if database:
            lines[f"kinto.{name}_url"] = database
    lines.update(settings)
    text = "\n".join(f"{name} = {value.replace('%', '%%')}" for name, value in lines.items())
    return INI.format(settings=text, threads=threads)


def _with_other(text: str, name: str, other: str) -> str:
    """A configuration with the application of another one added to its own."""
    if "[composite:main]" not in text:
        composite = "[composite:main]\nuse = call:below:make\nmain = usual\n\n[app:usual]"
        text = text.replace("[app:main]", composite)
    text = text.replace("\nmain = usual", f"\nmain = usual\n{name} = {name}")
    application = other.partition("[app:main]")[2].partition("[loggers]")[0]
    return text.replace("[loggers]", f"[app:{name}]{application}[loggers]", 1)


def _command(
    python: Path, engine: Engine, ini: Path, port: int, workers: int, threads: int
) -> list[str]:
    if engine == "waitress":
        kinto = str(python.with_name("kinto"))
        return [kinto, "start", "--ini", str(ini), "--port", str(port), "--quiet"]
    app = ini.with_name("app.py")
    app.write_text(
        "from pyramid.paster import get_app, setup_logging\n"
        f"setup_logging({str(ini)!r}, {{'http_port': '{port}'}})\n"
        f"application = get_app({str(ini)!r}, options={{'http_port': '{port}'}})\n"
    )
    return [
        *(str(python), "-m", "gunicorn", "--worker-class", "gthread"),
        *("--bind", f"{HOST}:{port}", "--workers", str(workers), "--threads", str(threads)),
        *("--timeout", "60", "--graceful-timeout", "5", "--keep-alive", "30"),
        *("--log-level", "warning", "--no-control-socket"),
        *("--pythonpath", str(ini.parent), "app:application"),
    ]


def _stop(server: Server) -> None:
    server.process.terminate()  # A clean stop, so that coverage gets its data.
    deadline = time.monotonic() + STOP_TIMEOUT
    while server.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    server.kill()
