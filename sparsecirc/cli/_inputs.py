"""Inputs made up for a graph, where the user gave none."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.errors import UsageError
from sparsecirc.ir import Embedding, Graph


def make_input(graph: Graph, *, batch: int, steps: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """One array per graph input, in the user's layout: normal numbers, or valid indices for an embedding.

    Raises:
        UsageError: ``batch`` or ``steps`` is below 1.
    """
    if batch < 1:
        raise UsageError(f"batch is {batch}: expected at least 1")
    if steps < 1:
        raise UsageError(f"seq-len is {steps}: expected at least 1 time step")
    rng = np.random.default_rng(seed)
    made: dict[str, NDArray[Any]] = {}
    for node in graph.inputs:
        lead = ((batch, steps) if graph.batch_first else (steps, batch)) if node.time else (batch,)
        shape = (*lead, *node.shape)
        tables = [n for n in graph.nodes if isinstance(n, Embedding) and node.name in n.inputs]
        if tables:
            made[node.name] = rng.integers(0, min(len(n.params["weight"]) for n in tables), shape)
        else:
            made[node.name] = rng.standard_normal(shape).astype(np.float32)
    return made
