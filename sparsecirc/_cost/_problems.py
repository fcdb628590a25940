"""For every kernel a matrix that it can run, whatever its pattern has to look like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc._target import Isa
from sparsecirc.errors import UsageError
from sparsecirc.ops import Kernel, Problem, kernels_for
from sparsecirc.patterns import PatternMaker, block, unstructured

MAKERS: tuple[PatternMaker, ...] = (
    unstructured, block(16, 1), block(8, 1), block(4, 4), block(8, 4), block(16, 4), block(16, 16),
)  # fmt: skip
"""Patterns tried for a kernel, until it supports one."""

DTYPES = ("f32", "bf16", "int16", "int8")


def kernels_of(isa: Isa, dtype: str) -> dict[str, Kernel]:
    """Kernels of an instruction set whose weights are stored in ``dtype``; `kernels_for` also has those beside them."""
    return {name: kernel for name, kernel in kernels_for(isa, dtype).items() if kernel.format.dtype == dtype}


def patterns_of(scores: NDArray[Any], density: float) -> Iterator[Pattern]:
    """A pattern by each of `MAKERS` that fits the shape of ``scores``; at density 1 the full one."""
    if density == 1:
        yield Pattern.full(*scores.shape)
        return
    for make in MAKERS:
        with suppress(UsageError):  # blocks that do not fit the shape
            yield make(scores, 1 - density)


def supported(kernel: Kernel, patterns: Sequence[Pattern], dtype: str) -> Problem | None:
    """A problem that ``kernel`` can run; with inputs that are spikes where it runs no others."""
    for pattern in patterns:
        for spikes in (False, True):
            problem = Problem("weight", "product", kernel.isa, pattern, 1, spikes, False, dtype)
            if kernel.supports(problem) is None:
                return problem
    return None
