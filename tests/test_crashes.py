"""A test that hangs ends its process: it is reported, not run again, and the others run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT, waiting

TESTS = """
import ctypes

def test_before(): pass
def test_that_hangs_in_c(): ctypes.PyDLL(None).pause()
def test_after(): pass
"""


def test_it_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    options = ["faulthandler_timeout=4", "faulthandler_exit_on_timeout=true"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-n", "1", "--dist", "loadfile"),
            *("-p", "xdist.plugin", "-p", "tests.support.crashes", "-p", "no:cacheprovider"),
            *(argument for option in options for argument in ("-o", option)),
            # Without the short summary, which repeats messages or not, by the terminal's width.
            *("-rN", "--rootdir", str(tmp_path), str(tmp_path)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=waiting.SECONDS,
    )
    assert "1 failed, 2 passed" in done.stdout, done.stdout
    assert done.stdout.count("crashed while running 'test_it.py::test_that_hangs_in_c'") == 1
    assert 'test_it.py", line 5 in test_that_hangs_in_c' in done.stderr
