"""The product with a sparse matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparsecirc._native import kernels
from sparsecirc.errors import UsageError
from sparsecirc.ops._autograd import _arrays as arrays
from sparsecirc.ops._autograd import _reference as reference
from sparsecirc.ops._autograd._arrays import Sparse


def linear(x: Tensor, weight: Sparse, bias: Tensor | None) -> Tensor:
    """``x W^T + bias`` for x (..., in); gradients for x, the values and the bias.

    Raises:
        UnsupportedError: a tensor is not on the CPU.
        UsageError: the number types of the tensors differ, or x has other features.
    """
    rows, cols = weight.shape
    if x.shape[-1:] != (cols,):
        raise UsageError(f"input of shape {tuple(x.shape)}: expected {cols} features in the last axis")
    if arrays.number_type([x, weight.values, bias]) == torch.float64:
        return reference.linear(x, weight, bias)
    y: Tensor = _linear(x.reshape(-1, cols), weight.values, bias, weight.indptr, weight.indices)
    return y.reshape(*x.shape[:-1], rows)


@torch.library.custom_op("sparsecirc::linear", mutates_args=())
def _linear(x: Tensor, values: Tensor, bias: Tensor | None, indptr: Tensor, indices: Tensor) -> Tensor:
    y = x.new_empty((x.shape[0], indptr.shape[0] - 1))
    kernels.train_linear(
        arrays.best_isa(), arrays.csr(indptr, indices, values), arrays.array(x), arrays.array(bias), y.numpy(),
        arrays.POISON,
    )  # fmt: skip
    return y


@_linear.register_fake
def _(x: Tensor, values: Tensor, bias: Tensor | None, indptr: Tensor, indices: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], indptr.shape[0] - 1))


@torch.library.custom_op("sparsecirc::linear_backward", mutates_args=())
def _linear_backward(
    g: Tensor, x: Tensor, values: Tensor, indptr: Tensor, indices: Tensor, wants: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    grads = _gradients(g, x, values, wants)
    dx, dv, db = (t.numpy() if want else None for t, want in zip(grads, wants, strict=True))
    kernels.train_linear_backward(
        arrays.best_isa(), arrays.csr(indptr, indices, values), arrays.array(x), arrays.array(g), dx, dv, db,
        arrays.POISON,
    )  # fmt: skip
    return grads


def _gradients(g: Tensor, x: Tensor, values: Tensor, wants: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (tuple(x.shape), tuple(values.shape), (g.shape[1],))
    dx, dv, db = arrays.unfilled(x, [shape if want else None for shape, want in zip(shapes, wants, strict=True)])
    return dx, dv, db


@_linear_backward.register_fake
def _(g: Tensor, x: Tensor, values: Tensor, indptr: Tensor, indices: Tensor, wants: list[bool]) -> tuple[Tensor, ...]:
    return _gradients(g, x, values, wants)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, values, _bias, indptr, indices = inputs
    ctx.save_for_backward(x, values, indptr, indices)


def _back(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    wants = list(ctx.needs_input_grad[:3])
    made = _linear_backward(g, *ctx.saved_tensors, wants)
    return (*(t if want else None for t, want in zip(made, wants, strict=True)), None, None)


_linear.register_autograd(_back, setup_context=_keep)
