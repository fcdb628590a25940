"""The same layers in plain torch, step by step on dense matrices: the truth for the native gradients.

It computes in any number type; gradcheck runs on it in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import linear as dense_linear

if TYPE_CHECKING:
    from sparsecirc.ops._autograd import Recurrence, Sparse


def dense(weight: Sparse) -> Tensor:
    """The matrix itself, differentiable in its values; exact zeros elsewhere."""
    rows, cols = weight.shape
    counts = weight.indptr.diff().long()
    row = torch.repeat_interleave(torch.arange(rows, device=counts.device), counts, output_size=len(weight.indices))
    return weight.values.new_zeros(rows, cols).index_put((row, weight.indices.long()), weight.values)


def linear(x: Tensor, weight: Sparse, bias: Tensor | None) -> Tensor:
    """``x W^T + bias``."""
    return dense_linear(x, dense(weight), bias)


def slope(kind: str, v: Tensor, k: float) -> Tensor:
    """What stands in for the derivative of ``v > 0``, as snntorch.surrogate has it."""
    if kind == "fast_sigmoid":
        return 1 / (k * v.abs() + 1) ** 2
    if kind == "atan":
        return k / 2 / (1 + (math.pi / 2 * k * v) ** 2)
    if kind == "sigmoid":
        e = torch.exp(-k * v.abs())  # even in v: no overflow
        return k * e / (e + 1) ** 2
    if kind == "triangular":
        return torch.where(v >= 0, -k, k).to(v.dtype)
    return torch.ones_like(v)


class _Spike(torch.autograd.Function):
    """1 where v > 0, with a surrogate derivative."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, kind: str, k: float) -> Tensor:
        ctx.save_for_backward(v)
        ctx.kind, ctx.k = kind, k
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (v,) = ctx.saved_tensors
        return grad * slope(ctx.kind, v, ctx.k), None, None


def _gated(cell: str, drive: Tensor, rec: Tensor, state: list[Tensor]) -> list[Tensor]:
    h = state[0]
    if cell == "rnn_tanh":
        return [torch.tanh(drive + rec)]
    if cell == "rnn_relu":
        return [torch.relu(drive + rec)]
    if cell == "gru":
        (ar, az, an), (br, bz, bn) = drive.chunk(3, -1), rec.chunk(3, -1)
        r, z = torch.sigmoid(ar + br), torch.sigmoid(az + bz)
        n = torch.tanh(an + r * bn)
        return [n + z * (h - n)]
    i, f, g, o = (drive + rec).chunk(4, -1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return [torch.sigmoid(o) * torch.tanh(c), c]


def _lif(job: Recurrence, drive: Tensor, state: list[Tensor], beta: Tensor, theta: Tensor) -> list[Tensor]:
    mem = state[1]
    due = (mem > theta).to(mem.dtype).detach()
    if job.reset == "zero":
        mem = (1 - due) * mem
    mem = beta * mem + drive
    if job.reset == "subtract":
        mem = mem - due * theta
    elif job.reset == "zero_update":
        mem = mem - due * mem
    spk: Tensor = _Spike.apply(mem - theta, job.surrogate, job.scale)  # type: ignore[no-untyped-call]
    if not job.delay:
        now = spk - due
        if job.reset == "subtract":
            mem = mem - now * theta
        elif job.reset != "none":
            mem = mem - now * mem
    return [spk, mem]


def recurrent(
    job: Recurrence,
    x: Tensor,
    state: Sequence[Tensor],
    ih: Sparse | None,
    hh: Sparse | None,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    beta: Tensor | None,
    theta: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `sparsecirc.ops._autograd.recurrent`."""
    drive = linear(x, ih, bias_ih) if ih is not None else x
    weight = dense(hh) if hh is not None else None
    now = list(state)
    kept: list[list[Tensor]] = []
    steps = range(x.shape[0])
    for t in reversed(steps) if job.reverse else steps:
        rec = dense_linear(now[0], weight, bias_hh) if weight is not None else torch.zeros_like(drive[t])
        if job.cell == "lif":
            assert beta is not None
            assert theta is not None
            now = _lif(job, drive[t] + rec, now, beta, theta)
        else:
            now = _gated(job.cell, drive[t], rec, now)
        kept.append(now)
    if job.reverse:
        kept.reverse()
    none = x.new_empty(0)
    outs = [torch.stack([k[i] for k in kept]) if kept else x.new_empty((0, *now[i].shape)) for i in range(len(now))]
    if job.cell == "lif":
        return outs[0], outs[1], none, none
    return outs[0], none, now[0], now[1] if len(now) > 1 else none
