"""Matrix-vector products by format, for pytest-benchmark; `make test` does not collect this folder.

    python -m pytest benchmarks --benchmark-enable --benchmark-group-by=param:size,param:density

Each product is compared with float64 before it is timed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sparsecirc import Pattern
from sparsecirc._native import available_isas
from sparsecirc._native import kernels as native
from sparsecirc._target import Isa
from sparsecirc.formats import every_format
from sparsecirc.ops import Problem, kernels_for
from sparsecirc.patterns import block

SIZES = ((512, 512), (1536, 512), (1024, 1024), (3072, 1024))
DENSITIES = (0.2, 0.1, 0.05)
ISA = available_isas()[-1]
TOLERANCE = {"lookup16": 1e-2, "dense16": 1e-2, "dense8": 5e-2}


def pattern_for(form: str, size: tuple[int, int], density: float) -> Pattern:
    """Scattered connections, or the blocks that a format needs."""
    scores = np.random.default_rng(0).random(size)
    if form.startswith("block"):
        height, _, width = form.removeprefix("block").partition("x")
        return block(int(height), int(width))(scores, 1 - density)
    return Pattern.from_mask(scores < density)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("form", sorted(every_format(Isa(ISA))))
def test_product(benchmark: Any, form: str, size: tuple[int, int], density: float) -> None:
    pattern = pattern_for(form, size, density)
    rng = np.random.default_rng(1)
    weight = pattern.apply(rng.standard_normal(size, dtype=np.float32))
    spikes = form == "columns"
    x = (rng.random((1, size[1])) < 0.05).astype(np.float32) if spikes else np.tanh(rng.standard_normal((1, size[1])))
    x = x.astype(np.float32)
    dtype = {"lookup16": "int16", "dense16": "int16", "dense8": "int8"}.get(form, "f32")
    problem = Problem("w", "product", Isa(ISA), pattern, 1, spikes, False, dtype)
    kernel = kernels_for(Isa(ISA), dtype)[form]
    assert kernel.supports(problem) is None
    packed = kernel.format.pack(pattern, weight)
    y = np.empty((1, size[0]), np.float32)
    native.product(packed.matrix, Isa(ISA).value, x, None, y)
    exact = weight.astype(np.float64) @ x[0].astype(np.float64)
    scale = np.abs(weight).astype(np.float64) @ np.abs(x[0]).astype(np.float64)
    assert np.all(np.abs(y[0] - exact) <= TOLERANCE.get(form, 2e-5) * np.maximum(scale, 1))
    benchmark.extra_info["bytes"] = packed.nbytes
    benchmark.extra_info["nnz"] = pattern.nnz
    benchmark(native.product, packed.matrix, Isa(ISA).value, x, None, y)
