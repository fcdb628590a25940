"""GRU layers on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparsecirc.errors import UnsupportedError
from sparsecirc.ops._autograd import Recurrence, Sparse
from sparsecirc.ops.triton import _kernels as kernels
from sparsecirc.ops.triton._matrix import (
    Layout,
    Matrix,
    check,
    features_first,
    features_last,
    grid,
    layout_of,
    on_device,
)


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
    """One GRU layer over whole sequences, as `sparsecirc.ops._autograd.recurrent`.

    Raises:
        UnsupportedError: another cell, or packed sequences.
        UsageError: a tensor is not float32, or on another device.
    """
    if job.cell != "gru":
        raise UnsupportedError(f"cell '{job.cell}' has no GPU kernels in this version: train on the CPU, or use a GRU")
    if offsets is not None:
        raise UnsupportedError("packed sequences have no GPU kernels in this version: pad them, or train on the CPU")
    check(x, *state, ih.values, hh.values, bias_ih, bias_hh)
    layouts = layout_of(ih.indptr, ih.indices, ih.shape), layout_of(hh.indptr, hh.indices, hh.shape)
    out, last = _Gru.apply(x, state[0], ih.values, hh.values, bias_ih, bias_hh, layouts, job.reverse)  # type: ignore[no-untyped-call]
    return out, [last]


class _Gru(torch.autograd.Function):
    """x (T, B, in), h (B, units) -> out (T, B, units), last (B, units)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor, ih: Tensor, hh: Tensor, bias_ih: Tensor | None, bias_hh: Tensor | None,
        layouts: tuple[Layout, Layout], reverse: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        steps, batch, units = x.shape[0], x.shape[1], h.shape[1]
        with on_device(x):
            w = Matrix(layouts[1], hh.detach().contiguous())
            inputs = features_first(x)
            drive = Matrix(layouts[0], ih.detach().contiguous()).times(inputs, bias_ih)  # (3 units, T * B)
            states = x.new_empty((steps + 1, units, batch))  # in the order of processing
            states[0] = h.detach().t()
            gates = x.new_empty((steps, 4, units, batch))
            for k in range(steps if batch else 0):
                t = steps - 1 - k if reverse else k
                kernels.gru_forward[grid(units, batch)](
                    *w.arrays, drive if bias_hh is None else bias_hh, drive[:, t * batch :], states[k], states[k + 1],
                    gates[k], units, batch, steps * batch, HAS_BIAS=bias_hh is not None, LANES=kernels.LANES,
                )  # fmt: skip
        ctx.save_for_backward(ih, hh, inputs, states, gates)
        ctx.layouts, ctx.reverse = layouts, reverse
        out = states[1:].flip(0) if reverse else states[1:]
        return out.transpose(1, 2).contiguous(), states[steps].t().contiguous()

    @staticmethod
    def backward(ctx: Any, g_out: Tensor, g_last: Tensor) -> tuple[Tensor | None, ...]:
        ih, hh, inputs, states, gates = ctx.saved_tensors
        steps, _, units, batch = gates.shape
        wih, whh = (Matrix(layout, v.contiguous()) for layout, v in zip(ctx.layouts, (ih, hh), strict=True))
        with on_device(ih):
            back = whh.transposed
            grads = g_out.transpose(1, 2).contiguous()
            carry = g_last.t().contiguous()
            d_rec = carry.new_zeros((steps + 1, 3 * units, batch))  # the last stays zero: nothing comes after it
            d_drive = carry.new_empty((3 * units, steps * batch))
            for k in range(steps - 1 if batch else -1, -1, -1):
                t = steps - 1 - k if ctx.reverse else k
                kernels.gru_backward[grid(units, batch)](
                    *back.arrays, d_rec[k + 1], gates[k], states[k], grads[t], carry, d_rec[k], d_drive[:, t * batch :],
                    units, batch, steps * batch, LANES=kernels.LANES,
                )  # fmt: skip
            dh = (back.times(d_rec[0]) + carry).t()
            dx = features_last(wih.transposed.times(d_drive), steps, batch)
            d_hh = whh.sampled(d_rec[:steps], states[:steps])
            d_ih = wih.sampled(d_drive[None], inputs[None])
        d_biases = (d_drive.sum(1), d_rec.sum((0, 2)))
        biases = (d if wanted else None for d, wanted in zip(d_biases, ctx.needs_input_grad[4:6], strict=True))
        return dx, dh, d_ih, d_hh, *biases, None, None
