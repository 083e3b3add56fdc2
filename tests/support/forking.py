"""Python processes that start with everything imported, as forks of a process that imported it.

``Popen`` and ``run`` work like those of :mod:`subprocess`. A command that runs Python with our
packages is forked (``forkserver.py``), which saves a second of processor time; others are started
as usual. A fork has its own arguments, environment, folder, files, session and process group. It
is a child of this process, which can signal it and wait for it. ``fork=False`` starts Python.

Nothing is forked outside pytest, with ``--every-case``, or where coverage is measured.
"""

from __future__ import annotations

import ctypes
import fcntl
import inspect
import json
import os
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT, sampling

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2).
START_TIMEOUT = 180  # Seconds; the machine may be busy.
# Coverage is measured from the start of a Python process.
MEASURED = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
# Python reads these only when it starts.
EARLY = ("PYTHON", "LANG", "LC_", "LD_")
# A fork reads these itself.
LATE = ("PYTHONPATH", "PYTHONIOENCODING")
# Parameters that a fork does not support, with their values that do nothing.
ORDINARY = {
    "executable": None,
    "preexec_fn": None,
    "close_fds": True,
    "pass_fds": (),
    "shell": False,
    "gid": None,
    "gids": None,
    "uid": None,
    "umask": -1,
    "process_group": -1,
}
PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
PARAMETERS = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]

_libc = ctypes.CDLL(None, use_errno=True)


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """``terminal``: the standard input is a terminal, which controls the process's session."""

    def __init__(
        self, args: Sequence[Any], *, fork: bool = True, terminal: bool = False, **options: Any
    ) -> None:
        self._may_fork, self._terminal = fork, terminal
        if terminal and not (fork and forks.enabled()):
            options["preexec_fn"] = take_terminal
        super().__init__(args, **options)

    def _execute_child(self, *args: Any) -> None:
        given = PARAMETERS.bind(self, *args).arguments
        job = job_of(given) if self._may_fork and forks.enabled() else None
        if job is None:
            super()._execute_child(*args)  # type: ignore[misc]
            return
        job["terminal"] = self._terminal
        files = [given["p2cread"], given["c2pwrite"], given["errwrite"]]
        self.pid = forks.start(job, [own if fd == -1 else fd for own, fd in enumerate(files)])
        self._child_created = True
        self._close_pipe_fds(*(given[name] for name in PIPES))  # type: ignore[attr-defined]


def take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def run(
    command: Sequence[Any],
    *,
    timeout: float,
    capture_output: bool = False,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(command, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def job_of(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """The job of a fork for the arguments of :class:`Popen`; None if a fork cannot do it."""
    if any(given.get(name, usual) != usual for name, usual in ORDINARY.items()):
        return None
    environ = dict(os.environ if given["env"] is None else given["env"])
    program = program_of(list(map(os.fspath, given["args"])))
    if program is None or early(environ) != early(os.environ):
        return None
    return {
        **program,
        "environ": environ,
        "folder": os.path.abspath(given["cwd"] or ""),
        "new_session": given["start_new_session"],
    }


def program_of(words: list[str]) -> dict[str, Any] | None:
    """What this Python would run: a module, some code, or a script; None for other programs."""
    if words[0] != sys.executable:
        words = [sys.executable, *words] if is_script(Path(words[0])) else words
    match words:
        case [sys.executable, "-W", "ignore", *rest]:
            program = program_of([sys.executable, *rest])
            return program and {**program, "warnings": False}
        case [sys.executable, "-m" | "-c" as how, what, *arguments]:
            return {"how": how, "what": what, "arguments": arguments}
        case [sys.executable, what, *arguments] if not what.startswith("-"):
            return {"how": "script", "what": what, "arguments": arguments}
    return None


def is_script(path: Path) -> bool:
    """Whether pip has installed this script beside this Python."""
    if path.parent != Path(sys.executable).parent or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.readline().strip() == b"#!" + os.fsencode(sys.executable)


def early(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(EARLY) and name not in LATE
    }


class Forks:
    """The process that forks, which is started for the first fork, and requests to it."""

    def __init__(self) -> None:
        self.wanted = False
        self.owner = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = threading.Lock()

    def enabled(self) -> bool:
        """False in a child of this process, since forks would not be children of that child."""
        return self.wanted and self.owner == os.getpid()

    def start(self, job: dict[str, Any], files: list[int]) -> int:
        """Fork a process with these standard files; returns its number."""
        with self.lock:
            if self.process is None:
                self._begin()
            # A process whose parent has ended becomes our child.
            _libc.prctl(SUBREAPER, 1, 0, 0, 0)
            try:
                socket.send_fds(self.socket, [json.dumps(job).encode()], files)
                return int(self.socket.recv(100))
            finally:
                _libc.prctl(SUBREAPER, 0, 0, 0, 0)

    def _begin(self) -> None:
        # Each job is one message.
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(START_TIMEOUT)
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        server = ROOT / "tests" / "support" / "forkserver.py"
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, str(server), str(theirs.fileno())],
                env=environ,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def end(self) -> None:
        if self.process is not None:
            self.socket.close()
            self.process.wait(START_TIMEOUT)
            self.process = None


forks = Forks()


@pytest.hookimpl(trylast=True)  # After sampling has read its option.
def pytest_configure() -> None:
    measured = any(name in os.environ for name in MEASURED)
    forks.wanted = not sampling.every_case() and not measured
    forks.owner = os.getpid()


def pytest_unconfigure() -> None:
    forks.wanted = False
    forks.end()
