"""Elman, GRU and LSTM layers over whole sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsecirc._native import kernels
from sparsecirc.ops._autograd import _arrays as arrays
from sparsecirc.ops._autograd import _reference as reference
from sparsecirc.ops._autograd._arrays import Sparse

GATES = {"rnn_tanh": 1, "rnn_relu": 1, "gru": 3, "lstm": 4}
"""Gated cells that can be trained, and how many gate blocks their weights stack."""

_KEPT_GATES = {"gru": 4, "lstm": 4}


@dataclass(frozen=True)
class Recurrence:
    """What a gated layer computes, beside its tensors.

    Attributes:
        cell: a key of `GATES`.
        reverse: whether it runs from the last step to the first.
    """

    cell: str
    reverse: bool = False


def recurrent(
    job: Recurrence,
    x: Tensor,
    state: Sequence[Tensor],
    *,
    ih: Sparse,
    hh: Sparse,
    hr: Sparse | None = None,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    offsets: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """One layer over whole sequences.

    Args:
        job: the recurrence.
        x: (T, B, in), or (rows, in) of packed sequences.
        state: initial states in the order of the cell: h (B, width), where the width is the units or those of the
            projection, and c (B, units).
        ih: input weight (gates * units, in).
        hh: recurrent weight (gates * units, width).
        hr: projection (width, units) of an LSTM, or None.
        bias_ih: (gates * units,), or None.
        bias_hh: (gates * units,), or None.
        offsets: row of x in which each time step begins, and their end: int64 (T + 1,); later steps have fewer
            samples, of the longest sequences, which come first. None where each step has all samples.

    Returns:
        (out (T, B, width) or (rows, width), last states).

    Raises:
        UnsupportedError: a tensor is not on the CPU.
        UsageError: the number types of the tensors differ.
    """
    values = [w.values if w is not None else None for w in (ih, hh, hr)]
    tensors = [x, *state, bias_ih, bias_hh, *values]
    if arrays.number_type(tensors) == torch.float64:
        return reference.recurrent(job.cell, job.reverse, x, state, ih, hh, hr, bias_ih, bias_hh, offsets)
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    pattern = [t for w in (ih, hh, hr) for t in arrays.parts(w)[1:]]
    made = _recurrent(
        x, state[0], state[1] if len(state) > 1 else None, *values, bias_ih, bias_hh, *pattern, offsets, job.cell,
        job.reverse, save,
    )  # fmt: skip
    return made[0], list(made[1 : 1 + len(state)])


def _units(cell: str, hh_indptr: Tensor) -> int:
    return (hh_indptr.shape[0] - 1) // GATES[cell]


def _outputs(x: Tensor, state0: Tensor, units: int, offsets: Tensor | None, cell: str, save: bool) -> tuple[Any, ...]:
    """Unfilled outputs of `_recurrent`: out, last states, and what backward needs: gates and states of each step."""
    batch, width = state0.shape
    steps, wide = x.shape[0] if offsets is None else offsets.shape[0] - 1, arrays.wide(batch)
    lstm = cell == "lstm"
    shapes = (
        (*x.shape[:-1], width),
        (batch, width),
        (batch, units) if lstm else None,
        (steps, _KEPT_GATES[cell], units, wide) if save and cell in _KEPT_GATES else None,
        (steps + 1, width, wide) if save else None,
        (steps + 1, units, wide) if save and lstm else None,
    )
    return arrays.unfilled(x, shapes)


def _weights(values: Sequence[Tensor | None], pattern: Sequence[Tensor | None]) -> list[Any]:
    """Three matrices from their values and from pointers and columns in turns."""
    return [arrays.csr(pattern[2 * k], pattern[2 * k + 1], v) for k, v in enumerate(values)]


@torch.library.custom_op("sparsecirc::recurrent", mutates_args=())
def _recurrent(
    x: Tensor,
    state0: Tensor,
    state1: Tensor | None,
    ih: Tensor,
    hh: Tensor,
    hr: Tensor | None,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    ih_indptr: Tensor,
    ih_indices: Tensor,
    hh_indptr: Tensor,
    hh_indices: Tensor,
    hr_indptr: Tensor | None,
    hr_indices: Tensor | None,
    offsets: Tensor | None,
    cell: str,
    reverse: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    units = _units(cell, hh_indptr)
    made = _outputs(x, state0, units, offsets, cell, save)
    out, *rest = arrays.filled(made)
    pattern = (ih_indptr, ih_indices, hh_indptr, hh_indices, hr_indptr, hr_indices)
    kernels.train_forward(
        arrays.best_isa(), cell, [units, state0.shape[0]], reverse, arrays.array(x), arrays.array(offsets),
        _weights((ih, hh, hr), pattern), [arrays.array(bias_ih), arrays.array(bias_hh)],
        [arrays.array(state0), arrays.array(state1)], out, rest[:2], rest[2:], arrays.POISON,
    )  # fmt: skip
    return made


@_recurrent.register_fake
def _(x: Tensor, state0: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    offsets, cell, _reverse, save = rest[-4:]
    return _outputs(x, state0, _units(cell, rest[8]), offsets, cell, save)


@torch.library.custom_op("sparsecirc::recurrent_backward", mutates_args=())
def _recurrent_backward(
    g_out: Tensor | None,
    g_last0: Tensor | None,
    g_last1: Tensor | None,
    x: Tensor,
    state0: Tensor,
    ih: Tensor,
    hh: Tensor,
    hr: Tensor | None,
    ih_indptr: Tensor,
    ih_indices: Tensor,
    hh_indptr: Tensor,
    hh_indices: Tensor,
    hr_indptr: Tensor | None,
    hr_indices: Tensor | None,
    offsets: Tensor | None,
    gates: Tensor,
    states0: Tensor,
    states1: Tensor,
    cell: str,
    reverse: bool,
    wants: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    units = _units(cell, hh_indptr)
    grads = _gradients(x, state0, ih, hh, hr, units, cell, wants)
    if not state0.shape[0]:  # no samples: nothing flows
        for g in grads:
            g.zero_()
        return grads  # type: ignore[return-value]
    pattern = (ih_indptr, ih_indices, hh_indptr, hh_indices, hr_indptr, hr_indices)
    kernels.train_backward(
        arrays.best_isa(), cell, [units, state0.shape[0]], reverse, arrays.array(x), arrays.array(offsets),
        _weights((ih, hh, hr), pattern), arrays.present([gates, states0, states1]), arrays.present([g_out])[0],
        arrays.present([g_last0, g_last1]), arrays.filled(grads), arrays.POISON,
    )  # fmt: skip
    return grads  # type: ignore[return-value]


def _gradients(
    x: Tensor, state0: Tensor, ih: Tensor, hh: Tensor, hr: Tensor | None, units: int, cell: str, wants: Sequence[bool]
) -> tuple[Tensor, ...]:
    """Unfilled gradients in the order of the arguments of `_recurrent`; empty where not wanted."""
    batch, rows = state0.shape[0], GATES[cell] * units
    shapes: tuple[tuple[int, ...], ...] = (
        tuple(x.shape), tuple(state0.shape), (batch, units), tuple(ih.shape), tuple(hh.shape),
        tuple(hr.shape) if hr is not None else (0,), (rows,), (rows,),
    )  # fmt: skip
    return arrays.unfilled(x, [shape if want else None for shape, want in zip(shapes, wants, strict=True)])


@_recurrent_backward.register_fake
def _(_g_out: Any, _g_last0: Any, _g_last1: Any, *rest: Any) -> tuple[Tensor, ...]:
    x, state0, ih, hh, hr, _ip, _ii, hh_indptr, *_others, cell, _reverse, wants = rest
    return _gradients(x, state0, ih, hh, hr, _units(cell, hh_indptr), cell, wants)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, state0, _state1, ih, hh, hr, _bias_ih, _bias_hh, *pattern_and_offsets = inputs[:15]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[3:])
    ctx.save_for_backward(x, state0, ih, hh, hr, *pattern_and_offsets, *output[3:])
    ctx.options = inputs[15:17]


def _back(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    wants = list(ctx.needs_input_grad[:8])
    made = _recurrent_backward(*grads[:3], *ctx.saved_tensors, *ctx.options, wants)
    return (*(g if want else None for g, want in zip(made, wants, strict=True)), *[None] * 10)


_recurrent.register_autograd(_back, setup_context=_keep)
