"""How fast one core reads each level of memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sparsecirc._machine import cache_sizes
from sparsecirc._native import kernels as native

LARGEST = 256 * 1024**2
"""Most bytes that are read at once, however large the last cache is."""

SECONDS = 0.04
"""Time spent on each level."""


@dataclass(frozen=True)
class Bandwidth:
    """Reads of one level.

    Attributes:
        level: ``"L1"``, ``"L2"``, ``"L3"`` or ``"RAM"``.
        bytes: of the array that was read again and again.
        gb_per_s: 1e9 bytes a second, the best of several passes.
    """

    level: str
    bytes: int
    gb_per_s: float


def levels() -> dict[str, int]:
    """Bytes to read for each level: half of each cache, four times the last one for memory."""
    first, second, third = cache_sizes()
    found = {"L1": first // 2, "L2": max(second // 2, 2 * first)}
    if third > second:
        found["L3"] = min(max(third // 2, 2 * second), LARGEST // 4)
    return {**found, "RAM": min(4 * third, LARGEST)}


def read_bandwidth(progress: Callable[[str], None] | None = None) -> tuple[Bandwidth, ...]:
    """Measure every level with the widest loads of this processor, on one core."""
    made = []
    for level, size in levels().items():
        if progress is not None:
            progress(level)
        made.append(Bandwidth(level, size, read_speed(size)))
    return tuple(made)


def read_speed(size: int, seconds: float = SECONDS) -> float:
    """Gigabytes a second of reading ``size`` bytes again and again: the best of several passes."""
    room = np.ones(size // 4 + 16, np.uint32)
    start = (-room.ctypes.data % 64) // 4
    words = room[start : start + max(size // 4, 1)]
    repeats = max(1, int(2e6 / words.nbytes))
    best, spent = np.inf, 0.0
    native.read_words(words, repeats)
    while spent < seconds or not np.isfinite(best):
        started = time.perf_counter()
        native.read_words(words, repeats)
        took = time.perf_counter() - started
        spent += took
        best = min(best, took / repeats)
    return float(words.nbytes / best / 1e9)
