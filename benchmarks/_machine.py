"""What the memory of this machine can do at best: the scale for a kernel's bandwidth."""

from __future__ import annotations

from functools import cache

from sparsecirc._cost import Bandwidth, read_bandwidth
from sparsecirc._cost._bandwidth import read_speed


@cache
def levels() -> tuple[Bandwidth, ...]:
    """Every level of memory with its measured read rate."""
    return read_bandwidth()


@cache
def read_limit(nbytes: int) -> float:
    """GB/s at which one core reads ``nbytes`` bytes again and again."""
    return read_speed(nbytes)


def described(found: tuple[Bandwidth, ...]) -> str:
    """All levels in words."""
    return ", ".join(f"{v.gb_per_s:.0f} GB/s from {v.level} ({v.bytes >> 10} KiB)" for v in found)
