"""Every kernel of every instruction set on a small problem, beside the same sums in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sparsecirc._compile import compile
from sparsecirc._cost._problems import DTYPES, kernels_of, patterns_of, supported
from sparsecirc._native import available_isas
from sparsecirc._native import kernels as native
from sparsecirc._target import Isa, Target
from sparsecirc._verify import verify
from sparsecirc.cells import CELLS
from sparsecirc.formats import Packed
from sparsecirc.ops import Kernel, Problem
from sparsecirc.testing import TOLERANCE, recurrent_graph

SHAPES = ((37, 53), (48, 80))
"""One that no vector length divides, and one that whole blocks fit."""

DENSITY = 0.3
STEPS = 40
BATCHES = (1, 9)
"""Batches of layers: sample by sample, and the kernels of larger batches."""

LIMITS = {"f32": TOLERANCE.product, "bf16": TOLERANCE.product, "int16": 0.55 / 2047, "int8": 0.55 / 127}
"""Largest difference of a product with inputs in [-1, 1], relative to the sum of the weights' magnitudes. Integer
kernels round each input to 12 or 8 bits: by half a step, and a little for the sums."""


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: kernel or cell.
        isa: instruction set.
        what: ``"product"``, ``"step"``, ``"batch"`` or ``"layer"``.
        error: largest difference, relative as the limit is.
        limit: largest that passes.
        note: what went wrong where it is no difference.
    """

    name: str
    isa: str
    what: str
    error: float
    limit: float
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether it passed."""
        return self.error <= self.limit and not self.note


def product_checks() -> Iterator[Check]:
    """Every kernel as a product of some vectors, as a step of a recurrence, and of a batch where it has such a loop."""
    for isa in available_isas():
        for dtype in DTYPES:
            for kernel in kernels_of(isa, dtype).values():
                tried = 0
                for shape in SHAPES:
                    scores = np.random.default_rng(0).random(shape)
                    problem = supported(kernel, list(patterns_of(scores, DENSITY)), dtype)
                    if problem is not None:
                        tried += 1
                        yield from _kernel(kernel, problem)
                if not tried:
                    name = f"{dtype} {kernel.format.name}"
                    yield Check(name, isa.value, "product", np.inf, 0.0, "no problem is known that it can run")


def _kernel(kernel: Kernel, problem: Problem) -> Iterator[Check]:
    rng = np.random.default_rng(1)
    rows, cols = problem.pattern.shape
    weight = rng.standard_normal((rows, cols), dtype=np.float32)
    packed = kernel.format.pack(problem.pattern, weight)
    used = kernel.format.unpack(packed)
    name = f"{problem.dtype} {kernel.format.name} {rows}x{cols}"
    note = ""
    if kernel.format.exact and not np.array_equal(used, problem.pattern.apply(weight)):
        note = "packing changed a weight"
    limit = LIMITS[problem.dtype]
    x = rng.uniform(-1, 1, (3, cols)).astype(np.float32)
    if problem.spikes:
        x = (x > 0).astype(np.float32)
    for what in ("product", "step"):
        y = np.full((3, rows), np.nan, np.float32)
        native.product(packed.matrix, kernel.isa.value, x, None, y, step=what == "step")
        yield Check(name, kernel.isa.value, what, _error(used, x, y), limit, note)
    if native.has_batched(kernel.isa.value, packed.format):
        yield Check(name, kernel.isa.value, "batch", _batched_error(packed, used, kernel.isa), limit)


def _batched_error(packed: Packed, used: NDArray[np.float32], isa: Isa) -> float:
    width = native.vector(isa.value) * 2
    x = np.random.default_rng(2).uniform(-1, 1, (used.shape[1], width)).astype(np.float32)
    y = np.full((used.shape[0], width), np.nan, np.float32)
    native.product_batched(packed.matrix, isa.value, x, None, y)
    return _error(used, x.T, y.T)


def _error(weight: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    """Largest |y - W x| over the sum of |W| of its row; infinite where a result is no number."""
    exact = weight.astype(np.float64)
    gap = np.abs(y - x.astype(np.float64) @ exact.T) / np.maximum(np.abs(exact).sum(axis=1), 1e-30)
    return float(gap.max(initial=0.0)) if np.isfinite(gap).all() else float("inf")


def layer_checks() -> Iterator[Check]:
    """Every cell as a layer over time, at both batches, beside the interpreter."""
    for isa in available_isas():
        for cell in CELLS.values():
            graph = recurrent_graph(cell, 13, 37, DENSITY)
            program = compile(graph, Target.cpu(isa), kernel="csr", cache=None)
            for batch in BATCHES:
                x = np.random.default_rng(batch).standard_normal((STEPS, batch, 13), dtype=np.float32)
                report = verify(program, x)
                worst = max(o.max_abs_diff / max(o.scale, 1e-3) for o in report.outputs)
                check = Check(f"{cell.name}, batch {batch}", isa.value, "layer", worst, program.tolerance)
                wrong = report.spike_mismatches
                yield replace(check, note=f"{wrong} spikes differ") if wrong else check
