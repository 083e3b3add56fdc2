"""The shared setup of applications in tests (``tests/support/quick_setup.py``) changes none."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

from tests.support import ROOT, application, forking, waiting

THREADS = 4
# Each has its own route.
PATHS = (
    *("/", "/__api__", "/batch", "/permissions", "/contribute.json"),
    *("/buckets", "/buckets/b", "/buckets/b/collections", "/buckets/b/collections/c"),
    *("/buckets/b/groups", "/buckets/b/groups/g", "/buckets/b/collections/c/records"),
    *("/buckets/b/collections/c/records/r", "/buckets/b/collections/c/records/r/attachment"),
    *("/buckets/b/history", "/buckets/b/history/h"),
)


def built(count: int, folder: Path, *, fork: bool) -> Any:
    command = [sys.executable, "-m", "tests.support.built", str(count), str(folder)]
    done = forking.run(
        command,
        fork=fork,
        cwd=ROOT,
        timeout=waiting.SECONDS,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def test_it_builds_the_same_application(tmp_path: Path) -> None:
    """The second one in a process reuses results of the first one."""
    quick = built(2, tmp_path, fork=True)
    as_ever = built(1, tmp_path, fork=False)
    assert quick.keys() == as_ever.keys()
    for name, there in as_ever.items():
        assert there, name
        assert quick[name] == there, name


def test_requests_meet_that_ask_for_a_view_first(tmp_path: Path) -> None:
    """Each of them finds the view, and not another one."""
    apps = [
        application.make_app(
            {"base_path": str(tmp_path), "max_size": str(number)}, application.MEMORY
        )
        for number in range(4)
    ]
    alone = apps.pop()
    expected = {ask(alone, path) for path in PATHS}
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # Seconds.
    try:
        with ThreadPoolExecutor(THREADS) as threads:
            for app in apps:
                together = Barrier(THREADS)
                for path in PATHS:
                    asked = [threads.submit(ask, app, path, together) for _ in range(THREADS)]
                    assert {each.result(waiting.SECONDS) for each in asked} <= expected
    finally:
        sys.setswitchinterval(interval)


def ask(app: Any, path: str, together: Barrier | None = None) -> tuple[str, int]:
    if together is not None:
        together.wait(waiting.SECONDS)
    return path, app.get(path, headers=application.ALICE, status="*").status_code
