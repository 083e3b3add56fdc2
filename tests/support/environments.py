"""Virtual environments for servers: ours, and those of the plugin that is in use today.

Benchmarks compare the two, and tests move sites from one to the other.
``python -m tests.support.environments`` installs what ``make tests`` needs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT

CACHE = ROOT / "benchmarks" / ".cache"
# Its tested releases, with the packages that each needs in addition to ours. Benchmarks use the
# first. pip does not resolve these: 6.3.0 requires an older Kinto, and 9.0.1 a newer Python than
# ours may be.
RELEASES: dict[str, tuple[str, ...]] = {
    "8.0.0": (),
    "6.3.0": ("pyramid-storage==2.0.0",),
    "9.0.1": (),
}
RELEASE = next(iter(RELEASES))
SETUPTOOLS = "setuptools<80"  # It imports pkg_resources.
INSTALL_TIMEOUT = 200  # Seconds, for pip.
WAIT_TIMEOUT = INSTALL_TIMEOUT + 60  # For another process that installs.
# The environment before any fixture changed it: the fixture of Google's emulator replaces the
# proxy, to keep its client off the internet, but pip may need the original one.
ENVIRON = dict(os.environ)

KINTO = """\
#!{python}
import sys
from kinto.__main__ import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Environment:
    name: str
    python: Path
    path: str = ""  # A folder of modules that are not installed in it.

    def installed(self, package: str) -> str:
        """The version of an installed package."""
        code = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"
        # Isolated, so that our own checkout, the current folder, is not importable.
        command = [str(self.python), "-I", "-c", code, package]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()


def ours() -> Environment:
    return Environment("ours", Path(sys.executable), str(ROOT))


def peer(release: str = RELEASE) -> Environment:
    """The plugin of the same name on PyPI, installed on first use."""
    folder = CACHE / ("peer" if release == RELEASE else f"peer-{release}")
    environment = Environment("peer", folder / "bin" / "python")
    stamp = folder / "installed"
    packages = (f"kinto-attachment=={release}", SETUPTOOLS, *RELEASES[release])
    wanted = "\n".join([*packages, sys.version, *_ours()])
    with _alone():
        if not stamp.exists() or stamp.read_text() != wanted:
            _install(folder, environment.python, *packages)
            stamp.write_text(wanted)
    return environment


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep other processes from installing at the same time."""
    CACHE.mkdir(exist_ok=True)
    deadline = time.monotonic() + WAIT_TIMEOUT
    with (CACHE / "lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield


def _install(folder: Path, python: Path, *packages: str) -> None:
    """Install the packages into an environment that also has all of ours except our plugin.

    So only the plugin differs, and pip need not resolve dependencies, which takes it minutes.
    """
    print(f"Installing {packages[0]} in {folder} …", flush=True)
    venv.create(folder, clear=True, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "posix_prefix", {"base": str(folder)}))
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"),
            *("--no-input", "--retries", "2", "--timeout", "30"),
            *("--no-deps", "--ignore-requires-python", "--target", str(site), *packages),
        ],
        env=ENVIRON,
        stdin=subprocess.DEVNULL,
        timeout=INSTALL_TIMEOUT,
        check=True,
    )
    # Only the paths: links of editable packages, such as ours, are not followed.
    (site / "ours.pth").write_text("\n".join(_ours()))
    kinto = python.with_name("kinto")
    kinto.write_text(KINTO.format(python=python))
    kinto.chmod(0o755)


def _ours() -> list[str]:
    """The folders of our installed packages."""
    return sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


if __name__ == "__main__":
    peer()
