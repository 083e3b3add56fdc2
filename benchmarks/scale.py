"""The amount of work: everything, or a quick look."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.bodies import KIB, MIB


@dataclass(frozen=True)
class Scale:
    """Sizes in bytes, ``turns`` of cheap rows, and ``heavy_turns`` of slow ones."""

    small: int = 16 * KIB
    medium: int = MIB
    large: int = 64 * MIB
    huge: int = 512 * MIB
    object: int = 256 * MIB  # On S3.
    turns: int = 11
    heavy_turns: int = 5
    links: tuple[int, ...] = (300, 30_000, 300_000)
    bucket: int = 10_000


FULL = Scale()
QUICK = Scale(
    huge=128 * MIB,
    object=64 * MIB,
    turns=3,
    heavy_turns=2,
    links=(300, 30_000),
    bucket=1_000,
)
