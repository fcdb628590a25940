"""Products with sparse matrices on a GPU, whole blocks at a time where the pattern is made of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecirc.errors import UsageError
from sparsecirc.ops._autograd import Sparse
from sparsecirc.ops.triton._matrix import BLOCK as BLOCK
from sparsecirc.ops.triton._matrix import (
    Layout,
    Matrix,
    check,
    features_first,
    features_last,
    layout_of,
    on_device,
)


def linear(x: Tensor, weight: Sparse, bias: Tensor | None) -> Tensor:
    """``x W^T + bias`` for x (..., in), as `sparsecirc.ops._autograd.linear`.

    A pattern of whole 16 x 16 blocks is multiplied block by block on the matrix units, in full float32.

    Raises:
        UsageError: a tensor is not float32 or on another device, or x has other features.
    """
    if x.shape[-1:] != weight.shape[1:]:
        raise UsageError(f"input of shape {tuple(x.shape)}: expected {weight.shape[1]} features in the last axis")
    check(x, weight.values, bias)
    layout = layout_of(weight.indptr, weight.indices, weight.shape)
    y: Tensor = _Linear.apply(x, weight.values, bias, layout)  # type: ignore[no-untyped-call]
    return y


def _matrix(layout: Layout, values: Tensor) -> Matrix:
    """In blocks where the pattern has them."""
    flat = values.detach().contiguous()
    if layout.blocks is None:
        return Matrix(layout, flat)
    blocks, order = layout.blocks
    return Matrix(blocks, flat[order].reshape(-1, BLOCK, BLOCK))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, layout: Layout) -> Tensor:
        with on_device(x):
            inputs = features_first(x)
            y = _matrix(layout, values).times(inputs, bias)
        ctx.save_for_backward(values, inputs)
        ctx.layout, ctx.lead = layout, x.shape[:-1]
        return features_last(y, *ctx.lead)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        values, inputs = ctx.saved_tensors
        with on_device(g):
            w, grads = _matrix(ctx.layout, values), features_first(g)
            dx = features_last(w.transposed.times(grads), *ctx.lead)
            d_values = w.sampled(grads[None], inputs[None]).reshape(-1)
            if ctx.layout.blocks is not None:
                d_values = torch.empty_like(d_values).index_copy_(0, ctx.layout.blocks[1], d_values)
        return dx, d_values, grads.sum(1) if ctx.needs_input_grad[2] else None, None
