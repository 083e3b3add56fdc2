"""The virtual environments that the contenders run in: ours, and one for each peer."""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from importlib.metadata import distributions, version
from pathlib import Path

CACHE = Path(__file__).with_name(".cache")
PEER = "kinto-attachment==8.0.0"
# What both run on, at our versions, so that only the plugin differs.
SHARED = (
    *("kinto", "pyramid", "pyramid-tm", "WebOb", "gunicorn", "waitress"),
    *("psycopg2-binary", "SQLAlchemy", "zope.sqlalchemy"),
)


@dataclass(frozen=True)
class Environment:
    name: str
    python: Path

    def installed(self, package: str) -> str:
        """The version of a package in there."""
        code = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"
        # Isolated: our own checkout, in the current folder, is not to be seen from there.
        command = [str(self.python), "-I", "-c", code, package]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def ours() -> Environment:
    return Environment("ours", Path(sys.executable))


def peer() -> Environment:
    """The plugin of the same name on PyPI, installed on first use."""
    folder = CACHE / "peer"
    environment = Environment("peer", folder / "bin" / "python")
    stamp = folder / "installed"
    wanted = "\n".join([PEER, sys.version, *(f"{name}=={version(name)}" for name in SHARED)])
    if not stamp.exists() or stamp.read_text() != wanted:
        _install(folder, environment.python)
        stamp.write_text(wanted)
    return environment


def _install(folder: Path, python: Path) -> None:
    print(f"Installing {PEER} in {folder} …", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(_constraints()))
    subprocess.run(
        [str(python), "-m", "pip", "install", "-qq", "-c", str(constraints), PEER, *SHARED],
        check=True,
    )


def _constraints() -> list[str]:
    """Every package of ours, at its version, but the plugin itself."""
    names = {d.metadata["Name"] for d in distributions()}
    skipped = {"kinto-attachment", "pip", "setuptools"}
    return sorted(f"{name}=={version(name)}" for name in names if name not in skipped)
