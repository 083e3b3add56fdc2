"""A process that imports what servers and commands import, and forks for each of them.

``forking.py`` starts it, and sends it jobs and their files through a socket. A fork runs its job
as Python would. This file does not import the tests, so that forks do not have them imported.
"""

from __future__ import annotations

import atexit
import codecs
import fcntl
import gc
import importlib
import io
import json
import logging
import os
import pkgutil
import runpy
import signal
import socket
import sys
import tempfile
import termios
import threading
import time
import types
import warnings
from typing import Any

BACKENDS = ("storage", "permission", "cache")
# None of them reads the environment, starts a thread or keeps a file open on import.
MODULES = (
    *("kinto.config", "kinto.core.authentication", "kinto.plugins.default_bucket"),
    *("kinto.core.views.batch", "kinto.core.views.heartbeat", "kinto.core.views.hello"),
    *("kinto.core.views.openapi", "kinto.core.views.version"),
    *(f"kinto.views.{name}" for name in ("admin", "contribute", "groups")),
    *(f"kinto.core.{name}.{kind}" for name in BACKENDS for kind in ("memory", "postgresql")),
    *("psycopg2", "plaster_pastedeploy", "pyramid.paster", "pyramid.scripts.pserve"),
    *("pyramid_tm", "requests"),
    *("waitress", "gunicorn.app.wsgiapp", "gunicorn.workers.gthread"),
    *("kinto_attachment.plugin", "kinto_attachment.storage.local", "kinto_attachment.storage.s3"),
    *("kinto_attachment.cli", "kinto_attachment.maintenance.application"),
    *(f"kinto_attachment.client.{name}_command" for name in ("upload", "download", "ls")),
)
FIRST_FILE = 3  # After the standard files.
LONGEST = 1 << 20  # Bytes of a job.


def main() -> None:
    asked = socket.socket(fileno=int(sys.argv[1]))
    quick_setup = importlib.import_module("quick_setup")
    del sys.path[0]  # The folder of both files.
    core = importlib.import_module("kinto.core")
    # Services that are defined without other origins would not answer OPTIONS requests.
    core.Service.init_from_settings(core.DEFAULT_SETTINGS)
    for name in (*MODULES, *commands()):
        importlib.import_module(name)
    quick_setup.install()
    warm_up()
    os.fsync = lambda descriptor: None  # As in the tests.
    assert len(os.listdir("/proc/self/task")) == 1, "forks would lose a thread"
    gc.collect()
    gc.freeze()  # Garbage collection would copy the memory that forks share.
    job = serve(asked)
    if job is not None:
        end(code_of(job))


def commands() -> list[str]:
    """The modules that the commands import when they are run."""
    return [
        found.name
        for name in ("kinto_attachment.commands", "kinto_attachment.commands.arguments")
        for package in [importlib.import_module(name)]
        for found in pkgutil.iter_modules(package.__path__, f"{name}.")
    ]


def warm_up() -> None:
    """Build an application and drop it, to fill caches.

    Schemas, regular expressions and the like stay; each fork builds its own application.
    """
    services = importlib.import_module("kinto.core.cornice.service").SERVICES
    imported, defined = set(sys.modules), [*services]
    backends = {f"kinto.{name}_backend": f"kinto.core.{name}.memory" for name in BACKENDS}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable()
        sys.modules["kinto"].main(
            {},
            **backends,
            **{
                "kinto.includes": "kinto.plugins.default_bucket kinto_attachment",
                "kinto.attachment.base_path": folder,
                "multiauth.policies": "basicauth",
            },
        )
        logging.disable(logging.NOTSET)
    importlib.import_module("pyramid.scripts.common").get_config_loader("kinto.ini")
    # Services of modules are defined only once, when the module is imported.
    assert not [name for name in set(sys.modules) - imported if name.startswith("kinto")]
    services[:] = defined


def code_of(job: dict[str, Any]) -> int:
    """Run the job and return its exit code. Ctrl-C is left to Python, which ends by the signal."""
    try:
        run(job)
    except SystemExit as stopped:
        if isinstance(stopped.code, int | None):
            return stopped.code or 0
        print(stopped.code, file=sys.stderr)
        return 1
    except Exception:  # noqa: BLE001 - As Python itself does.
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def serve(asked: socket.socket) -> dict[str, Any] | None:
    """Fork for each message. Returns the job in a fork, and None when the socket is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests.
    while True:
        message, files, _, _ = socket.recv_fds(asked, LONGEST, FIRST_FILE)
        if not message:
            return None
        pid = fork()
        if not pid:
            asked.detach()
            for own, file in enumerate(files):
                os.dup2(file, own)
            os.closerange(FIRST_FILE, os.sysconf("SC_OPEN_MAX"))
            job: dict[str, Any] = json.loads(message)
            return job
        for file in files:
            os.close(file)
        asked.send(str(pid).encode())


def fork() -> int:
    """Fork twice, so that the fork is not our child; returns its number, and 0 in the fork."""
    reading, writing = os.pipe()
    between = os.fork()
    if between:
        os.close(writing)
        pid = os.read(reading, 20)
        os.close(reading)
        os.waitpid(between, 0)
        return int(pid)
    between = os.getpid()
    pid = os.fork()
    if pid:
        os.write(writing, str(pid).encode())
        os._exit(0)
    while os.getppid() == between:
        time.sleep(0.0005)
    return 0


def run(job: dict[str, Any]) -> None:
    """Run the job after what Python does when it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if job["new_session"]:
        os.setsid()
    if job["terminal"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environ"])
    time.tzset()
    tempfile.tempdir = None
    for own, (name, mode) in enumerate((("stdin", "rb"), ("stdout", "wb"), ("stderr", "wb"))):
        file = text(own, mode, getattr(sys, name))
        setattr(sys, name, file)
        setattr(sys, f"__{name}__", file)
    if not job.get("warnings", True):
        warnings.simplefilter("ignore")
    how, what = job["how"], job["what"]
    folders = {"-m": job["folder"], "-c": "", "script": os.path.dirname(os.path.realpath(what))}
    path = os.environ.get("PYTHONPATH")
    sys.path[:0] = [folders[how], *(path.split(":") if path else ())]
    sys.argv = [what if how == "script" else how, *job["arguments"]]
    {"-m": run_module, "-c": run_code, "script": run_script}[how](what)


def text(file: int, mode: str, like: Any) -> io.TextIOWrapper:
    """Open a standard file as Python does, depending on its kind."""
    chosen = os.environ.get("PYTHONIOENCODING", "").partition(":")
    errors = "backslashreplace" if file == 2 else chosen[2] or "strict"
    unbuffered = mode == "wb" and like.write_through
    buffering = 0 if unbuffered else -1
    binary = open(file, mode, buffering, closefd=False)  # noqa: SIM115 - Open until the end.
    return io.TextIOWrapper(
        binary,  # type: ignore[arg-type]
        encoding=codecs.lookup(chosen[0]).name if chosen[0] else like.encoding,
        errors=errors if any(chosen) else like.errors,
        line_buffering=like.line_buffering or os.isatty(file),
        write_through=unbuffered,
    )


def end(code: int) -> None:
    """Do what Python does when it ends, but free no objects, which would copy all memory."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


def run_module(name: str) -> None:
    # It runs again, as __main__.
    sys.modules.pop(name, None)
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def run_code(code: str) -> None:
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(code, "<string>", "exec"), module.__dict__)


def run_script(path: str) -> None:
    runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    main()
