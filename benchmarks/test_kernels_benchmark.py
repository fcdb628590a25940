"""Kernels alone, for pytest-benchmark; `make test` does not collect this folder.

    python -m pytest benchmarks --benchmark-only --benchmark-group-by=func,param:size,param:density

Everything is compared with float64 before it is timed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks import _networks as networks
from sparsecirc import Pattern, Target, compile, verify
from sparsecirc._native import available_isas
from sparsecirc._native import kernels as native
from sparsecirc._target import Isa
from sparsecirc.formats import every_format
from sparsecirc.ops import Problem, kernels_for
from sparsecirc.patterns import block

SIZES = ((512, 512), (1536, 512), (1024, 1024), (3072, 1024))
DENSITIES = (0.2, 0.1, 0.05)
ISA = Isa(available_isas()[-1])
DTYPES = ("f32", "int16", "int8")
TOLERANCE = {"f32": 2e-5, "int16": 1e-2, "int8": 5e-2}


def dtype_of(form: str) -> str:
    """The number type in which a format is a candidate."""
    return next(dtype for dtype in DTYPES if form in kernels_for(ISA, dtype))


def pattern_for(form: str, size: tuple[int, int], density: float) -> Pattern:
    """Scattered connections, or the blocks that a format needs."""
    scores = np.random.default_rng(0).random(size)
    if form.startswith("block"):
        height, _, width = form.removeprefix("block").partition("x")
        return block(int(height), int(width))(scores, 1 - density)
    return Pattern.from_mask(scores < density)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("form", sorted(every_format(ISA)))
def test_product(benchmark: Any, form: str, size: tuple[int, int], density: float) -> None:
    pattern = pattern_for(form, size, density)
    rng = np.random.default_rng(1)
    weight = pattern.apply(rng.standard_normal(size, dtype=np.float32))
    spikes, dtype = form == "columns", dtype_of(form)
    drawn = rng.standard_normal((1, size[1]))
    x = (drawn > 1.65 if spikes else np.tanh(drawn)).astype(np.float32)
    kernel = kernels_for(ISA, dtype)[form]
    if why := kernel.supports(Problem("w", "product", ISA, pattern, 1, spikes, False, dtype)):
        pytest.skip(why)
    packed = kernel.format.pack(pattern, weight)
    y = np.empty((1, size[0]), np.float32)
    native.product(packed.matrix, ISA.value, x, None, y)
    exact = weight.astype(np.float64) @ x[0].astype(np.float64)
    scale = np.abs(weight).astype(np.float64) @ np.abs(x[0]).astype(np.float64)
    assert np.all(np.abs(y[0] - exact) <= TOLERANCE[dtype] * np.maximum(scale, 1))
    benchmark.extra_info["bytes"] = packed.nbytes
    benchmark.extra_info["nnz"] = pattern.nnz
    benchmark(native.product, packed.matrix, ISA.value, x, None, y)


@pytest.mark.parametrize("batch", [1, 8, 64])
@pytest.mark.parametrize("cell", networks.CELLS)
def test_layer(benchmark: Any, cell: str, batch: int) -> None:
    """512 units, 90 % sparse, 20 steps a call."""
    program = compile(networks.gated(networks.CELLS[cell], 512, 0.1), cache=None)
    x = networks.gated_input(20, batch)
    verify(program, x).check()
    benchmark(program.run, x)


@pytest.mark.parametrize("dtype", ["int16", "int8"])
def test_integer_layer(benchmark: Any, dtype: str) -> None:
    program = compile(networks.gated(networks.CELLS["gru"], 512, 0.1), Target.cpu(dtype=dtype), cache=None)
    x = networks.gated_input(20, 1)
    verify(program, x).check()
    benchmark(program.run, x)


@pytest.mark.parametrize("batch", [1, 64])
def test_spiking_layer(benchmark: Any, batch: int) -> None:
    """1024 recurrent LIF neurons, 90 % sparse, 5 % spikes, 20 steps a call."""
    graph, x = networks.spiking(1024, 0.1, 20, batch)
    program = compile(graph, cache=None)
    verify(program, x).check()
    benchmark(program.run, x)


@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid"])
def test_function(benchmark: Any, name: str) -> None:
    x = np.linspace(-5, 5, 4096, dtype=np.float32)
    y = np.empty_like(x)
    native.pointwise(name, ISA.value, x, y)
    wide = x.astype(np.float64)
    exact = {"exp": np.exp(wide), "tanh": np.tanh(wide), "sigmoid": 1 / (1 + np.exp(-wide))}[name]
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-7)
    benchmark(native.pointwise, name, ISA.value, x, y)
