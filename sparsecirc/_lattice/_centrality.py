"""How central a neuron is: ready-made measures to break ties between irreducible neurons.

Each takes strengths (n, n), entry (i, j) of the edge from j to i, and returns values (n,) scaled to at most 1. The
paper (Sengupta 2025, arXiv:2502.16525) weighs centrality beside irreducibility; which one could not be read, so these
are the textbook ones (Freeman 1978, Katz 1953, Brandes 2001).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Centrality = Callable[[NDArray[Any]], NDArray[np.float64]]


def degree(strengths: NDArray[Any]) -> NDArray[np.float64]:
    """Strength of all edges in and out."""
    return _scaled(strengths.sum(axis=0) + strengths.sum(axis=1))


def closeness(strengths: NDArray[Any]) -> NDArray[np.float64]:
    """Harmonic closeness: the sum over other elements of 1 / (number of edges on the shortest path from them)."""
    distance, _ = _shortest(strengths)
    inverse = np.divide(1.0, distance, out=np.zeros_like(distance), where=np.isfinite(distance) & (distance > 0))
    return _scaled(inverse.sum(axis=1))


def betweenness(strengths: NDArray[Any]) -> NDArray[np.float64]:
    r"""Share of the shortest paths of all other pairs that lead through an element, each edge counting 1.

    Brandes' accumulation, for all sources at once: with :math:`\sigma` the number of shortest paths and level by level
    from far to near, :math:`\delta_s(v) = \sum_w \sigma_s(v) / \sigma_s(w) (1 + \delta_s(w))` over the w behind v.
    """
    edges = (strengths > 0).astype(np.float64)
    np.fill_diagonal(edges, 0.0)
    distance, paths = _shortest(strengths)
    finite = distance[np.isfinite(distance)]
    delta = np.zeros_like(paths)  # [w, s]
    for level in range(int(finite.max(initial=0)), 0, -1):
        behind = np.divide(1.0 + delta, paths, out=np.zeros_like(paths), where=distance == level)
        delta += np.where(distance == level - 1, paths * (edges.T @ behind), 0.0)
    np.fill_diagonal(delta, 0.0)
    return _scaled(delta.sum(axis=1))


def katz(strengths: NDArray[Any]) -> NDArray[np.float64]:
    """Weighted paths that start at an element, each edge further away counting less (half the limit of convergence)."""
    s = np.asarray(strengths, dtype=np.float64)
    bound = max(float(s.sum(axis=0).max(initial=0.0)), 1e-300)  # of the spectral radius, the largest column sum
    value = np.linalg.solve(np.eye(len(s)) - 0.5 / bound * s.T, np.ones(len(s)))
    return _scaled(np.asarray(value - 1.0, dtype=np.float64))


def _shortest(strengths: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Length and number of the shortest paths from s (column) to w (row), each edge of length 1."""
    n = len(strengths)
    edges = (strengths > 0).astype(np.float64)
    np.fill_diagonal(edges, 0.0)
    distance = np.where(np.eye(n, dtype=bool), 0.0, np.inf)
    paths = np.eye(n)
    front, level = np.eye(n), 0
    while front.any():
        level += 1
        front = np.where(np.isinf(distance), edges @ front, 0.0)
        distance[front > 0] = level
        paths += front
    return distance, paths


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    top = values.max(initial=0.0)
    return values / top if top > 0 else np.zeros_like(values)
