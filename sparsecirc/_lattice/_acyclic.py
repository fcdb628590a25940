"""An order for a graph with cycles: keep the heavy edges, turn away the light ones that close a cycle."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._lattice._order import Index


def acyclic_order(weights: NDArray[Any]) -> Index:
    r"""Position of each element in a line such that little weight points backwards.

    Greedy feedback arc set (Eades, Lin & Smyth 1993), with weights: elements without outgoing edges go to the right
    end, elements without incoming ones to the left end; where there are neither, the element with the largest
    difference of outgoing and incoming weight goes left. Equal differences are settled by the lower index, so that
    only ties depend on how the elements are numbered. Time O(n^2).

    Args:
        weights: (n, n), entry (i, j) is the weight of the edge from j to i; 0 is no edge, the diagonal is ignored.

    Returns:
        Positions, shape (n,): an edge from j to i goes forwards where ``position[j] < position[i]``.
    """
    n = len(weights)
    weights = np.array(weights, dtype=np.float64)
    np.fill_diagonal(weights, 0.0)
    columns = np.ascontiguousarray(weights.T)  # row j: what j acts on
    out_weight, in_weight = columns.sum(axis=1), weights.sum(axis=1)
    out_count, in_count = np.count_nonzero(columns, axis=1), np.count_nonzero(weights, axis=1)
    alive = np.ones(n, dtype=bool)
    position = np.zeros(n, dtype=np.intp)
    left, right = 0, n
    while left < right:
        ends = np.flatnonzero(alive & (out_count == 0))
        if len(ends):
            right -= len(ends)
            position[ends] = np.arange(right, right + len(ends))
        else:
            ends = np.flatnonzero(alive & (in_count == 0))
            if not len(ends):
                ends = np.array([np.argmax(np.where(alive, out_weight - in_weight, -np.inf))])
            position[ends] = np.arange(left, left + len(ends))
            left += len(ends)
        alive[ends] = False
        for k in ends:
            out_count -= weights[k] > 0
            in_count -= columns[k] > 0
            out_weight -= weights[k]
            in_weight -= columns[k]
    return position


def forward(weights: NDArray[Any], position: Index) -> NDArray[Any]:
    """``weights`` (n, n) without the edges that point backwards, nor the diagonal."""
    return np.where(position[None, :] < position[:, None], weights, 0)
