"""Two runs of one network compared: differences over time, and spikes one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.errors import MismatchError
from sparsecirc.ir import Graph, Result

TOLERANCE = 1e-4
"""Largest difference of two float32 computations of one network, relative to the largest value (at least 1)."""
TIE = 1e-5
"""A membrane this close to its threshold, relative to it, may fire or not in float32: a tie."""


@dataclass(frozen=True)
class Row:
    """One output of one comparison.

    Attributes:
        against: what was compared with.
        output: its name.
        max_abs: largest difference, but for what a tie explains.
        mean_abs: mean difference, but for the same.
        first: largest difference in the first quarter of the steps; of all where the output has no time.
        last: the same for the last quarter: above ``first`` where errors grow.
        spikes: spikes in the reference, for outputs that are spikes.
        mismatches: spikes that differ and that no tie explains.
        ties: entries that differ after a tie in their sample.
        tolerance: largest ``max_abs`` that passes.
    """

    against: str
    output: str
    max_abs: float
    mean_abs: float
    first: float
    last: float
    spikes: int
    mismatches: int
    ties: int
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether nothing differs that may not."""
        return self.max_abs <= self.tolerance and self.mismatches == 0


def tie_steps(graph: Graph, values: Mapping[str, NDArray[Any]], batch: int, steps: int) -> NDArray[np.int64]:
    """First step at which a neuron of each sample is within :data:`TIE` of its threshold; ``steps`` where none is."""
    first = np.full(batch, steps, dtype=np.int64)
    for node in graph.recurrent:
        if not node.cell.spiking:
            continue
        mem = values[f"{node.name}.mem"]
        theta = node.params["threshold"].astype(np.float64)
        if node.feature_shape and theta.size > 1:
            theta = theta.reshape(theta.shape + (1,) * (mem.ndim - 2 - theta.ndim))
        room = TIE * np.maximum(np.abs(theta), 1e-6)
        # An immediate reset leaves v - theta behind, so a membrane near zero may have been at the threshold too.
        near = np.abs(mem - theta) < room
        if not node.options.delay:
            near |= (np.abs(mem) < room) & (mem != 0)
        close = near.reshape(*mem.shape[:2], -1).any(axis=2)  # [T, B]
        at = np.where(close.any(axis=0), close.argmax(axis=0), steps)
        first = np.minimum(first, at)
    return first


def compare(
    graph: Graph, against: str, reference: Result, got: Mapping[str, NDArray[Any]], tolerance: float = TOLERANCE
) -> list[Row]:
    """One row per output in both.

    Args:
        graph: the network.
        against: name of the other computation.
        reference: a run of ``interpret`` that kept its values.
        got: the other computation's outputs, in the user's layout.
        tolerance: see :data:`TOLERANCE`.

    Raises:
        MismatchError: they have no output in common.
    """
    if not set(graph.outputs) & set(got):
        raise MismatchError(
            f"{against} gives the outputs {', '.join(got) or 'none'}, the network has {', '.join(graph.outputs)}"
        )
    sequences = [n for n in graph.inputs if n.time]
    shape = reference.values[sequences[0].name].shape if sequences else (1, len(reference.y))
    steps, batch = int(shape[0]), int(shape[1])
    ties = tie_steps(graph, reference.values, batch, steps)
    if not sequences:
        steps = 1
    return [
        _row(graph, against, name, value, reference.outputs[name], got[name], ties, steps, tolerance)
        for name, value in graph.outputs.items()
        if name in got
    ]


def _row(
    graph: Graph,
    against: str,
    name: str,
    value: str,
    want: NDArray[Any],
    have: NDArray[Any],
    ties: NDArray[np.int64],
    total: int,
    tolerance: float,
) -> Row:
    timed = graph.specs[value].time
    want, have = np.asarray(want, np.float64), np.asarray(have, np.float64)
    if want.shape != have.shape:
        return Row(against, name, np.inf, np.inf, np.inf, np.inf, 0, 0, 0, tolerance)
    if timed and graph.batch_first:
        want, have = np.swapaxes(want, 0, 1), np.swapaxes(have, 0, 1)
    if not timed:
        want, have = want[None], have[None]
    difference = np.abs(want - have).reshape(*want.shape[:2], -1)  # [T or 1, B, features]
    steps = len(difference)
    last = np.arange(steps) if timed else np.array([total - 1])  # a static output stands for the whole sequence
    clear = last[:, None] < ties[None, :]  # [T, B]: no tie up to here
    spiking = timed and bool(np.all((want == 0) | (want == 1))) and graph.spiking
    scale = float(max(1.0, np.abs(want).max(initial=0.0)))
    wrong = difference > (0.5 if spiking else tolerance * scale)
    quarter = max(steps // 4, 1)
    # Spikes are counted, not measured; what a tie explains is counted too.
    kept = np.where(wrong & (spiking | ~clear[..., None]), 0.0, difference)
    return Row(
        against,
        name,
        float(kept.max(initial=0.0)) if np.isfinite(have).all() else np.inf,
        float(kept.sum() / max(kept.size, 1)),
        float(kept[:quarter].max(initial=0.0)),
        float(kept[-quarter:].max(initial=0.0)),
        int(want.sum()) if spiking else 0,
        int((wrong & clear[..., None]).sum()) if spiking else 0,
        int((wrong & ~clear[..., None]).sum()),
        tolerance * scale,
    )
