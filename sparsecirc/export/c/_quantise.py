"""Weights as integer words with a scale per row, and the network that they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.export.c._options import COptions, Weights
from sparsecirc.ir import Conv, Embedding, Graph, Linear, Node, Recurrent

_ROLES: dict[type[Node], tuple[str, ...]] = {
    Linear: ("weight",),
    Conv: ("weight",),
    Embedding: ("weight",),
    Recurrent: ("ih", "hh", "hr"),
}
"""Matrices that are stored in the number type of the weights; all other arrays stay float."""


@dataclass(frozen=True, eq=False)
class Words:
    """A matrix as the C code stores it.

    Attributes:
        values: (rows, cols), float32 or integer words; of axes after the first one is made.
        scale: float32 (rows,) of which a word is a multiple, or ``None`` for float32.
    """

    values: NDArray[Any]
    scale: NDArray[np.float32] | None

    @property
    def exact(self) -> NDArray[np.float64]:
        """The weights that the words stand for."""
        wide = self.values.astype(np.float64)
        return wide if self.scale is None else wide * self.scale[:, None].astype(np.float64)


def quantise(single: NDArray[np.float32], weights: Weights) -> Words:
    """``single`` (rows, ...) in the number type ``weights``: of each row the largest word is the largest there is."""
    flat = single.reshape(single.shape[0], -1)
    if weights is Weights.F32:
        return Words(flat, None)
    wide = flat.astype(np.float64)
    largest = np.abs(wide).max(axis=1, initial=0.0)
    scale = np.where(largest > 0, largest / weights.top, 1.0).astype(np.float32)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)  # a row of subnormal weights
    words = np.rint(wide / scale[:, None].astype(np.float64))
    return Words(np.clip(words, -weights.top, weights.top).astype(weights.dtype), scale)


def as_stored(graph: Graph, options: COptions) -> Graph:
    """The network whose weights are those that the C code stores: ``graph`` itself for float32.

    A weight moves by at most half a word: 1 / 254 of the largest weight of its row for int8.
    """
    if options.weights is Weights.F32:
        return graph
    nodes = []
    for node in graph.nodes:
        roles = [r for r in _ROLES.get(type(node), ()) if r in node.params]
        stored = {r: quantise(node.weight(r).astype(np.float32), options.weights).exact for r in roles}
        nodes.append(node.with_params(**{r: v.reshape(node.params[r].shape) for r, v in stored.items()}))
    return graph.replace_nodes(*nodes)
