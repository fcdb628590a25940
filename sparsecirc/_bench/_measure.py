"""Timing engines against each other on a machine that other things run on as well."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

WARM_CALLS = 3
WARM_SECONDS = 0.02


def interleaved(
    runs: Mapping[str, Callable[[], object]],
    *,
    min_seconds: float,
    rounds: int,
    clock: Callable[[], float] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Seconds per call of each run, one value a round, shape (rounds,).

    Every round times every run once, one after another, so that a slow moment of the machine falls on all of them and
    a quotient within a round is fair. A sample repeats a fast call until it fills ``min_seconds / rounds``. The garbage
    collector is off while a sample is taken.

    ``clock`` gives seconds, by default those of the wall. A run that works outside this process may have a clock of its
    own as an attribute ``clock``.
    """
    default = time.perf_counter if clock is None else clock
    clocks = {name: default if clock is None else getattr(run, "clock", default) for name, run in runs.items()}
    repeats: dict[str, int] = {}
    for name, run in runs.items():
        start, calls = time.perf_counter(), 0
        while calls < WARM_CALLS or time.perf_counter() - start < WARM_SECONDS:
            run()
            calls += 1
        now = clocks[name]
        begin = now()
        run()
        once = max(now() - begin, 1e-7)
        repeats[name] = max(1, round(min_seconds / rounds / once))
    seconds = {name: np.empty(rounds) for name in runs}
    enabled = gc.isenabled()
    try:
        for k in range(rounds):
            for name, run in runs.items():
                gc.collect(0)
                gc.disable()
                now = clocks[name]
                begin = now()
                for _ in range(repeats[name]):
                    run()
                seconds[name][k] = max(now() - begin, 1e-9) / repeats[name]
                if enabled:
                    gc.enable()
    finally:
        if enabled:
            gc.enable()
    return seconds
