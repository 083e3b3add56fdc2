"""Forked processes (``tests/support/forking.py``) behave like those that Python starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import forking, waiting

LOOK = """
import json, logging, os, random, signal, sys, tempfile, threading, warnings
found = {
    "arguments": sys.argv,
    "environ": dict(os.environ),
    "folder": os.getcwd(),
    "temporary": tempfile.gettempdir(),
    "parent": os.getppid(),
    "in session": os.getsid(0) == os.getpid(),
    "path": sys.path,
    "main": __name__,
    "own main": sys.modules["__main__"].__dict__ is globals(),
    "files": sorted(os.listdir("/proc/self/fd")),
    "input": sys.stdin.read(),
    "ctrl-c": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "threads": threading.active_count(),
    "handlers": len(logging.getLogger().handlers),
    "streams": [
        (each.encoding, each.errors, each.line_buffering)
        for each in (sys.stdin, sys.stdout, sys.stderr)
    ],
}
print(json.dumps(found))
warnings.warn("to the other one")
sys.exit(7)
"""

# Whether each service of Kinto itself allows a page of another origin.
SERVICES = """
import json, warnings
import kinto
from webob import Request

warnings.simplefilter("ignore")
backends = {f"kinto.{each}_backend": f"kinto.core.{each}.memory"
            for each in ("storage", "permission", "cache")}
app = kinto.main({}, **backends)
headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
found = {}
for path in ("/", "/batch", "/__api__", "/__heartbeat__", "/buckets"):
    response = Request.blank(f"/v1{path}", method="OPTIONS", headers=headers).get_response(app)
    found[path] = response.headers.get("Access-Control-Allow-Origin")
print(json.dumps(found))
"""


ENCODINGS = ["latin-1", "ascii:replace"]


def look(command: list[str], fork: bool, **options: Any) -> tuple[Any, str, int]:
    process = forking.Popen(
        command,
        fork=fork,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    out, err = process.communicate("typed", timeout=waiting.SECONDS)
    return json.loads(out), err, process.returncode


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "look.py"
    path.write_text(LOOK)
    return path


@pytest.mark.parametrize("session", [False, True])
@pytest.mark.parametrize("how", ["code", "module", "script", "quiet", *ENCODINGS])
def test_it_finds_the_same(script: Path, how: str, session: bool) -> None:
    words = {
        "code": ["-c", LOOK],
        "module": ["-m", "look"],
        "script": [str(script)],
        "quiet": ["-W", "ignore", "-c", LOOK],
    }.get(how, ["-c", LOOK])
    environ = {**os.environ, "PYTHONPATH": "/nowhere", "TMPDIR": "/", "NEW": "ü"}
    del environ["HOME"]
    if how in ENCODINGS:
        environ["PYTHONIOENCODING"] = how
    forked, started = (
        look(
            [sys.executable, *words, "a", "--b"],
            fork,
            cwd=script.parent,
            env=environ,
            start_new_session=session,
        )
        for fork in (True, False)
    )
    assert forked == started
    assert forked[0]["parent"] == os.getpid()


def test_it_is_a_fork() -> None:
    code = "import sys; print('kinto' in sys.modules)"
    done = forking.run([sys.executable, "-c", code], capture_output=True, timeout=waiting.SECONDS)
    assert done.stdout == (b"True\n" if forking.forks.enabled() else b"False\n")


def test_its_services_answer_pages_of_other_origins() -> None:
    """They are defined on import, before there are settings."""
    found, _, _ = look([sys.executable, "-c", SERVICES], fork=True)
    assert len(found) == 5
    assert set(found.values()) == {"*"}, found


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_by_a_signal(end: signal.Signals) -> None:
    code = "import time; print('here', flush=True); time.sleep(60)"
    with forking.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert waiting.line_of(process) == b"here\n"
        process.send_signal(end)
        process.communicate(timeout=waiting.SECONDS)
    assert process.returncode == -end


def test_an_error_is_told() -> None:
    done = forking.run(
        [sys.executable, "-c", "1 / 0"], capture_output=True, timeout=waiting.SECONDS
    )
    assert done.returncode == 1
    assert done.stderr.endswith(b"ZeroDivisionError: division by zero\n")


def test_a_text_is_told_instead_of_a_code() -> None:
    code = "import sys; sys.exit('This is why.')"
    done = forking.run([sys.executable, "-c", code], capture_output=True, timeout=waiting.SECONDS)
    assert done.returncode == 1
    assert done.stderr == b"This is why.\n"


def test_it_begins_with_other_numbers() -> None:
    code = "import random, uuid; print(random.random(), uuid.uuid4())"
    command = [sys.executable, "-c", code]
    first, second = (
        forking.run(command, capture_output=True, timeout=waiting.SECONDS).stdout for _ in range(2)
    )
    assert first != second
