"""Format figures for readers."""

from __future__ import annotations

from benchmarks.bodies import KIB, MIB


def seconds(value: float) -> str:
    return f"{value * 1000:.3g} ms" if abs(value) < 1 else f"{value:.2f} s"


def rate(value: float) -> str:
    """Uploads per second, from the seconds per upload."""
    return f"{1 / value:.0f} /s"


def memory(value: float) -> str:
    return f"{value / MIB:.1f} MiB"


def size(value: int) -> str:
    return f"{value // MIB} MiB" if value >= MIB else f"{value // KIB} KiB"
