"""The scripts, run as processes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinto_attachment.client import (
    create_account_command,
    delete_command,
    download_command,
    upload_command,
)
from tests.support import ROOT, forking, live, waiting
from tests.support.faults import HOST, FaultProxy

AUTH = ("alice", "secret")
TIMEOUT = 120  # Seconds.
MAINS = {
    "upload.py": upload_command.main,
    "download.py": download_command.main,
    "delete.py": delete_command.main,
    "create_account.py": create_account_command.main,
}


@dataclass(frozen=True)
class Done:
    """How a process ended; ``memory`` is its peak, in bytes."""

    code: int
    out: str
    err: str
    memory: int = 0

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines that it printed with ``--json``, without the summary."""
        return [line for line in map(json.loads, self.out.splitlines()) if "summary" not in line]

    @property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads(self.out.splitlines()[-1])["summary"]
        return summary

    def results(self) -> dict[str, str]:
        """The results by filename."""
        return {os.path.basename(line["file"]): line["result"] for line in self.lines}


@dataclass(frozen=True)
class Script:
    """One of the scripts, on a collection of a server."""

    name: str
    url: str
    bucket: str
    collection: str
    temporary: Path

    @classmethod
    def of(
        cls,
        name: str,
        server: live.Server | FaultProxy,
        collection: str,
        temporary: Path,
        bucket: str = "default",
    ) -> Script:
        """``temporary`` is the folder for temporary files of this process only."""
        temporary.mkdir(exist_ok=True)
        return cls(name, f"http://{HOST}:{server.port}/v1", bucket, collection, temporary)

    def command(self, *arguments: object) -> list[str]:
        return [
            *(sys.executable, str(ROOT / "scripts" / self.name)),
            *("--server", self.url, "--auth", ":".join(AUTH)),
            *("--bucket", self.bucket, "--collection", self.collection),
            *map(str, arguments),
        ]

    @property
    def environ(self) -> dict[str, str]:
        cache = self.temporary.with_name("cache")  # For unfinished uploads.
        folders = {"TMPDIR": str(self.temporary), "XDG_CACHE_HOME": str(cache)}
        return {**os.environ, **folders, "TERM": "xterm", "COLUMNS": "120"}

    def run(self, *arguments: object) -> Done:
        """Run it until it ends, with its output in pipes."""
        with self.started(*arguments) as process:
            out, err = process.communicate(timeout=TIMEOUT)
        return Done(process.returncode, out, err)

    def call(self, *arguments: object) -> Done:
        """Run it in this process, for tests that are not about processes."""
        main = MAINS[self.name]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(self.command(*arguments)[2:])
            except SystemExit as stopped:  # argparse does so.
                code = stopped.code
        return Done(code, out.getvalue(), err.getvalue())

    @contextlib.contextmanager
    def started(self, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        """The process, which is killed at the end of the block if it still runs."""
        process = forking.Popen(
            self.command(*arguments),
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def measured(self, *arguments: object) -> Done:
        """Run it until it ends, and measure its memory."""
        with (
            (self.temporary / "out").open("w+") as out,
            (self.temporary / "err").open("w+") as err,
        ):
            process = forking.Popen(
                self.command(*arguments), env=self.environ, stdout=out, stderr=err
            )
            status, usage = waiting.ended(process.pid)
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            err.seek(0)
            return Done(process.returncode, out.read(), err.read(), usage.ru_maxrss * 1024)

    def in_terminal(self, *arguments: object, press: Press | None = None) -> Done:
        """Run it in a terminal of 120 columns; ``press`` types a key at some point."""
        keyboard, screen = pty.openpty()
        process = forking.Popen(
            self.command(*arguments),
            env=self.environ,
            stdin=screen,
            stdout=screen,
            stderr=screen,
            start_new_session=True,
            terminal=True,
        )
        os.close(screen)
        try:
            shown = _read(keyboard, process, press)
        finally:
            os.close(keyboard)
            if process.poll() is None:
                process.kill()
            process.wait(waiting.SECONDS)
        return Done(process.returncode, shown, "")


@dataclass
class Press:
    """Types ``key`` once ``proxy`` has stopped the traffic and ``text`` is on the screen."""

    key: bytes
    proxy: FaultProxy
    text: str
    pressed: bool = False

    def look(self, keyboard: int, shown: str) -> None:
        if not self.pressed and self.text in shown and self.proxy.broken.is_set():
            os.write(keyboard, self.key)
            self.pressed = True


def _read(keyboard: int, process: subprocess.Popen[bytes], press: Press | None) -> str:
    shown = b""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        ready, _, _ = select.select([keyboard], [], [], 0.1)
        if ready:
            try:
                piece = os.read(keyboard, 65536)
            except OSError:  # No process has the terminal open any more.
                break
            shown += piece
        if press:
            press.look(keyboard, shown.decode(errors="replace"))
    process.wait(waiting.SECONDS)
    return shown.decode()
