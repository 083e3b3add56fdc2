"""Change one thing at a time in source files, and see whether the tests notice: ``make mutants``.

Everything happens in a copy of the project: the files in the work tree are only read.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import psutil
from cosmic_ray import commands
from cosmic_ray.mutating import mutate_and_test, mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkResult

from tests.support import ROOT, waiting

NOT_COPIED = shutil.ignore_patterns(
    *(".git", ".venv*", "node_modules", "var", "build", "dist", "*.egg-info"),
    *("__pycache__", ".*_cache", ".cache", ".coverage*"),
)
# A bar is nearly always part of a type, which is not evaluated.
LEFT_OUT = re.compile("ReplaceBinaryOperator_BitOr_")
SLOWER = 4  # Times as long as without a mutant: then the tests count as hanging, and failed.


@contextlib.contextmanager
def copy_of_the_project() -> Iterator[None]:
    """Work in a copy that Python imports from; remove it and end its processes afterwards."""
    before = Path.cwd()
    for interrupt in (signal.SIGINT, signal.SIGTERM):  # A shell may ignore SIGINT.
        signal.signal(interrupt, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="kinto-attachment-mutants-") as folder:
        copy = Path(folder) / "project"
        shutil.copytree(ROOT, copy, ignore=NOT_COPIED)
        os.environ["PYTHONPATH"] = str(copy)
        os.chdir(copy)
        try:
            yield
        finally:
            os.chdir(before)
            for process in psutil.Process().children():  # Their own children notice it.
                process.kill()
                process.wait(waiting.SECONDS)


def time_of(command: str) -> float:
    """How long the tests take on the unchanged code, in seconds."""
    started = time.monotonic()
    outcome, output = run_tests(command, None)
    if outcome != TestOutcome.SURVIVED:
        sys.exit(f"These tests fail without any mutant.\n\n{output}")
    return time.monotonic() - started


def mutants_of(source: Path) -> list[MutationSpec]:
    """The mutants of a file, or of all files in a folder."""
    files = sorted(source.rglob("*.py")) if source.is_dir() else [source]
    with tempfile.TemporaryDirectory() as folder:
        session = str(Path(folder) / "session")
        with use_db(session, WorkDB.Mode.create) as database:
            commands.init(files, database, {})
            found = [mutant for item in database.work_items for mutant in item.mutations]
    return [mutant for mutant in found if not LEFT_OUT.search(mutant.operator_name)]


def sample(mutants: list[MutationSpec], count: int, seed: int) -> list[MutationSpec]:
    """A sample, in the order of the files, with two at one place only if no others are left."""
    shuffled = random.Random(seed).sample(mutants, len(mutants))
    first = {place(mutant): mutant for mutant in shuffled}
    others = [mutant for mutant in shuffled if first[place(mutant)] is not mutant]
    places = random.Random(seed).sample(list(first.values()), len(first))
    return sorted(islice(filter(is_python, [*places, *others]), count), key=place)


def is_python(mutant: MutationSpec) -> bool:
    """Whether the mutant is valid: the star of ``*, name`` is mistaken for a multiplication.

    ``name is "text"`` is not tried either, because Python warns about it.
    """
    operator = get_operator(mutant.operator_name)(**mutant.operator_args)
    source = Path(mutant.module_path)
    mutated = mutate_code(source.read_text(), operator, mutant.occurrence)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SyntaxWarning)
        try:
            return mutated is not None and bool(compile(mutated, source, "exec"))
        except SyntaxError:
            return False


def place(mutant: MutationSpec) -> tuple[str, tuple[int, int]]:
    return str(mutant.module_path), mutant.start_pos


def show(mutant: MutationSpec, result: WorkResult) -> None:
    lines = [line for line in (result.diff or "").split("\n") if not line.startswith("---")]
    print(f"\n{mutant.module_path}:{mutant.start_pos[0]}: nobody noticed", flush=True)
    print("\n".join(f"    {line}" for line in lines if not line.startswith(("+++", "@@"))))


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="how many mutants to try")
    parser.add_argument("--seed", type=int, default=1, help="which ones; others with another")
    parser.add_argument("source", help="a file or folder, kinto_attachment/names for instance")
    parser.add_argument(
        "tests",
        nargs=argparse.REMAINDER,
        help="arguments for pytest, those that select the tests nearest to it",
    )
    arguments = parser.parse_args()
    tests = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command = shlex.join([*tests, *arguments.tests])
    if not arguments.tests:
        parser.error("without any tests, no mutant would be noticed")
    with copy_of_the_project():
        seconds = time_of(command)
        every = mutants_of(Path(arguments.source))
        chosen = sample(every, arguments.count, arguments.seed)
        print(
            f"{len(chosen)} of {len(every)} mutants, {seconds:.0f} s or less for each", flush=True
        )
        survivors = 0
        for mutant in chosen:
            result = mutate_and_test([mutant], command, SLOWER * seconds + 10)
            if result.test_outcome == TestOutcome.SURVIVED:
                survivors += 1
                show(mutant, result)
    print(f"\n{survivors} of {len(chosen)} mutants were not noticed.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Interrupted; nothing is changed but the copy, which is gone.")
