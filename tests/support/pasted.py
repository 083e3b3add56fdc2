"""Commands of the documents in a shell, where the Python programs are forks (``forking``).

:func:`environ` puts a program for each of them at the front of ``PATH``. It sends its arguments,
environment, folder and standard files to this process, which forks, and it ends like the fork.
The fork is stopped when the program has ended. Programs that are not forked spend most of a
second on imports.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

from tests.support import forking, waiting

BIN = Path(sys.executable).parent
NAMES = ("kinto-attachment", "gunicorn", "http")
LONGEST = 1 << 20  # Bytes of a job.

# Isolated, and without the packages of the environment, Python starts in 15 milliseconds.
PROGRAM = """\
#!{python} -IS
import _socket, array, marshal, os, sys
words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
job = marshal.dumps((words, dict(os.environ), os.getcwd()))
files = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", (0, 1, 2)))
asked = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
asked.connect({address!r})
asked.sendmsg([job], [files])
os._exit(int(asked.recv(10) or 1))
"""


@contextlib.contextmanager
def environ(**variables: str) -> Iterator[dict[str, str]]:
    """The environment of a shell that has our programs, with additional variables."""
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    if not forking.forks.enabled():
        yield {**os.environ, "PATH": path, **variables}
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asked,
    ):
        address = str(Path(folder, "asked"))
        asked.bind(address)
        asked.listen()
        for name in NAMES:
            program = Path(folder, name)
            program.write_text(PROGRAM.format(python=sys.executable, address=address))
            program.chmod(0o755)
        server = Thread(target=serve, args=(asked,), daemon=True)
        server.start()
        try:
            yield {**os.environ, "PATH": os.pathsep.join([folder, path]), **variables}
        finally:
            asked.shutdown(socket.SHUT_RDWR)
            waiting.join(server)


def serve(asked: socket.socket) -> None:
    """Run the jobs of the programs until the socket is shut down."""
    running = []
    with contextlib.suppress(OSError):
        while True:
            connection, _ = asked.accept()
            running.append(Thread(target=run, args=(connection,), daemon=True))
            running[-1].start()
    waiting.join(*running)


def run(connection: socket.socket) -> None:
    with connection:
        message, files, _, _ = socket.recv_fds(connection, LONGEST, 3)
        (name, *words), variables, folder = marshal.loads(message)
        standard: dict[str, Any] = dict(zip(("stdin", "stdout", "stderr"), files, strict=True))
        command = [sys.executable, str(BIN / name), *words]
        with forking.Popen(command, env=variables, cwd=folder, **standard) as process:
            for file in files:
                os.close(file)
            ended = os.pidfd_open(process.pid)
            try:
                first, _, _ = select.select([ended, connection], [], [], waiting.SECONDS)
            finally:
                os.close(ended)
            if connection in first or not first:
                process.terminate()
            code = process.wait(waiting.SECONDS)
        with contextlib.suppress(OSError):  # The program may have ended.
            connection.send(str(code if code >= 0 else 128 - code).encode())
