"""Which units to take out: those whose connections are worth least."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from sparsecirc._prune import graph_weights
from sparsecirc._shrink._remove import layers
from sparsecirc.errors import NothingMatchedError, UsageError
from sparsecirc.ir import Graph
from sparsecirc.patterns import check_sparsity, live_count
from sparsecirc.scores import Score, magnitude


def rank_units(
    graph: Graph, sparsity: float, *, score: Score = magnitude, only: Collection[str] | None = None
) -> dict[str, NDArray[np.bool_]]:
    """The units of each layer that stay, for `remove_units` and `shrink_model`.

    A unit is worth the mean score of all connections into it (every gate) and out of it (every column that reads it);
    each layer keeps its round((1 - sparsity) * units) best ones, at least one.

    Args:
        graph: the network.
        sparsity: share of units that go, in [0, 1).
        score: of connections.
        only: layers; by default all that something else reads (the units of the last layer are the outputs).

    Raises:
        UsageError: a sparsity out of range, or an unknown layer.
        NothingMatchedError: no layer has units that could go.
    """
    check_sparsity(sparsity)
    known = layers(graph)
    for name in only or ():
        if name not in known:
            raise UsageError(f"the graph has no layer '{name}' to rank: it has {', '.join(known) or 'none'}")
    total = {name: np.zeros(units) for name, units in known.items()}
    count = {name: np.zeros(units) for name, units in known.items()}
    read: set[str] = set()

    def add(layer: str, sums: NDArray[np.float64], many: int) -> None:
        total[layer] += sums
        count[layer] += many

    for info in graph_weights(graph):
        if info.pattern.shape[0] * info.pattern.shape[1] == 0:
            continue
        value = np.where(info.pattern.mask(), np.asarray(score(info.value, info.name), np.float64), 0.0)
        target = info.target or info.layer
        if target in known and info.pattern.shape[0] % known[target] == 0:
            add(target, value.reshape(-1, known[target], value.shape[1]).sum(axis=(0, 2)), value.size // known[target])
        at = 0
        for source, width in info.sources:
            if source in known and known[source] == width:
                add(source, value[:, at : at + width].sum(axis=0), len(value))
                read |= {source} if source != target else set()
            at += width
    chosen = [name for name in known if (name in only if only is not None else name in read)]
    if not chosen:
        raise NothingMatchedError(
            f"no layer has units that another one reads: it has {', '.join(known) or 'no layers'}"
        )
    return {name: _best(total[name] / np.maximum(count[name], 1), sparsity) for name in chosen}


def _best(worth: NDArray[np.float64], sparsity: float) -> NDArray[np.bool_]:
    keep = np.zeros(worth.size, bool)
    keep[np.argsort(-worth, kind="stable")[: max(1, live_count(worth.size, sparsity))]] = True
    return keep
