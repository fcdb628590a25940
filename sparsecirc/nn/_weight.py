"""`SparseWeight`: the live values of one matrix, with their pattern."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsecirc._pattern import IntArray, Pattern
from sparsecirc.errors import UsageError
from sparsecirc.ops._autograd import Sparse
from sparsecirc.ops._autograd import dense as dense_of
from sparsecirc.patterns import PatternMaker, exchange, unstructured


class SparseWeight(nn.Module):
    """Values of the live connections of a (rows, cols) matrix.

    ``values`` is a Parameter of shape (nnz,) in the order of the pattern. The pattern is kept as buffers ``indptr``
    (rows + 1,) and ``indices`` (nnz,), int32. They are in the ``state_dict``, so that a checkpoint says by itself what
    its values mean; loading a checkpoint of another pattern takes that pattern over, and `values` gets its length.

    Args:
        pattern: the live connections.
        dtype: number type of the values.
    """

    indptr: Tensor
    indices: Tensor

    def __init__(self, pattern: Pattern, *, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.shape = pattern.shape
        self.origin = pattern.origin
        self.values = nn.Parameter(torch.zeros(pattern.nnz, dtype=dtype))
        self.register_buffer("indptr", torch.from_numpy(pattern.indptr.copy()))
        self.register_buffer("indices", torch.from_numpy(pattern.indices.copy()))

    @property
    def pattern(self) -> Pattern:
        """The live connections, as they are now: rewiring moves them in place."""
        indptr, indices = (b.cpu().numpy().copy() for b in (self.indptr, self.indices))
        return Pattern(self.shape, indptr, indices, self.origin)

    @property
    def nnz(self) -> int:
        """Number of live connections."""
        return len(self.indices)

    def sparse(self) -> Sparse:
        """The tensors that the ops take."""
        return Sparse(self.indptr, self.indices, self.values, self.shape)

    def dense(self) -> Tensor:
        """The matrix, differentiable in ``values``."""
        return dense_of(self.sparse())

    def live(self, weight: Tensor) -> Tensor:
        """Entries of a dense (rows, cols) tensor at the live connections, shape (nnz,)."""
        if tuple(weight.shape) != self.shape:
            raise UsageError(f"weight has shape {tuple(weight.shape)}, the pattern {self.shape}")
        rows = torch.repeat_interleave(self.indptr.diff().long())
        return weight[rows, self.indices.long()]

    def scatter(self, values: Tensor) -> Tensor:
        """Dense (rows, cols) tensor with ``values`` (nnz,) at the live connections."""
        return dense_of(Sparse(self.indptr, self.indices, values, self.shape))

    @torch.no_grad()
    def set_dense(self, weight: Tensor) -> None:
        """Take the live entries of a dense weight."""
        self.values.copy_(self.live(weight))

    @torch.no_grad()
    def rewire(self, drop: ArrayLike, grow: ArrayLike, optimizer: Optimizer | None = None) -> IntArray:
        """Exchange live connections in place; what grows is exactly 0, without gradient or optimizer state.

        Costs O(nnz): values, gradient, pattern and the state of ``optimizer`` are moved to their new places in the
        tensors that they are in, so that DistributedDataParallel, compiled graphs and views go on.

        Args:
            drop: positions in the order of the pattern.
            grow: row * cols + column of dead connections, as many.
            optimizer: it holds ``values``; its state of as many entries (momentum, moments) is moved along.

        Returns:
            Position that each connection had before, -1 where it has grown, (nnz,).

        Raises:
            UsageError: as `sparsecirc.patterns.exchange`; then nothing has changed.
        """
        pattern, source = exchange(self.pattern, drop, grow)
        place = torch.from_numpy(source).to(self.values.device, torch.long)
        grown = torch.nonzero(place < 0).squeeze(1)
        place[grown] = 0
        state = {} if optimizer is None else optimizer.state.get(self.values, {})
        for tensor in (self.values, self.values.grad, *state.values()):
            if isinstance(tensor, Tensor) and tensor.shape == self.values.shape:
                tensor.copy_(tensor[place].index_fill_(0, grown, 0.0))
        self.indptr.copy_(torch.from_numpy(pattern.indptr.copy()))
        self.indices.copy_(torch.from_numpy(pattern.indices.copy()))
        return source

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        keys = [prefix + name for name in ("indptr", "indices", "values")]
        if all(key in state_dict for key in keys):
            indptr, indices, values = (state_dict[key] for key in keys)
            Pattern(self.shape, indptr.cpu().numpy(), indices.cpu().numpy())  # refuses what is no pattern of this shape
            if values.shape == indices.shape and indices.shape != self.indices.shape:
                self.indices = self.indices.new_empty(indices.shape)
                self.values.data = self.values.data.new_empty(values.shape)
                self.values.grad = None
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Shape and density."""
        rows, cols = self.shape
        return f"{rows}x{cols}, nnz={self.nnz}, density={self.nnz / (rows * cols) if rows * cols else 0.0:.4g}"


@torch.no_grad()
def fan_in_uniform_(weight: SparseWeight, bound: float) -> None:
    """Uniform values, row by row within +-bound sqrt(cols / live connections of the row).

    Every row then passes on as much variance as a dense one within +-bound would, however few connections it has (as
    G2GNet starts, Konstantaropoulos et al. 2025, arXiv:2508.14140).

    Args:
        weight: filled in place.
        bound: of a dense row, e.g. 1 / sqrt(cols) for nn.Linear's.
    """
    counts = weight.indptr.diff()
    wide = bound * (weight.shape[1] / counts.clamp(min=1)).sqrt().to(weight.values.dtype)
    weight.values.uniform_(-1.0, 1.0).mul_(torch.repeat_interleave(wide, counts.long()))


def random_pattern(rows: int, cols: int, density: float | None, maker: PatternMaker | None, blocks: int = 1) -> Pattern:
    """A random pattern of ``density``, made gate block by gate block; random numbers are torch's.

    Raises:
        UsageError: the density is outside (0, 1], or there is neither a density nor a maker that brings its own.
    """
    if density is None and maker is not None:
        return Pattern.stack(maker(_random_scores(rows // blocks, cols), None) for _ in range(blocks))
    if density is None or not 0.0 < density <= 1.0:
        raise UsageError(f"density is {density}: expected a number above 0, up to 1; 0.1 keeps one connection in ten")
    if density == 1.0 and maker is None:
        return Pattern.full(rows, cols)
    if maker is None:
        return Pattern.stack(_any(rows // blocks, cols, density) for _ in range(blocks))
    return Pattern.stack(maker(_random_scores(rows // blocks, cols), 1.0 - density) for _ in range(blocks))


def _any(rows: int, cols: int, density: float) -> Pattern:
    """As many connections as ``density`` says, each set of them as likely as any other; in memory of the live ones."""
    keys = distinct(rows * cols, round(density * rows * cols))
    indptr = np.searchsorted(keys, np.arange(rows + 1) * cols)
    return Pattern((rows, cols), indptr.astype(np.int32), (keys % max(cols, 1)).astype(np.int32), unstructured.origin)


def distinct(many: int, n: int, generator: torch.Generator | None = None) -> NDArray[np.int64]:
    """``n`` different numbers below ``many``, ascending, each set of them as likely as any other."""
    if n > many // 2:
        return np.sort(torch.randperm(many, generator=generator)[:n].numpy())
    found = np.zeros(0, np.int64)
    while len(found) < n:  # draw, and draw again for what came twice
        drawn = torch.randint(many, (n - len(found),), generator=generator).numpy()
        merged = np.sort(np.concatenate([found, drawn]))
        found = merged[np.diff(merged, prepend=-1) > 0]
    return found


def _random_scores(rows: int, cols: int) -> NDArray[np.float64]:
    return np.asarray(torch.rand(rows, cols, dtype=torch.float64).numpy())
