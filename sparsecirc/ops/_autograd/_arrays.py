"""Tensors as the native kernels take them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparsecirc._native import kernels
from sparsecirc.errors import UnsupportedError, UsageError

POISON = False
"""Tests set it: workspace and outputs start as NaN, so that nothing read before it was written goes unseen."""


class Sparse(NamedTuple):
    """A sparse matrix as tensors: CSR pointers and columns (int32), the values of the live entries, (rows, cols)."""

    indptr: Tensor
    indices: Tensor
    values: Tensor
    shape: tuple[int, int]


def dense(weight: Sparse) -> Tensor:
    """The matrix itself, differentiable in its values; exact zeros elsewhere."""
    rows, cols = weight.shape
    counts = weight.indptr.diff().long()
    row = torch.repeat_interleave(torch.arange(rows, device=counts.device), counts, output_size=len(weight.indices))
    return weight.values.new_zeros(rows, cols).index_put((row, weight.indices.long()), weight.values)


@cache
def best_isa() -> str:
    """The most capable instruction set of this build and processor."""
    return kernels.isas()[-1]


def wide(batch: int) -> int:
    """Batch rounded up to whole vectors."""
    vector = kernels.vector(best_isa())
    return (batch + vector - 1) // vector * vector


def number_type(tensors: Sequence[Tensor | None]) -> torch.dtype:
    """The one number type of all tensors.

    Raises:
        UnsupportedError: a tensor is not on the CPU.
        UsageError: the number types differ, or are half precision.
    """
    here = [t for t in tensors if t is not None]
    if any(t.device.type != "cpu" for t in here):
        raise UnsupportedError("sparse layers are trained on the CPU in this version: move module and input there")
    kinds = {t.dtype for t in here}
    if len(kinds) != 1 or kinds <= {torch.float16, torch.bfloat16}:
        names = ", ".join(sorted(str(k) for k in kinds))
        raise UsageError(f"tensors of {names} in one sparse layer: expected all float32, or all float64")
    return kinds.pop()


def array(tensor: Tensor | None) -> Any:
    """The array of a tensor, copied where it is not contiguous (the gradient of a sum is one number, expanded)."""
    if tensor is None or tensor.is_contiguous():
        return None if tensor is None else tensor.detach().numpy()
    copy = torch.empty(tensor.shape, dtype=tensor.dtype)
    if tensor.dtype == torch.float32:
        kernels.expect_much(copy.numpy())
    return copy.copy_(tensor.detach()).numpy()


def present(tensors: Sequence[Tensor | None]) -> list[Any]:
    """Arrays to read; None for an empty tensor, which stands for nothing."""
    return [array(t) if t is not None and t.numel() else None for t in tensors]


def csr(indptr: Tensor | None, indices: Tensor | None, values: Tensor | None) -> Any:
    """A matrix as the kernels take it: pointers, columns, values."""
    return None if values is None else (array(indptr), array(indices), array(values))


def filled(tensors: Sequence[Tensor]) -> list[Any]:
    """Arrays to write to; None for a tensor that stands for nothing."""
    if POISON:
        for tensor in tensors:
            tensor.fill_(float("nan"))
    return [t.numpy() if t.numel() else None for t in tensors]


def parts(weight: Sparse | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """(values, pointers, columns) of a matrix, or Nones."""
    return (None, None, None) if weight is None else (weight.values, weight.indptr, weight.indices)


def unfilled(like: Tensor, shapes: Sequence[tuple[int, ...] | None]) -> tuple[Tensor, ...]:
    """Tensors to write to; an empty one for None, since an op returns tensors only."""
    return tuple(like.new_empty((0,) if shape is None else shape) for shape in shapes)
