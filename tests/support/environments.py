"""Virtual environments that servers run in: ours, and those of the plugin that people run today.

Benchmarks compare the two, and tests move sites from one to the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distributions, version
from pathlib import Path

from tests.support import ROOT
from tests.support.services import NOWHERE

CACHE = ROOT / "benchmarks" / ".cache"
# Its releases that are tried, with what each needs beside Kinto. The first is that of benchmarks.
# The others are installed without asking pip, which refuses them: 6.3.0 wants an older Kinto, and
# 9.0.1 a newer Python than ours may be.
RELEASES: dict[str, tuple[str, ...]] = {
    "8.0.0": (),
    "6.3.0": ("pyramid-storage==2.0.0",),
    "9.0.1": (),
}
RELEASE = next(iter(RELEASES))
SETUPTOOLS = "setuptools<80"  # It imports pkg_resources.
# What both run on, at our versions, so that only the plugin differs.
SHARED = (
    *("kinto", "pyramid", "pyramid-tm", "WebOb", "gunicorn", "waitress"),
    *("psycopg2-binary", "SQLAlchemy", "zope.sqlalchemy"),
)


@dataclass(frozen=True)
class Environment:
    name: str
    python: Path
    path: str = ""  # Of modules that are not installed in there.

    def installed(self, package: str) -> str:
        """The version of a package in there."""
        code = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"
        # Isolated: our own checkout, in the current folder, is not to be seen from there.
        command = [str(self.python), "-I", "-c", code, package]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def ours() -> Environment:
    return Environment("ours", Path(sys.executable), str(ROOT))


def peer(release: str = RELEASE) -> Environment:
    """The plugin of the same name on PyPI, installed on first use."""
    folder = CACHE / ("peer" if release == RELEASE else f"peer-{release}")
    environment = Environment("peer", folder / "bin" / "python")
    stamp = folder / "installed"
    shared = (f"{name}=={version(name)}" for name in SHARED)
    plugin = f"kinto-attachment=={release}"
    wanted = "\n".join([plugin, SETUPTOOLS, *RELEASES[release], sys.version, *shared])
    with _alone():
        if not stamp.exists() or stamp.read_text() != wanted:
            _install(folder, environment.python, release)
            stamp.write_text(wanted)
    return environment


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep other processes from installing at the same time."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(folder: Path, python: Path, release: str) -> None:
    plugin = f"kinto-attachment=={release}"
    print(f"Installing {plugin} in {folder} …", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(_constraints()))
    others = [SETUPTOOLS, *RELEASES[release], *SHARED]
    if release == RELEASE:
        others.append(plugin)
    else:
        _pip(python, "--no-deps", "--ignore-requires-python", plugin)
    _pip(python, "-c", str(constraints), *others)


def _pip(python: Path, *arguments: str) -> None:
    subprocess.run(
        [
            *(str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"),
            *arguments,
        ],
        # The fixture of Google's emulator keeps its client, but not pip, from the internet.
        env={name: value for name, value in os.environ.items() if value != NOWHERE},
        check=True,
    )


def _constraints() -> list[str]:
    """Every package of ours, at its version, but the plugin itself."""
    names = {d.metadata["Name"] for d in distributions()}
    skipped = {"kinto-attachment", "pip", "setuptools"}
    return sorted(f"{name}=={version(name)}" for name in names if name not in skipped)
