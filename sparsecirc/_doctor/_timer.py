"""How well this machine can be measured on at this moment."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from sparsecirc._native import kernels as native

SAMPLES = 300
NOISY = 0.1
"""Spread above which figures of single runs should not be trusted."""


@dataclass(frozen=True)
class Timer:
    """The same work timed again and again.

    Attributes:
        resolution_ns: smallest step of the clock.
        sample_us: median time of the work.
        spread: how much longer it took in one of ten cases, relative to the median.
        worst: how much longer it took at worst, relative to the median.
    """

    resolution_ns: float
    sample_us: float
    spread: float
    worst: float

    @property
    def noisy(self) -> bool:
        """Whether something else keeps the machine busy, or its clock changes."""
        return self.spread > NOISY


def timer_noise() -> Timer:
    """Reads of memory in the first cache, about 100 microseconds each."""
    words = np.ones(2048, np.uint32)
    started = time.perf_counter()
    native.read_words(words, 1000)
    repeats = max(1, int(1000 * 1e-4 / max(time.perf_counter() - started, 1e-9)))
    for _ in range(SAMPLES // 10):
        native.read_words(words, repeats)
    taken = np.empty(SAMPLES)
    for k in range(SAMPLES):
        started = time.perf_counter()
        native.read_words(words, repeats)
        taken[k] = time.perf_counter() - started
    middle = float(np.median(taken))
    late = float(np.percentile(taken, 90)) / middle - 1
    return Timer(_resolution(), middle * 1e6, late, float(taken.max()) / middle - 1)


def _resolution() -> float:
    """Nanoseconds between two readings of the clock that differ."""
    steps = []
    for _ in range(50):
        first = time.perf_counter_ns()
        second = first
        while second == first:
            second = time.perf_counter_ns()
        steps.append(second - first)
    return float(min(steps))
