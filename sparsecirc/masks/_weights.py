"""The weights of a torch model as the planner sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import nn

from sparsecirc._pattern import Pattern
from sparsecirc._prune import WeightInfo
from sparsecirc._torch_layers import WeightRef

_KINDS: dict[type[nn.Module], str] = {
    nn.Linear: "linear",
    nn.Conv1d: "conv",
    nn.Conv2d: "conv",
    nn.Embedding: "embedding",
}


def state_layer(node: str, owner: nn.Module) -> str:
    """The layer whose units are what a recurrent layer feeds back: itself, or its projection."""
    return f"{node}.hr" if getattr(owner, "proj_size", 0) else node


def _sources(ref: WeightRef, cols: int) -> tuple[tuple[str, int], ...]:
    """(layer, width) of the columns, as far as the layer itself says it: its recurrence, and what it stacks."""
    owner = ref.owner
    if ref.role == "hh":
        return ((state_layer(ref.node, owner), cols),)
    if not isinstance(owner, nn.RNNBase):
        return ()
    if ref.role == "hr":
        return ((ref.node, owner.hidden_size),)
    stack, _, suffix = ref.node.rpartition(".")
    layer = int(suffix.removeprefix("l").removesuffix("_reverse"))
    if layer == 0:
        return ()
    ends = ("", "_reverse") if owner.bidirectional else ("",)
    width = owner.proj_size or owner.hidden_size
    return tuple((state_layer(f"{stack}.l{layer - 1}{end}", owner), width) for end in ends)


def matrix_shape(shape: Iterable[int]) -> tuple[int, int]:
    """(out, product of the rest), as patterns count; a vector is one row."""
    first, *rest = shape
    return (first, int(np.prod(rest))) if rest else (1, first)


def model_weights(model: nn.Module, refs: Iterable[WeightRef], patterns: Mapping[str, Pattern]) -> list[WeightInfo]:
    """Name, kind, present values (float64 copies) and pattern of each weight."""
    kinds = {r.name: next((k for cls, k in _KINDS.items() if isinstance(r.owner, cls)), "recurrent") for r in refs}
    linear = [name for name, kind in kinds.items() if kind == "linear"]
    infos = []
    for ref in refs:
        value = ref.parameter(model).detach().to("cpu", torch.float64).numpy()
        shape = matrix_shape(value.shape)
        infos.append(
            WeightInfo(
                name=ref.name,
                layer=ref.node,
                role=ref.role,
                kind=kinds[ref.name],
                gates=ref.gates,
                value=value.reshape(shape),
                pattern=patterns.get(ref.name) or Pattern.full(*shape),
                readout=ref.name in linear[-1:],
                target=state_layer(ref.node, ref.owner) if ref.role == "hr" else ref.node,
                sources=_sources(ref, shape[1]),
            )
        )
    return infos
