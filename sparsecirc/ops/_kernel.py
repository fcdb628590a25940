"""`Kernel` and `Problem`: which native loop can multiply by which matrix, and why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sparsecirc._pattern import Pattern
from sparsecirc._target import Isa
from sparsecirc.formats import BLOCK_SHAPES, MOST_PADDING, Format, block_diagonal_padding, formats_for


@dataclass(frozen=True)
class Problem:
    """One matrix to multiply by.

    Attributes:
        weight: its name, e.g. ``"rnn.l0.hh"``.
        op: ``"product"`` for a feed-forward product, else the cell whose recurrence it drives.
        isa: instruction set to run on.
        pattern: its live connections.
        vectors: inputs known at once: 1 in a recurrence, many where a whole sequence is there.
        spikes: whether the inputs are spikes (mostly zero).
        exact: whether the weights must stay as they are.
        dtype: number type of the weights: the target's; ``"f32"`` where that is an integer and the state is not
            bounded by 1.
    """

    weight: str
    op: str
    isa: Isa
    pattern: Pattern
    vectors: int
    spikes: bool
    exact: bool
    dtype: str = "f32"


@dataclass(frozen=True)
class Kernel:
    """One implementation of a product.

    Attributes:
        format: the layout it reads; `Kernel.name` follows the grammar of ``kernels/kernels.def``.
        isa: the instruction set it is built for.
    """

    format: Format
    isa: Isa

    def name(self, problem: Problem) -> str:
        """``sc_<dtype>_<format>_<op>__<isa>``."""
        return f"sc_{self.format.dtype}_{self.format.name}_{problem.op}__{self.isa.value}"

    def supports(self, problem: Problem) -> str | None:
        """``None`` where it can run ``problem``, else the reason."""
        if problem.isa is not self.isa:
            return f"it is built for {self.isa.value}, the target is {problem.isa.value}"
        return _REASONS.get(self.format.name, _always)(problem)


def _always(problem: Problem) -> str | None:
    return None


def _sparse(problem: Problem) -> str | None:
    rows, cols = problem.pattern.shape
    if problem.pattern.nnz == rows * cols:
        return "every connection is alive: an index would only add bytes"
    return None


def _mantissa(problem: Problem) -> str | None:
    if problem.exact:
        return "exact weights were asked for, and it rounds them by up to 2^-17"
    return _sparse(problem)


def _bf16(problem: Problem) -> str | None:
    return "exact weights were asked for, and it rounds them to bfloat16" if problem.exact else _sparse(problem)


def _columns(problem: Problem) -> str | None:
    return None if problem.spikes else "the inputs are not spikes"


def _blocks(height: int, width: int) -> Callable[[Problem], str | None]:
    def reason(problem: Problem) -> str | None:
        rows, cols = problem.pattern.shape
        if rows % height or cols % width:
            return f"{rows} x {cols} is not a whole number of {height}x{width} blocks"
        if problem.pattern.block_shape([(height, width)]) != (height, width):
            return f"the pattern is not made of {height}x{width} blocks"
        return _sparse(problem)

    return reason


def _block_diagonal(problem: Problem) -> str | None:
    padding = block_diagonal_padding(problem.pattern)
    if padding > MOST_PADDING:
        return f"it is not block-diagonal: its groups of rows would store {padding:.1f} values per live weight"
    return _sparse(problem)


def _spiking_blocks(problem: Problem) -> str | None:
    return _columns(problem) or _blocks(16, 1)(problem)


_REASONS: dict[str, Callable[[Problem], str | None]] = {
    "csr": _sparse,
    "lookup": _sparse,
    "mantissa": _mantissa,
    "lookup_bf16": _bf16,
    "lookup16": _sparse,
    "lookup8": _sparse,
    "block_diagonal": _block_diagonal,
    "columns": _columns,
    "columns16": _spiking_blocks,
    **{name: _blocks(*shape) for name, shape in BLOCK_SHAPES.items()},
}


def kernels_for(isa: Isa, dtype: str = "f32") -> dict[str, Kernel]:
    """Every kernel of an instruction set and number type, by the name of its format."""
    return {name: Kernel(f, isa) for name, f in formats_for(isa, dtype).items()}
