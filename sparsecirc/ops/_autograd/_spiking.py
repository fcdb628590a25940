"""Leaky integrate-and-fire neurons, with and without a synaptic current, and integrators, over whole sequences."""

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


@dataclass(frozen=True)
class Spiking:
    """How neurons reset, and what their spikes pass back.

    Attributes:
        reset: name of a `sparsecirc.cells.Reset`.
        delay: whether a reset acts one step after its spike.
        surrogate: what stands in for the derivative of the spike; see `sparsecirc.nn.Surrogate`.
        scale: its parameter.
    """

    reset: str = "none"
    delay: bool = True
    surrogate: str = "straight_through"
    scale: float = 1.0


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
    """One layer over whole sequences; without ``alpha`` there is no synaptic current, and the drive is the input.

    Args:
        job: resets and surrogate.
        x: drive (T, B, units).
        spk: initial spikes (B, units), which only ``hh`` reads; None without it.
        syn: initial synaptic currents (B, units), or None.
        mem: initial membranes (B, units).
        beta: decay of the membrane (units,).
        theta: threshold (units,); None for integrators that never fire, which have neither alpha nor hh.
        alpha: decay of the current (units,), or None.
        hh: recurrent weight (units, units), or None.
        bias: (units,), added to the product with ``hh``, or None.

    Returns:
        (spikes, currents, membranes), each (T, B, units); spikes are empty without ``theta``, currents without
        ``alpha``.

    Raises:
        UnsupportedError: a tensor is not on the CPU.
        UsageError: the number types of the tensors differ.
    """
    values, indptr, indices = arrays.parts(hh)
    tensors = [x, spk, syn, mem, values, bias, alpha, beta, theta]
    if arrays.number_type(tensors) == torch.float64:
        return reference.spiking(job, x, spk, syn, mem, hh, bias, alpha, beta, theta)
    made = _spiking(
        x, spk, syn, mem, values, bias, alpha, beta, theta, indptr, indices, job.reset, job.delay, job.surrogate,
        job.scale,
    )  # fmt: skip
    return made[0], made[1], made[2]


def _outputs(x: Tensor, alpha: Tensor | None, theta: Tensor | None, delay: bool) -> tuple[Tensor, ...]:
    """Unfilled spikes, currents, membranes; and, where resets act at once, the membranes compared with the threshold.

    Backward needs no more than these.
    """
    shape = tuple(x.shape)
    fires, compares = theta is not None, theta is not None and not delay
    wanted = (fires, alpha is not None, True, compares)
    return arrays.unfilled(x, [shape if want else None for want in wanted])


@torch.library.custom_op("sparsecirc::spiking", mutates_args=())
def _spiking(
    x: Tensor,
    spk0: Tensor | None,
    syn0: Tensor | None,
    mem0: Tensor,
    hh: Tensor | None,
    bias: Tensor | None,
    alpha: Tensor | None,
    beta: Tensor,
    theta: Tensor | None,
    indptr: Tensor | None,
    indices: Tensor | None,
    reset: str,
    delay: bool,
    surrogate: str,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    made = _outputs(x, alpha, theta, delay)
    kernels.spiking_forward(
        arrays.best_isa(), reset, delay, x.shape[1], arrays.array(x), arrays.csr(indptr, indices, hh),
        [arrays.array(t) for t in (bias, alpha, beta, theta)], [arrays.array(t) for t in (spk0, syn0, mem0)],
        arrays.filled(made), arrays.POISON,
    )  # fmt: skip
    return made  # type: ignore[return-value]


@_spiking.register_fake
def _(x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return _outputs(x, rest[5], rest[7], rest[11])


@torch.library.custom_op("sparsecirc::spiking_backward", mutates_args=())
def _spiking_backward(
    g_spk: Tensor | None,
    g_syn: Tensor | None,
    g_mem: Tensor | None,
    x: Tensor,
    spk0: Tensor | None,
    syn0: Tensor | None,
    mem0: Tensor,
    hh: Tensor | None,
    alpha: Tensor | None,
    beta: Tensor,
    theta: Tensor | None,
    indptr: Tensor | None,
    indices: Tensor | None,
    syn: Tensor,
    mem: Tensor,
    fired: Tensor,
    reset: str,
    delay: bool,
    surrogate: str,
    scale: float,
    wants: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    grads = _gradients(x, hh, wants)
    kernels.spiking_backward(
        arrays.best_isa(), reset, delay, surrogate, scale, x.shape[1], arrays.array(x),
        arrays.csr(indptr, indices, hh), [None, *(arrays.array(t) for t in (alpha, beta, theta))],
        [arrays.array(t) for t in (spk0, syn0, mem0)], [None, *arrays.present([syn, mem, fired])],
        arrays.present([g_spk, g_syn, g_mem]), arrays.filled(grads), arrays.POISON,
    )  # fmt: skip
    return grads  # type: ignore[return-value]


def _gradients(x: Tensor, hh: Tensor | None, wants: Sequence[bool]) -> tuple[Tensor, ...]:
    """Unfilled gradients in the order of the arguments of `_spiking`; empty where not wanted."""
    state, units = tuple(x.shape[1:]), (x.shape[2],)
    live = tuple(hh.shape) if hh is not None else (0,)
    shapes = (tuple(x.shape), state, state, state, live, units, units, units, units)
    return arrays.unfilled(x, [shape if want else None for shape, want in zip(shapes, wants, strict=True)])


@_spiking_backward.register_fake
def _(_g_spk: Any, _g_syn: Any, _g_mem: Any, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return _gradients(x, rest[3], rest[-1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, spk0, syn0, mem0, hh, _bias, *rest = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[3])
    ctx.save_for_backward(x, spk0, syn0, mem0, hh, *rest[:5], *output[1:])
    ctx.options = rest[5:]


def _back(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    wants = list(ctx.needs_input_grad[:9])
    made = _spiking_backward(*grads[:3], *ctx.saved_tensors, *ctx.options, wants)
    return (*(g if want else None for g, want in zip(made, wants, strict=True)), *[None] * 6)


_spiking.register_autograd(_back, setup_context=_keep)
