"""The peak memory of a server, above what it needs when idle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.servers import Kinto


def peak_over_idle(server: Kinto, work: Callable[[], object]) -> float:
    """Bytes of the worker that grew most, from the kernel's high-water mark."""
    idle = {}
    for worker in server.workers():
        # 5 resets the mark (proc(5)).
        Path(f"/proc/{worker.pid}/clear_refs").write_text("5")
        idle[worker.pid] = _status(worker.pid, "VmRSS")
    work()
    return max(_status(pid, "VmHWM") - before for pid, before in idle.items())


def _status(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise LookupError(field)
