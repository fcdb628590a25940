"""What the memory of this machine can do at best: the scale for a kernel's bandwidth."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from sparsecirc._native import kernels

CPU = Path("/sys/devices/system/cpu/cpu0/cache")
USUAL = {"L1": 32 << 10, "L2": 1 << 20, "L3": 32 << 20}
"""Sizes to measure at where the system does not tell them."""
LINE = 64
"""Bytes of a cache line: a vector that crosses one is read twice."""


@dataclass(frozen=True)
class Level:
    """A cache: its bytes, and GB/s of reading half of it again and again on one core."""

    name: str
    nbytes: int
    rate: float


def cache_sizes() -> dict[str, int]:
    """Bytes of the data caches of the first processor, smallest first, as the system tells them."""
    found: dict[str, int] = {}
    for folder in sorted(CPU.glob("index*")):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        amount = re.fullmatch(r"(\d+)([KM]?)", size)
        if kind != "Instruction" and amount:
            found[f"L{level}"] = int(amount[1]) << {"": 0, "K": 10, "M": 20}[amount[2]]
    return found or dict(USUAL)


@cache
def levels() -> tuple[Level, ...]:
    """Every cache with its measured read rate."""
    return tuple(Level(name, size, read_limit(size // 2)) for name, size in cache_sizes().items())


def read_limit(nbytes: int) -> float:
    """GB/s at which one core reads ``nbytes`` bytes again and again: the best of ten rounds of a native loop."""
    words = max(nbytes // 4, 64)
    memory = np.zeros(words + LINE // 4, np.uint32)
    start = -memory.ctypes.data % LINE // 4
    data = memory[start : start + words]
    repeats = max(1, int(2e7 / data.nbytes))
    best = 0.0
    for _ in range(10):
        started = time.perf_counter()
        kernels.read_words(data, repeats)
        best = max(best, repeats * data.nbytes / (time.perf_counter() - started) / 1e9)
    return best


def line() -> str:
    """All levels on one line."""
    return "one core reads " + ", ".join(f"{v.rate:.0f} GB/s from {v.name} ({v.nbytes >> 10} KiB)" for v in levels())
