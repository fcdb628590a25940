"""Training ops for torch: one call runs a whole sequence, forward or backward, on the native kernels.

Each op is a ``torch.library.custom_op`` with fake and autograd registered, so `torch.compile` sees it as one node.
Float64 goes through the reference in ``_autograd_reference.py``; the native kernels compute in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparsecirc._native import kernels
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.ops import _autograd_reference as reference

GATES = {"rnn_tanh": 1, "rnn_relu": 1, "gru": 3, "lstm": 4, "lif": 1}
"""Cells that can be trained, and how many gate blocks their weights stack."""

POISON = False
"""Tests set it: workspace and outputs start as NaN, so that nothing read before it was written goes unseen."""

_KEPT_GATES = {"gru": 4, "lstm": 4}


class Sparse(NamedTuple):
    """A sparse matrix as tensors: CSR pointers and columns (int32), the values of the live entries, (rows, cols)."""

    indptr: Tensor
    indices: Tensor
    values: Tensor
    shape: tuple[int, int]


@dataclass(frozen=True)
class Recurrence:
    """What a layer computes, beside its tensors.

    Attributes:
        cell: a key of `GATES`.
        reverse: whether it runs from the last step to the first.
        reset: name of a `sparsecirc.cells.Reset` (spiking cells).
        delay: whether a reset acts one step after its spike.
        surrogate: what stands in for the derivative of the spike; see `sparsecirc.nn.Surrogate`.
        scale: its parameter.
    """

    cell: str
    reverse: bool = False
    reset: str = "none"
    delay: bool = True
    surrogate: str = "straight_through"
    scale: float = 1.0


@cache
def best_isa() -> str:
    """The most capable instruction set of this build and processor."""
    return kernels.isas()[-1]


def recurrent(
    job: Recurrence,
    x: Tensor,
    state: Sequence[Tensor],
    *,
    ih: Sparse | None = None,
    hh: Sparse | None = None,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    beta: Tensor | None = None,
    theta: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One layer over whole sequences.

    Args:
        job: the recurrence.
        x: (T, B, in); the drive itself, (T, B, units), where there is no ``ih``.
        state: initial states (B, units) in the order of the cell (h; h, c; spk, mem).
        ih: input weight (gates * units, in).
        hh: recurrent weight (gates * units, units).
        bias_ih: (gates * units,), or None.
        bias_hh: (gates * units,), or None.
        beta: (units,) of a spiking cell.
        theta: threshold (units,) of a spiking cell.

    Returns:
        (out, out of the second state, last, last of the second state). Gated cells have no second out, spiking ones
        no last, cells of one state no second last: those tensors are empty.

    Raises:
        UnsupportedError: a tensor is not on the CPU.
        UsageError: the number types of the tensors differ.
    """
    tensors = [x, *state, bias_ih, bias_hh, beta, theta, ih.values if ih else None, hh.values if hh else None]
    if _dtype(tensors) == torch.float64:
        return reference.recurrent(job, x, state, ih, hh, bias_ih, bias_hh, beta, theta)
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    pattern = [t for w in (ih, hh) for t in ((w.indptr, w.indices) if w else (None, None))]
    made = _recurrent(
        x, state[0], state[1] if len(state) > 1 else None, ih.values if ih else None, hh.values if hh else None,
        bias_ih, bias_hh, beta, theta, *pattern, job.cell, job.reverse, job.reset, job.delay, job.surrogate,
        job.scale, save,
    )  # fmt: skip
    return made[0], made[1], made[2], made[3]


def linear(x: Tensor, weight: Sparse, bias: Tensor | None) -> Tensor:
    """``x W^T + bias`` for x (..., in); gradients for x, the values and the bias. Errors as `recurrent`."""
    rows, cols = weight.shape
    if x.shape[-1:] != (cols,):
        raise UsageError(f"input of shape {tuple(x.shape)}: expected {cols} features in the last axis")
    if _dtype([x, weight.values, bias]) == torch.float64:
        return reference.linear(x, weight, bias)
    y: Tensor = _linear(x.reshape(-1, cols), weight.values, bias, weight.indptr, weight.indices)
    return y.reshape(*x.shape[:-1], rows)


def _dtype(tensors: Sequence[Tensor | None]) -> torch.dtype:
    """The one number type of all tensors."""
    here = [t for t in tensors if t is not None]
    if any(t.device.type != "cpu" for t in here):
        raise UnsupportedError("sparse layers are trained on the CPU in this version: move module and input there")
    kinds = {t.dtype for t in here}
    if len(kinds) != 1 or kinds <= {torch.float16, torch.bfloat16}:
        names = ", ".join(sorted(str(k) for k in kinds))
        raise UsageError(f"tensors of {names} in one sparse layer: expected all float32, or all float64")
    return kinds.pop()


# ---- native ops -----------------------------------------------------------------------------------------------------
def _array(tensor: Tensor | None) -> Any:
    """The array of a tensor, copied where it is not contiguous (the gradient of a sum is one number, expanded)."""
    if tensor is None or tensor.is_contiguous():
        return None if tensor is None else tensor.detach().numpy()
    copy = torch.empty(tensor.shape, dtype=tensor.dtype)
    if tensor.dtype == torch.float32:
        kernels.expect_much(copy.numpy())
    return copy.copy_(tensor.detach()).numpy()


def _present(tensors: Sequence[Tensor | None]) -> list[Any]:
    """Arrays to read; None for an empty tensor, which stands for nothing."""
    return [_array(t) if t is not None and t.numel() else None for t in tensors]


def _csr(indptr: Tensor | None, indices: Tensor | None, values: Tensor | None) -> Any:
    return None if values is None else (_array(indptr), _array(indices), _array(values))


def _filled(tensor: Tensor) -> Any:
    """The array to write to, or None for a tensor that stands for nothing."""
    if POISON:
        tensor.fill_(float("nan"))
    return tensor.numpy() if tensor.numel() else None


def _wide(batch: int) -> int:
    """Batch rounded up to whole vectors."""
    vector = kernels.vector(best_isa())
    return (batch + vector - 1) // vector * vector


def _outputs(x: Tensor, state0: Tensor, cell: str, delay: bool, save: bool) -> tuple[Tensor, ...]:
    """Unfilled outputs of `_recurrent`."""
    steps, batch, units = x.shape[0], x.shape[1], state0.shape[1]
    spiking, wide = cell == "lif", _wide(batch)
    none = (0,)
    shapes = (
        (steps, batch, units),
        (steps, batch, units) if spiking else none,
        none if spiking else (batch, units),
        (batch, units) if cell == "lstm" else none,
        (steps, _KEPT_GATES[cell], units, wide) if save and cell in _KEPT_GATES else none,
        (steps + 1, units, wide) if save and not spiking else none,
        (steps + 1, units, wide) if save and cell in ("lstm", "lif") else none,
        (steps, units, wide) if save and spiking and not delay else none,
    )
    return tuple(x.new_empty(shape) for shape in shapes)


@torch.library.custom_op("sparsecirc::recurrent", mutates_args=())
def _recurrent(
    x: Tensor,
    state0: Tensor,
    state1: Tensor | None,
    ih: Tensor | None,
    hh: Tensor | None,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    beta: Tensor | None,
    theta: Tensor | None,
    ih_indptr: Tensor | None,
    ih_indices: Tensor | None,
    hh_indptr: Tensor | None,
    hh_indices: Tensor | None,
    cell: str,
    reverse: bool,
    reset: str,
    delay: bool,
    surrogate: str,
    scale: float,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    made = _outputs(x, state0, cell, delay, save)
    arrays = [_filled(t) for t in made]
    kernels.train_forward(
        best_isa(), cell, state0.shape[1], reverse, reset, delay, _array(x), _csr(ih_indptr, ih_indices, ih),
        _csr(hh_indptr, hh_indices, hh), _array(bias_ih), _array(bias_hh), _array(beta), _array(theta),
        [_array(state0), _array(state1)], arrays[:2], arrays[2:4], arrays[4:], POISON,
    )  # fmt: skip
    return made  # type: ignore[return-value]


@_recurrent.register_fake
def _(x: Tensor, state0: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    cell, _reverse, _reset, delay, _surrogate, _scale, save = rest[-7:]
    return _outputs(x, state0, cell, delay, save)


@torch.library.custom_op("sparsecirc::recurrent_backward", mutates_args=())
def _recurrent_backward(
    g_out0: Tensor | None,
    g_out1: Tensor | None,
    g_last0: Tensor | None,
    g_last1: Tensor | None,
    x: Tensor,
    state0: Tensor,
    ih: Tensor | None,
    hh: Tensor | None,
    beta: Tensor | None,
    theta: Tensor | None,
    ih_indptr: Tensor | None,
    ih_indices: Tensor | None,
    hh_indptr: Tensor | None,
    hh_indices: Tensor | None,
    gates: Tensor,
    states0: Tensor,
    states1: Tensor,
    fired: Tensor,
    cell: str,
    reverse: bool,
    reset: str,
    delay: bool,
    surrogate: str,
    scale: float,
    wants: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    grads = _gradients(x, ih, hh, state0, cell, wants)
    units = state0.shape[1]
    if not state0.numel():  # no samples or no units: nothing flows
        for g in grads:
            g.zero_()
        return grads  # type: ignore[return-value]
    kernels.train_backward(
        best_isa(), cell, units, reverse, reset, delay, surrogate, scale, _array(x), _csr(ih_indptr, ih_indices, ih),
        _csr(hh_indptr, hh_indices, hh), _array(beta), _array(theta),
        _array(state0) if cell == "lif" else None, _present([gates, states0, states1, fired]),
        _present([g_out0, g_out1]), _present([g_last0, g_last1]), [_filled(t) for t in grads], POISON,
    )  # fmt: skip
    return grads  # type: ignore[return-value]


def _gradients(
    x: Tensor, ih: Tensor | None, hh: Tensor | None, state0: Tensor, cell: str, wants: Sequence[bool]
) -> tuple[Tensor, ...]:
    """Unfilled gradients in the order of the arguments of `_recurrent`; empty where not wanted."""
    units, rows = state0.shape[1], GATES[cell] * state0.shape[1]
    batch = x.shape[1]
    shapes: tuple[tuple[int, ...], ...] = (
        tuple(x.shape), (batch, units), (batch, units), tuple(ih.shape) if ih is not None else (0,),
        tuple(hh.shape) if hh is not None else (0,), (rows,), (rows,), (units,), (units,),
    )  # fmt: skip
    return tuple(x.new_empty(shape if want else (0,)) for shape, want in zip(shapes, wants, strict=True))


@_recurrent_backward.register_fake
def _(*args: Any) -> tuple[Tensor, ...]:
    return _gradients(args[4], args[6], args[7], args[5], args[18], args[-1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, state0, _state1, ih, hh, _bias_ih, _bias_hh, beta, theta, *rest = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[4:])
    ctx.save_for_backward(x, state0, ih, hh, beta, theta, *rest[:4], *output[4:])
    ctx.options = rest[4:10]


def _back(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    wants = list(ctx.needs_input_grad[:9])
    made = _recurrent_backward(*grads[:4], *ctx.saved_tensors, *ctx.options, wants)
    return (*(g if want else None for g, want in zip(made, wants, strict=True)), *[None] * 11)


_recurrent.register_autograd(_back, setup_context=_keep)


@torch.library.custom_op("sparsecirc::linear", mutates_args=())
def _linear(x: Tensor, values: Tensor, bias: Tensor | None, indptr: Tensor, indices: Tensor) -> Tensor:
    y = x.new_empty((x.shape[0], indptr.shape[0] - 1))
    kernels.train_linear(best_isa(), _csr(indptr, indices, values), _array(x), _array(bias), y.numpy(), POISON)
    return y


@_linear.register_fake
def _(x: Tensor, values: Tensor, bias: Tensor | None, indptr: Tensor, indices: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], indptr.shape[0] - 1))


@torch.library.custom_op("sparsecirc::linear_backward", mutates_args=())
def _linear_backward(
    g: Tensor, x: Tensor, values: Tensor, indptr: Tensor, indices: Tensor, wants: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    grads = _linear_gradients(g, x, values, wants)
    arrays = [t.numpy() if want else None for t, want in zip(grads, wants, strict=True)]
    dx, dv, db = arrays
    kernels.train_linear_backward(best_isa(), _csr(indptr, indices, values), _array(x), _array(g), dx, dv, db, POISON)
    return grads


def _linear_gradients(g: Tensor, x: Tensor, values: Tensor, wants: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (tuple(x.shape), tuple(values.shape), (g.shape[1],))
    dx, dv, db = (x.new_empty(shape if want else (0,)) for shape, want in zip(shapes, wants, strict=True))
    return dx, dv, db


@_linear_backward.register_fake
def _(g: Tensor, x: Tensor, values: Tensor, indptr: Tensor, indices: Tensor, wants: list[bool]) -> tuple[Tensor, ...]:
    return _linear_gradients(g, x, values, wants)


def _keep_linear(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, values, _bias, indptr, indices = inputs
    ctx.save_for_backward(x, values, indptr, indices)


def _back_linear(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    wants = list(ctx.needs_input_grad[:3])
    made = _linear_backward(g, *ctx.saved_tensors, wants)
    return (*(t if want else None for t, want in zip(made, wants, strict=True)), None, None)


_linear.register_autograd(_back_linear, setup_context=_keep_linear)
