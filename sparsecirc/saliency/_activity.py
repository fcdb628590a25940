"""Activity: a connection counts as much as what comes through it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc.errors import UsageError
from sparsecirc.ir import Conv, Embedding, Graph, Node, Recurrent, interpret
from sparsecirc.saliency._table import Table


def activity(graph: Graph, x: ArrayLike, *, lengths: ArrayLike | None = None, floor: float = 0.0) -> Table:
    """``|w| (a + floor)``, a the mean of |presynaptic value| over samples and valid steps.

    In a spiking network ``a`` is the firing rate, in spikes per step, and the score what a connection adds to the
    postsynaptic current. A recurrent weight sees the layer's own output, one step late; the first of them sees zero.
    Our definition: magnitude weighted by rate, as in activity-dependent pruning; compare Wanda (Sun et al. 2023), which
    uses the norm of the activation instead.

    Args:
        graph: the network; names are those of its weights, the same as in the torch model it comes from.
        x: input, as for `interpret`.
        lengths: valid steps per sample.
        floor: added to every mean, so that inputs that were silent here keep the order of their weights.

    Raises:
        UsageError: a negative floor, or data without samples or steps.
    """
    if floor < 0:
        raise UsageError(f"activity floor {floor}: expected 0 or more")
    result = interpret(graph, x, lengths=lengths, keep_values=True)
    rates = {
        view.name: np.atleast_2d(_columns(graph, view.node, view.role, result.values, lengths)) + floor
        for view in graph.weights()
        if not isinstance(view.node, Embedding)
    }
    return Table("activity", rates, lambda w, a: np.abs(w) * a)


def _columns(graph: Graph, node: Node, role: str, values: Any, lengths: ArrayLike | None) -> NDArray[np.float64]:
    """Mean |value| by column of a weight."""
    recurrent = isinstance(node, Recurrent) and role in ("hh", "hh_diag")
    source = node.name if recurrent else node.inputs[0]
    cols = node.weight(role).reshape(len(node.weight(role)), -1).shape[1] if node.weight(role).ndim > 1 else None
    if role == "hr" or isinstance(node, Conv):
        # What a projection reads is inside the layer, and a convolution shares its weights over places: one mean each.
        mean = 1.0 if role == "hr" else float(np.mean(_mean(graph, source, values, lengths, late=False)))
        return np.full(cols or 1, mean)
    return _mean(graph, source, values, lengths, late=recurrent)


def _mean(graph: Graph, source: str, values: Any, lengths: ArrayLike | None, *, late: bool) -> NDArray[np.float64]:
    """Mean |value| of each feature over samples and valid steps."""
    value = np.abs(np.asarray(values[source], np.float64))
    if not graph.specs[source].time:
        _some(source, value.shape[0])
        return np.asarray(value.reshape(len(value), -1).mean(axis=0))
    steps, batch = value.shape[:2]
    _some(source, steps * batch)
    flat = value.reshape(steps, batch, -1)
    valid = np.full(batch, steps) if lengths is None else np.asarray(lengths)
    here = np.arange(steps)[:, None] < valid[None, :]
    if late:  # the value of step t comes through at t + 1
        here = here & (np.arange(steps)[:, None] + 1 < valid[None, :])
    total = (flat * here[:, :, None]).sum(axis=(0, 1))
    return np.asarray(total / max(int(np.minimum(valid, steps).sum()), 1))


def _some(source: str, n: int) -> None:
    if n == 0:
        raise UsageError(f"activity of '{source}' has no samples or no steps: give some data")
