"""Prune one weight or gate at a time and look at what comes out, and at how far the state wanders off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc._pattern import Pattern
from sparsecirc._prune import Criteria, Select, WeightInfo, graph_weights, plan_weights
from sparsecirc._sensitivity._result import Point, Sensitivity, WeightSensitivity, loss_of
from sparsecirc.errors import UsageError
from sparsecirc.ir import Context, Graph, Node, Recurrent, Result, State, Values, walk
from sparsecirc.patterns import PatternMaker, check_sparsity, unstructured
from sparsecirc.scores import Score, magnitude

Array = NDArray[Any]
LEVELS = (0.25, 0.5, 0.7, 0.8, 0.9, 0.95)
ERROR_TOLERANCE, ACCURACY_TOLERANCE = 0.05, 0.01


def sensitivity(
    graph: Graph,
    x: ArrayLike | Mapping[str, ArrayLike],
    *,
    labels: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    levels: Sequence[float] = LEVELS,
    tolerance: float | None = None,
    score: Score = magnitude,
    pattern: PatternMaker = unstructured,
    select: Select | None = None,
    progress: Callable[[int, str], None] | None = None,
) -> Sensitivity:
    """Prune each weight, and each gate of it, alone at several sparsities, and measure output and states.

    The network runs in float32; of what does not depend on the pruned layer the first run is kept. At the end a
    proposal is looked for: every part gets the largest level that costs at most some loss alone, the same for all, and
    that loss is the largest measured one with which the whole stays within ``tolerance``.

    Args:
        graph: the network; connections that are dead already stay dead.
        x: inputs in the graph's layout, at least one sample of one step.
        labels: class of each sample (B,): then the accuracy decides. Class scores are the first output, summed over
            time where it is a sequence.
        lengths: valid steps per sample.
        levels: sparsities in (0, 1).
        tolerance: of accuracy lost (0.01 by default) or else of the output's relative error (0.05).
        score: what a connection is worth.
        pattern: which shapes are allowed; not one that fixes the sparsity, as N:M does.
        select: which weights; as for `prune`.
        progress: called with (1, name) after each run; there are `len(levels)` for each row.

    Raises:
        UsageError: levels, labels, tolerance or inputs that do not fit.
        NothingMatchedError: no weight is selected; lists what there is and why it was skipped.
    """
    wanted = _levels(levels)
    if tolerance is None:
        tolerance = ERROR_TOLERANCE if labels is None else ACCURACY_TOLERANCE
    if not 0 <= tolerance < float("inf"):
        raise UsageError(f"tolerance {tolerance}: expected a number of at least 0")
    weights = graph_weights(graph)
    how = Criteria(score, pattern, select=select)
    at = {level: plan_weights(weights, level, how).patterns for level in wanted}
    chosen = [i for i in weights if i.name in at[wanted[0]]]
    trial = _Trial.of(graph, x, labels, lengths)
    rows: list[WeightSensitivity] = []
    for part in (p for info in chosen for p in _parts(info)):
        points = []
        for level in wanted:
            points.append(trial.point(level, {part.weight.name: part.pattern(at[level][part.weight.name])}))
            if progress is not None:
                progress(1, part.name)
        safe = _safe(points, trial.accuracy, tolerance)
        shape = (part.rows.stop - part.rows.start, part.weight.pattern.shape[1])
        rows.append(WeightSensitivity(part.name, shape, part.gate, tuple(points), safe))
    found = Sensitivity(tuple(rows), wanted, tolerance, trial.accuracy, {}, None, trial.samples, trial.steps)
    proposal, proposed = _propose(found, trial, chosen, at)
    return replace(found, proposal=proposal, proposed=proposed)


def _levels(levels: Sequence[float]) -> tuple[float, ...]:
    found = tuple(sorted({check_sparsity(level) for level in levels}))
    if not found or found[0] <= 0:
        raise UsageError(f"levels {list(levels)}: expected at least one sparsity, each above 0 and below 1")
    return found


@dataclass(frozen=True)
class _Part:
    """A weight, or some of its rows."""

    name: str
    weight: WeightInfo
    rows: slice
    gate: bool

    def pattern(self, pruned: Pattern) -> Pattern:
        """``pruned`` in these rows, what there was in the others."""
        old, (start, stop) = self.weight.pattern, (self.rows.start, self.rows.stop)
        if not self.gate:
            return pruned
        below = old.row_block(stop, old.shape[0])
        return Pattern.stack([old.row_block(0, start), pruned.row_block(start, stop), below])


def _parts(info: WeightInfo) -> list[_Part]:
    whole = _Part(info.name, info, slice(0, info.pattern.shape[0]), False)
    return [whole, *(_Part(name, info, rows, True) for name, rows in info.blocks() if name != info.name)]


def _safe(points: Sequence[Point], accuracy: float | None, limit: float) -> float:
    """The largest level up to which all are within ``limit``; 0 where none is."""
    safe = 0.0
    for point in points:
        if not loss_of(point, accuracy) <= limit:
            break
        safe = point.sparsity
    return safe


def _propose(
    found: Sensitivity, trial: _Trial, chosen: Sequence[WeightInfo], at: Mapping[float, Mapping[str, Pattern]]
) -> tuple[dict[str, float], Point | None]:
    """The largest common loss per part with which all parts together stay within the tolerance."""
    limits = sorted({v for r in found.leaves for p in r.points if (v := found.loss(p)) <= found.tolerance})
    best: tuple[dict[str, float], Point | None] = ({}, None)
    low, high = 0, len(limits)
    while low < high:
        middle = (low + high) // 2
        safe = {r.name: _safe(r.points, found.accuracy, limits[middle]) for r in found.leaves}
        point = trial.point(_overall(found, safe), _together(chosen, safe, at))
        if found.loss(point) <= found.tolerance:
            best, low = ({name: s for name, s in safe.items() if s > 0}, point), middle + 1
        else:
            high = middle
    return best if best[0] else ({}, None)


def _overall(found: Sensitivity, safe: Mapping[str, float]) -> float:
    sizes = {r.name: r.shape[0] * r.shape[1] for r in found.leaves}
    return sum(sizes[name] * s for name, s in safe.items()) / (sum(sizes.values()) or 1)


def _together(
    chosen: Sequence[WeightInfo], safe: Mapping[str, float], at: Mapping[float, Mapping[str, Pattern]]
) -> dict[str, Pattern]:
    made = {}
    for info in chosen:
        made[info.name] = Pattern.stack(
            (at[safe[name]][info.name] if safe[name] > 0 else info.pattern).row_block(rows.start, rows.stop)
            for name, rows in info.blocks()
        )
    return made


@dataclass(frozen=True)
class _Trial:
    """The network as it is on one input, and what to compare with it.

    Attributes:
        graph: the network.
        x: the input.
        lengths: valid steps.
        labels: (B,) or ``None``.
        truth: the run of the network as it is.
        kept: what each node gave there.
        accuracy: of that run.
        samples, steps: size of the input.
    """

    graph: Graph
    x: Any
    lengths: Any
    labels: NDArray[np.int64] | None
    truth: Result
    kept: Mapping[str, tuple[dict[str, Array], State]]
    accuracy: float | None
    samples: int
    steps: int

    @staticmethod
    def of(graph: Graph, x: Any, labels: ArrayLike | None, lengths: Any) -> _Trial:
        kept: dict[str, tuple[dict[str, Array], State]] = {}

        def compute(node: Node, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
            kept[node.name] = node.compute(inputs, state, ctx)
            return kept[node.name]

        with np.errstate(over="ignore", invalid="ignore"):
            truth = walk(graph, x, None, lengths, np.float32, compute, keep_values=True)
        lead = truth.values[graph.inputs[0].name]
        timed = [truth.values[n.name] for n in graph.inputs if n.time]
        samples = int(timed[0].shape[1] if timed else lead.shape[0])
        steps = int(timed[0].shape[0]) if timed else 1
        if not samples * steps:
            raise UsageError(f"the input holds {samples} samples of {steps} steps: expected at least one of each")
        wanted = None if labels is None else _labels(labels, samples)
        accuracy = None if wanted is None else _accuracy(graph, truth, wanted)
        return _Trial(graph, x, lengths, wanted, truth, kept, accuracy, samples, steps)

    def point(self, level: float, patterns: Mapping[str, Pattern]) -> Point:
        """The network with other patterns in some weights."""
        pruned = self.graph.with_patterns(patterns)
        changed = _reached(pruned, {name.rpartition(".")[0] for name in patterns})

        def compute(node: Node, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
            return node.compute(inputs, state, ctx) if node.name in changed else self.kept[node.name]

        with np.errstate(over="ignore", invalid="ignore"):
            got = walk(pruned, self.x, None, self.lengths, np.float32, compute, keep_values=True)
            pairs = [(self.truth.outputs[name], got.outputs[name]) for name in self.truth.outputs]
            error = max(_ratio(_norm(a - b), _norm(a)) for a, b in pairs)
            largest = max(_ratio(_top(a - b), _top(a)) for a, b in pairs)
            drift_of, drift = self._drift(got, changed)
        accuracy = None if self.labels is None else _accuracy(self.graph, got, self.labels)
        return Point(level, error, largest, accuracy, drift, drift_of)

    def _drift(self, got: Result, changed: set[str]) -> tuple[str, tuple[float, ...]]:
        worst: tuple[str, tuple[float, ...]] = ("", ())
        for node in self.graph.recurrent:
            for port in node.ports() if node.name in changed else ():
                name = f"{node.name}.{port}"
                curve = _curve(node, self.truth.values[name], got.values[name])
                if not worst[0] or max(curve, default=0.0) > max(worst[1], default=0.0):
                    worst = (name, curve)
        return worst


def _curve(node: Recurrent, want: Array, have: Array) -> tuple[float, ...]:
    """Relative difference by step, in the order in which the layer computes them; [T, B, units]."""
    by_step = want.astype(np.float64).reshape(len(want), -1)
    moved = np.linalg.norm(have.astype(np.float64).reshape(len(have), -1) - by_step, axis=1)
    size = float(np.sqrt(np.mean(np.sum(by_step**2, axis=1))))
    curve = [_ratio(float(m), size) for m in moved]
    return tuple(reversed(curve) if node.reverse else curve)


def _reached(graph: Graph, names: set[str]) -> set[str]:
    """The nodes called ``names`` and all that depend on them."""
    reached, values = set[str](), set[str]()
    for node in graph.nodes:
        if node.name in names or any(i in values for i in node.inputs):
            reached.add(node.name)
            values |= {node.name, *(f"{node.name}.{port}" for port in node.ports())}
    return reached


def _labels(labels: ArrayLike, samples: int) -> NDArray[np.int64]:
    found = np.asarray(labels)
    if found.shape != (samples,) or found.dtype.kind not in "iu":
        raise UsageError(f"labels have shape {found.shape} and type {found.dtype}: expected {samples} whole numbers")
    return found.astype(np.int64)


def _accuracy(graph: Graph, result: Result, labels: NDArray[np.int64]) -> float:
    name, value = next(iter(graph.outputs.items()))
    scores = result.outputs[name]
    if graph.specs[value].time:
        scores = scores.sum(axis=1 if graph.batch_first else 0)
    if scores.ndim != 2:
        raise UsageError(f"output '{name}' has shape {scores.shape}: expected class scores (B, classes) for labels")
    return float(np.mean(scores.argmax(axis=1) == labels))


def _norm(a: Array) -> float:
    return float(np.linalg.norm(a.astype(np.float64).ravel()))


def _top(a: Array) -> float:
    return float(np.max(np.abs(a), initial=0.0))


def _ratio(part: float, whole: float) -> float:
    """The share of the whole; 0 where nothing changed, infinite where the whole is 0 or the part is not finite."""
    if part == 0:
        return 0.0
    return part / whole if whole > 0 and np.isfinite(part) else float("inf")
