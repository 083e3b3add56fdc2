"""What the tests do once for all applications (``tests/support/quick_setup.py``) changes none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support import ROOT, forking, waiting


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
    """The second one in a process takes what the first one has left to it."""
    quick = built(2, tmp_path, fork=True)
    as_ever = built(1, tmp_path, fork=False)
    assert quick.keys() == as_ever.keys()
    for name, there in as_ever.items():
        assert there, name
        assert quick[name] == there, name
