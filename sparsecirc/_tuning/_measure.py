"""How long one product takes with each packed form of a matrix."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from sparsecirc._native import kernels as native
from sparsecirc._target import Isa
from sparsecirc.formats import Packed

WARM_CALLS = 200
WARM_SECONDS = 0.015
"""How often, or how long, a candidate runs before it is timed."""

MEASURE_SECONDS = 0.002
"""Time spent on each candidate, in each round."""

ROUNDS = 2
SAMPLES = 3
"""Rounds over all candidates, and samples of each candidate in a round."""


def measure(packs: Mapping[str, Packed], isa: Isa, x: np.ndarray, *, step: bool = False) -> dict[str, float]:
    """Microseconds of one product by each pack: the smallest of repeated runs, each pack warm when it is timed.

    With ``step`` each vector is multiplied as a recurrence does it, else all of ``x`` as a feed-forward layer does.

    A layer runs the same product hundreds of times, and a lookup over many short tiles is as fast as it then is only
    after the processor has learnt its branches; so each pack first runs that often, in two rounds over all packs.
    Products are repeated inside one native call: the call itself takes longer than a small product.
    """
    best = dict.fromkeys(packs, np.inf)
    outputs = {n: np.empty((len(x), p.shape[0]), np.float32) for n, p in packs.items()}
    for _ in range(ROUNDS):
        for name, pack in packs.items():
            matrix, y = pack.matrix, outputs[name]
            started, calls, block = time.perf_counter(), 0, 1
            while calls < 2 or (calls < WARM_CALLS and time.perf_counter() - started < WARM_SECONDS):
                native.product(matrix, isa.value, x, None, y, block, step=step)
                calls += block
                block = min(2 * block, 16)
            once = (time.perf_counter() - started) / calls
            repeats = max(1, min(10_000, int(MEASURE_SECONDS / SAMPLES / max(once, 1e-7))))
            for _ in range(SAMPLES):
                started = time.perf_counter()
                native.product(matrix, isa.value, x, None, y, repeats, step=step)
                elapsed = (time.perf_counter() - started) / repeats
                best[name] = min(best[name], elapsed / max(len(x), 1) * 1e6)
    return {n: float(t) for n, t in best.items()}
