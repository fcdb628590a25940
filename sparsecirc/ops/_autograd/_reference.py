"""The same layers in plain torch, step by step on dense matrices: the truth for the native gradients.

It computes in any number type; gradcheck runs on it in float64.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import linear as dense_linear

from sparsecirc.ops._autograd._arrays import Sparse, dense

if TYPE_CHECKING:
    from sparsecirc.ops._autograd._spiking import Spiking


def linear(x: Tensor, weight: Sparse, bias: Tensor | None) -> Tensor:
    """``x W^T + bias``."""
    return dense_linear(x, dense(weight), bias)


def _gated(cell: str, drive: Tensor, rec: Tensor, state: list[Tensor], hr: Tensor | None) -> list[Tensor]:
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
    h = torch.sigmoid(o) * torch.tanh(c)
    return [h if hr is None else dense_linear(h, hr), c]


def recurrent(
    cell: str,
    reverse: bool,
    x: Tensor,
    state: Sequence[Tensor],
    ih: Sparse,
    hh: Sparse,
    hr: Sparse | None,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    offsets: Tensor | None,
) -> tuple[Tensor, list[Tensor]]:
    """As `sparsecirc.ops._autograd.recurrent`."""
    drive = linear(x, ih, bias_ih)
    if offsets is None:
        moments = list(drive.unbind(0))
    else:
        moments = [drive[a:b] for a, b in itertools.pairwise(offsets.tolist())]
    weight, projection = dense(hh), dense(hr) if hr is not None else None
    now = list(state)
    outs: list[Tensor] = []
    for one in reversed(moments) if reverse else moments:
        count = len(one)
        before = [s[:count] for s in now]
        after = _gated(cell, one, dense_linear(before[0], weight, bias_hh), before, projection)
        now = [torch.cat([a, s[count:]]) for a, s in zip(after, now, strict=True)]
        outs.append(after[0])
    if reverse:
        outs.reverse()
    if not outs:
        return x.new_empty((*x.shape[:-1], state[0].shape[1])), now
    return torch.stack(outs) if offsets is None else torch.cat(outs), now


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


def _membrane(job: Spiking, drive: Tensor, mem: Tensor, beta: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """(spikes, membranes) after a step whose ``drive`` is all that enters the membrane."""
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
    return spk, mem


def spiking(
    job: Spiking,
    x: Tensor,
    spk: Tensor | None,
    syn: Tensor | None,
    mem: Tensor,
    hh: Sparse | None,
    bias: Tensor | None,
    alpha: Tensor | None,
    beta: Tensor,
    theta: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `sparsecirc.ops._autograd.spiking`."""
    weight = dense(hh) if hh is not None else None
    kept: dict[str, list[Tensor]] = {"spk": [], "syn": [], "mem": []}
    for drive in x.unbind(0):
        rec = bias if weight is None or spk is None else dense_linear(spk, weight, bias)
        now = drive if rec is None else drive + rec
        if alpha is not None:
            assert syn is not None
            now = syn = alpha * syn + now
            kept["syn"].append(syn)
        if theta is None:
            mem = beta * mem + now
        else:
            spk, mem = _membrane(job, now, mem, beta, theta)
            kept["spk"].append(spk)
        kept["mem"].append(mem)
    there = {"spk": theta is not None, "syn": alpha is not None, "mem": True}
    empty = {name: x.new_empty((0, *x.shape[1:]) if there[name] else (0,)) for name in kept}
    spikes, currents, membranes = (torch.stack(kept[name]) if kept[name] else empty[name] for name in kept)
    return spikes, currents, membranes
