"""Leaky integrate-and-fire neurons on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecirc.errors import UnsupportedError
from sparsecirc.ops._autograd import Sparse, Spiking
from sparsecirc.ops.triton import _kernels as kernels
from sparsecirc.ops.triton._matrix import Layout, Matrix, check, grid, layout_of, on_device

RESETS = ("none", "subtract", "zero", "zero_update")
SURROGATES = ("fast_sigmoid", "atan", "sigmoid", "triangular", "straight_through")


def spiking(
    job: Spiking,
    x: Tensor,
    spk: Tensor | None,
    syn: Tensor | None,
    mem: Tensor,
    *,
    beta: Tensor,
    theta: Tensor | None,
    alpha: Tensor | None = None,
    hh: Sparse | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer of neurons over whole sequences, as `sparsecirc.ops._autograd.spiking`.

    Raises:
        UnsupportedError: the neurons have a synaptic current, or never fire.
        UsageError: a tensor is not float32, or on another device.
    """
    if alpha is not None:
        raise UnsupportedError("neurons with a synaptic current have no GPU kernels in this version: train on the CPU")
    if theta is None:
        raise UnsupportedError("integrators have no GPU kernels in this version: train on the CPU")
    values = hh.values if hh is not None else None
    check(x, spk, mem, beta, theta, values, bias)
    layout = layout_of(hh.indptr, hh.indices, hh.shape) if hh is not None else None
    z, v = _Lif.apply(x, spk, mem, values, bias, beta, theta, layout, job)  # type: ignore[no-untyped-call]
    return z, x.new_empty(0), v


class _Lif(torch.autograd.Function):
    """x (T, B, units) -> spikes and membranes (T, B, units). Without feedback all steps are one launch."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, spk0: Tensor | None, mem0: Tensor, values: Tensor | None, bias: Tensor | None,
        beta: Tensor, theta: Tensor, layout: Layout | None, job: Spiking,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        steps, batch, units = x.shape
        with on_device(x):
            drive = x.detach().transpose(1, 2).contiguous()
            spk, mem = torch.empty_like(drive), torch.empty_like(drive)
            fired = mem if job.delay else torch.empty_like(drive)
            first = mem0.detach().t().contiguous()
            z0 = first if spk0 is None else spk0.detach().t().contiguous()  # read with feedback only
            beta, theta = beta.detach().contiguous(), theta.detach().contiguous()
            if bias is None:
                bias = x.new_zeros(units)
            w = _arrays(layout, values, drive)
            stride = 1 if layout is not None else max(steps, 1)
            for k in range(0, steps if x.numel() else 0, stride):
                kernels.lif_forward[grid(units, batch)](
                    *w, bias.detach(), beta, theta, drive[k], spk[k - 1] if k else z0, mem[k - 1] if k else first,
                    spk[k], mem[k], fired[k], stride, units, batch, FEEDBACK=layout is not None,
                    RESET=RESETS.index(job.reset), DELAY=job.delay, LANES=kernels.LANES,
                )  # fmt: skip
        ctx.save_for_backward(values, z0, first, beta, theta, spk, mem, fired)
        ctx.layout, ctx.job, ctx.stride = layout, job, stride
        return spk.transpose(1, 2).contiguous(), mem.transpose(1, 2).contiguous()

    @staticmethod
    def backward(ctx: Any, g_spk: Tensor, g_mem: Tensor) -> tuple[Tensor | None, ...]:
        values, z0, first, beta, theta, spk, mem, fired = ctx.saved_tensors
        steps, units, batch = mem.shape
        job, stride = ctx.job, ctx.stride
        w = Matrix(ctx.layout, values.contiguous()) if ctx.layout is not None else None
        with on_device(mem):
            back = w.transposed if w is not None else None
            arrays = back.arrays if back is not None else _arrays(None, None, mem)
            grads = [g.transpose(1, 2).contiguous() for g in (g_spk, g_mem)]
            carry, d_beta, d_theta = (mem.new_zeros((units, batch)) for _ in range(3))
            da = mem.new_zeros((steps + 1, units, batch))  # the last stays zero: nothing comes after it
            for k in range(steps - stride if mem.numel() else -1, -1, -stride):
                kernels.lif_backward[grid(units, batch)](
                    *arrays, da[k + stride], beta, theta, mem[k - 1] if k else first, mem[k], fired[k], grads[0][k],
                    grads[1][k], carry, d_beta, d_theta, da[k], job.scale, stride, units, batch,
                    FEEDBACK=w is not None, RESET=RESETS.index(job.reset), DELAY=job.delay,
                    SURROGATE=SURROGATES.index(job.surrogate), LANES=kernels.LANES,
                )  # fmt: skip
            d_spk = d_values = None
            if w is not None and back is not None:
                d_spk = back.times(da[0]).t()
                d_values = w.sampled(da[:steps], torch.cat([z0[None], spk[:-1]])[:steps])
        dx = da[:steps].transpose(1, 2)
        d_bias = da.sum((0, 2)) if ctx.needs_input_grad[4] else None
        return dx, d_spk, carry.t(), d_values, d_bias, d_beta.sum(1), d_theta.sum(1), None, None


def _arrays(layout: Layout | None, values: Tensor | None, anything: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pointers, columns and values of the recurrent matrix; without one no kernel reads them."""
    if layout is None or values is None:
        return anything, anything, anything
    return Matrix(layout, values.detach().contiguous()).arrays
