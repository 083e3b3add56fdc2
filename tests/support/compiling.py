"""Compiles the test files once, instead of in each process of pytest-xdist.

pytest rewrites their assertions, which takes seven seconds of processor time in a fresh
checkout. Without this, all processes would do so at the same time.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT, waiting


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    """Before the processes start, import the files that are not yet compiled, in forks."""
    if sys.dont_write_bytecode:
        return
    names = [name_of(path) for path in sorted(ROOT.glob("tests/**/test_*.py")) if is_new(path)]
    count = min(len(specs), os.cpu_count() or 1)
    context = multiprocessing.get_context("fork")
    forks = [context.Process(target=import_all, args=[names[n::count]]) for n in range(count)]
    for fork in forks if names else ():
        fork.start()
    for fork in forks if names else ():
        fork.join(waiting.SECONDS)
        fork.kill()


def is_new(path: Path) -> bool:
    return not any((path.parent / "__pycache__").glob(f"{path.stem}.*-pytest-*.pyc"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def import_all(names: list[str]) -> None:
    os.setsid()  # Ctrl-C is for the tests.
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException:  # noqa: BLE001 - Reported when the tests are collected.
            continue
