"""Example inputs: guessed from the first layers, made larger, varied, and the layouts that they may have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sparsecirc.errors import UsageError
from sparsecirc.frontends._neurons import is_neuron

Tensor = torch.Tensor
Layout = str | None
"""``"BT"`` or ``"TB"`` for the first two axes of a sequence, ``None`` for a static input."""

STEPS, BATCH, MOST = 4, 2, 8
"""Sizes at which a model is recorded: T at least, B at least, and B at most."""

_RANKS: tuple[tuple[tuple[type[nn.Module], ...], int], ...] = (
    ((nn.Linear, nn.RNNCellBase), 2),
    ((nn.Conv1d, nn.MaxPool1d, nn.AvgPool1d), 3),
    ((nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d), 4),
)


def as_inputs(example: Any) -> tuple[Tensor, ...]:
    """An example as a tuple of float64 or integer tensors.

    Raises:
        UsageError: it is empty, or has no batch axis.
    """
    items = tuple(example) if isinstance(example, (tuple, list)) else (example,)
    inputs = []
    for item in items:
        tensor = torch.as_tensor(item).detach().cpu()
        if (tensor.ndim < 2 and tensor.dtype.is_floating_point) or tensor.ndim < 1 or tensor.numel() == 0:
            raise UsageError(
                f"example has shape {tuple(tensor.shape)}: expected a non-empty batch, as the model takes it"
            )
        inputs.append(tensor.double() if tensor.dtype.is_floating_point else tensor)
    return tuple(inputs)


def guesses(model: nn.Module) -> list[tuple[Tensor, ...]]:
    """Inputs that the first layer of the model may take; none where its sizes do not say."""
    first = next((m for m in model.modules() if _width(m) is not None), None)
    convolves = next((m for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d)) or m is first), None)
    if first is None or convolves is not first:
        return []
    generator = torch.Generator().manual_seed(0)
    width = _width(first) or 1
    if isinstance(first, nn.Embedding):
        shapes: list[tuple[int, ...]] = [(BATCH + 1, STEPS + 1)]
        return [(torch.randint(0, width, s, generator=generator),) for s in shapes]
    sequence = (BATCH + 1, STEPS + 1, width)
    timed = any(isinstance(m, (nn.RNNBase, nn.RNNCellBase)) or is_neuron(m) for m in model.modules())
    shapes = [sequence, (BATCH + 1, width)] if timed else [(BATCH + 1, width)]
    return [(2 * torch.rand(s, generator=generator, dtype=torch.float64),) for s in shapes]


def _width(module: nn.Module) -> int | None:
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return int(module.input_size)
    if isinstance(module, nn.Linear):
        return module.in_features
    return module.num_embeddings if isinstance(module, nn.Embedding) else None


def is_sequence(x: Tensor, model: nn.Module) -> bool:
    """For a model of one time step: whether ``x`` has an axis more than its first layer takes."""
    for module in model.modules():
        for kinds, rank in _RANKS:
            if isinstance(module, kinds):
                return x.ndim > rank
    return x.ndim > 2


def layouts(
    inputs: Sequence[Tensor], model: nn.Module, batch_first: bool | None, guessed: bool
) -> list[tuple[Layout, ...]]:
    """Layouts of the inputs worth trying, the likeliest first; a ``guessed`` input has the time axis it was given."""
    sequences = [x.ndim >= (3 if x.dtype.is_floating_point else 2) for x in inputs]
    if not any(sequences):
        return [(None,) * len(inputs)]
    layer = next((m for m in model.modules() if isinstance(m, nn.RNNBase)), None)
    spiking = any(is_neuron(m) for m in model.modules())
    timed = spiking or any(isinstance(m, (nn.RNNBase, nn.RNNCellBase)) for m in model.modules())
    if batch_first is not None:
        order: list[Layout] = ["BT" if batch_first else "TB", None]
    else:
        major = not spiking if layer is None else bool(layer.batch_first)
        order = ["BT", "TB", None] if major else ["TB", "BT", None]
        order = order if timed else [None, "BT", "TB"]
    return [tuple(o if s else None for s in sequences) for o in order if o is not None or not guessed]


def enlarged(inputs: Sequence[Tensor], layout: Sequence[Layout]) -> tuple[Tensor, ...]:
    """The inputs with enough steps and samples to tell axes and steps apart, and not too many samples."""
    return resized(inputs, layout, lambda t: max(t, STEPS), lambda b: min(max(b, BATCH), MOST))


def varied(inputs: Sequence[Tensor], layout: Sequence[Layout], more_steps: int, more_batch: int) -> tuple[Tensor, ...]:
    """Other inputs of the same kind, longer by ``more_steps`` steps and wider by ``more_batch`` samples."""
    generator = torch.Generator().manual_seed(1)
    out = []
    for x in resized(inputs, layout, lambda t: t + more_steps, lambda b: b + more_batch):
        if x.dtype.is_floating_point:
            scale = max(1.0, float(x.abs().max()))
            out.append(x + scale * torch.randn(x.shape, generator=generator, dtype=x.dtype))
        else:
            out.append(x.flatten()[torch.randperm(x.numel(), generator=generator)].reshape(x.shape))
    return tuple(out)


def resized(inputs: Sequence[Tensor], layout: Sequence[Layout], steps: Any, batch: Any) -> tuple[Tensor, ...]:
    """The inputs repeated or cut along time and batch."""
    out = []
    for x, kind in zip(inputs, layout, strict=True):
        axes = {kind.index("B"): batch, kind.index("T"): steps} if kind else {0: batch}
        for axis, size in axes.items():
            n = x.shape[axis]
            x = x.index_select(axis, torch.arange(size(n)) % n)
        out.append(x)
    return tuple(out)
