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
            )
        )
    return infos
