"""`what_if`: what pruning a network would bring, before it is pruned and without measuring it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._compile import SPIKE_RATE, problems
from sparsecirc._cost._features import Size
from sparsecirc._cost._model import CostModel, load_model
from sparsecirc._native import resolve_isa
from sparsecirc._pattern import Pattern
from sparsecirc._target import Target
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.ir import Conv, Graph, Node, Recurrent
from sparsecirc.ops import Problem, kernels_for
from sparsecirc.patterns import PatternMaker, check_sparsity, unstructured

STRIP = 16
SAMPLE_ROWS = 512
"""Rows of a large matrix that are looked at, in strips spread over its gates: its other rows are like them."""

SEARCH = (0.02, 0.99)
"""Sparsities between which the break-even is looked for, in `SEARCH_STEPS` halvings."""

SEARCH_STEPS = 7

MARGIN = 0.02
"""Gain from which sparse counts as faster: less is no reason to prune."""


@dataclass(frozen=True)
class Guess:
    """Predicted time of one layer at one sparsity.

    Attributes:
        sparsity: of its matrices.
        us: microseconds of one time step at batch 1 (of one call, for a layer outside time).
        speedup: over the same layer dense.
        formats: the fastest format by role.
    """

    sparsity: float
    us: float
    speedup: float
    formats: Mapping[str, str]


@dataclass(frozen=True)
class LayerGuess:
    """Predictions for one layer.

    Attributes:
        layer: its name.
        kind: cell or node kind.
        shapes: of its matrices by role.
        timed: whether it runs at every time step; else once per sequence.
        dense_us: microseconds with every connection stored, in the fastest format.
        now: as it is.
        at: at each sparsity that was asked for.
        break_even: sparsity from which it is at least 2 % faster than dense; ``None`` if it never is.
    """

    layer: str
    kind: str
    shapes: Mapping[str, tuple[int, int]]
    timed: bool
    dense_us: float
    now: Guess
    at: tuple[Guess, ...]
    break_even: float | None


@dataclass(frozen=True)
class WhatIf:
    """Result of `what_if`.

    Attributes:
        layers: in the order of the graph.
        sparsities: that were asked for.
        steps: time steps of a sequence, over which what happens once is shared.
        call_us: microseconds of one call of the program, shared in the same way.
        isa, dtype: what the predictions are for.
        calibrated: whether the times were measured on this machine.
        note: where they come from and how far to trust them.
        skipped: layers that are not predicted, with the reason.
    """

    layers: tuple[LayerGuess, ...]
    sparsities: tuple[float, ...]
    steps: int
    call_us: float
    isa: str
    dtype: str
    calibrated: bool
    note: str
    skipped: Mapping[str, str]

    def total(self, which: int | None = None) -> float:
        """Microseconds a step of the whole network at the sparsity of that index; dense without one."""
        total = self.call_us / self.steps
        for layer in self.layers:
            us = layer.dense_us if which is None else layer.at[which].us
            total += us if layer.timed else us / self.steps
        return total

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        totals = {
            "dense_us": self.total(),
            "at": [{"sparsity": s, "us": self.total(k)} for k, s in enumerate(self.sparsities)],
        }
        return {**asdict(self), "layers": [asdict(layer) for layer in self.layers], "totals": totals}

    def to_json_text(self) -> str:
        """JSON text."""
        return json.dumps(self.to_json(), indent=2)

    def rows(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Headings and cells: microseconds a step, speed-up and format of the largest matrix."""
        head = ("layer", "matrices", "dense", "now", *(f"at {s:.0%}" for s in self.sparsities), "break-even")
        body = []
        for layer in self.layers:
            largest = max(layer.shapes, key=lambda role: layer.shapes[role][0] * layer.shapes[role][1])
            cells = [f"{g.us:.2f} {g.speedup:.1f}x {g.formats[largest]}" for g in layer.at]
            body.append(
                (
                    layer.layer + ("" if layer.timed else " *"),
                    " ".join(f"{role} {r}x{c}" for role, (r, c) in layer.shapes.items()),
                    f"{layer.dense_us:.2f}",
                    f"{layer.now.us:.2f} at {layer.now.sparsity:.0%}" if layer.now.sparsity else "dense",
                    *cells,
                    "never" if layer.break_even is None else f"{layer.break_even:.0%}",
                )
            )
        dense = self.total()
        totals = [f"{self.total(k):.2f} {dense / self.total(k):.1f}x" for k in range(len(self.sparsities))]
        return head, [*body, ("total", "", f"{dense:.2f}", "", *totals, "")]

    def notes(self) -> list[str]:
        """What the reader has to know."""
        lines = [f"predicted microseconds a step at batch 1 on one thread ({self.isa}, {self.dtype}): {self.note}"]
        if not all(layer.timed for layer in self.layers):
            lines.append(f"*: once per sequence; the total shares it over {self.steps} steps")
        lines += [f"not predicted: {name}, {reason}" for name, reason in self.skipped.items()]
        return lines

    def table(self) -> str:
        """Aligned plain text."""
        head, body = self.rows()
        widths = [max(len(r[k]) for r in [head, *body]) for k in range(len(head))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(r, widths, strict=True)).rstrip() for r in [head, *body]]
        return "\n".join([*lines, *self.notes()])

    def __str__(self) -> str:
        return self.table()


def what_if(
    graph: Graph,
    sparsities: Sequence[float] = (0.5, 0.8, 0.9, 0.95),
    target: Target | None = None,
    *,
    pattern: PatternMaker = unstructured,
    exact: bool | None = None,
    rates: Mapping[str, float] | None = None,
    steps: int = 100,
    model: CostModel | None = None,
) -> WhatIf:
    """Predict the time of every recurrent and linear layer, dense and at several sparsities.

    The matrices are pruned by magnitude, each gate alike, and packed in every format that could run them; nothing is
    run: times come from the calibrated `CostModel` (``sparsecirc doctor --calibrate``), or from the one that came with
    the package.

    Args:
        graph: the network, pruned or not.
        sparsities: shares of dead connections, each in [0, 1).
        target: what it would be compiled for.
        pattern: which connections may live together.
        exact: as for `compile`.
        rates: share of active outputs by node name, for spiking layers; 5 % where it is absent.
        steps: time steps of a sequence.
        model: another calibration.

    Raises:
        UnsupportedError: no times are known for the instruction set, or no layer can be predicted.
        UsageError: a sparsity outside [0, 1), or ``steps`` below 1.
    """
    wanted = tuple(check_sparsity(s) for s in sparsities)
    if steps < 1:
        raise UsageError(f"steps is {steps}: expected at least 1")
    target = target or Target.cpu()
    isa = resolve_isa(target)
    predictor = _Predictor(model or load_model(isa), pattern, rates or {})
    by_node: dict[str, list[tuple[Problem, NDArray[np.float32]]]] = {}
    for problem, weight in problems(graph, isa, graph.spiking if exact is None else exact, target.dtype):
        by_node.setdefault(problem.weight.rpartition(".")[0], []).append((problem, weight))
    layers, skipped = [], {n.name: "it runs in numpy" for n in graph.nodes if isinstance(n, Conv)}
    for name, matrices in by_node.items():
        node = graph.node(name)
        try:
            layers.append(predictor.layer(graph, node, [_Matrix.of(node, p, w) for p, w in matrices], wanted))
        except (UnsupportedError, UsageError) as error:  # not calibrated, or the pattern does not fit its shape
            skipped[name] = str(error)
    if not layers:
        reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
        raise UnsupportedError(f"nothing can be predicted: {reasons or 'there is no recurrent or linear layer'}")
    found = predictor.model
    return WhatIf(
        tuple(layers), wanted, steps, found.call_us, isa.value, target.dtype, not found.shipped, found.note, skipped
    )


@dataclass(frozen=True)
class _Matrix:
    """A matrix, or some strips of a large one; ``scale`` is how many times as many rows it has."""

    role: str
    problem: Problem
    weight: NDArray[np.float32]
    gates: int
    scale: float
    shape: tuple[int, int]

    @staticmethod
    def of(node: Node, problem: Problem, weight: NDArray[np.float32]) -> _Matrix:
        role = problem.weight.rpartition(".")[2]
        gates = max(len(node.gates(role)), 1)
        height = len(weight) // gates
        strips = height // STRIP
        wanted = max(SAMPLE_ROWS // STRIP // gates, 1)
        shape = (int(weight.shape[0]), int(weight.shape[1]))
        if strips <= wanted:
            return _Matrix(role, problem, weight, gates, 1.0, shape)
        starts = np.linspace(0, strips - 1, wanted).astype(int) * STRIP
        rows = (np.arange(gates)[:, None, None] * height + starts[:, None] + np.arange(STRIP)).ravel()
        smaller = replace(problem, pattern=Pattern.from_mask(problem.pattern.mask()[rows], problem.pattern.origin))
        return _Matrix(role, smaller, weight[rows], gates, shape[0] / len(rows), shape)

    def pruned(self, sparsity: float, maker: PatternMaker) -> Problem:
        """The same matrix at another sparsity, each gate alike."""
        if sparsity == 0:
            return replace(self.problem, pattern=Pattern.full(*self.weight.shape))
        rng = np.random.default_rng(0)
        size = np.abs(self.weight).astype(np.float64)
        size += 1e-9 * max(float(size.max(initial=0.0)), 1e-30) * rng.random(size.shape)  # no order among dead ones
        parts = [maker(block, sparsity) for block in np.split(size, self.gates)]
        return replace(self.problem, pattern=Pattern.stack(parts))


@dataclass(frozen=True)
class _Predictor:
    model: CostModel
    maker: PatternMaker
    rates: Mapping[str, float]

    def layer(self, graph: Graph, node: Node, matrices: Sequence[_Matrix], wanted: Sequence[float]) -> LayerGuess:
        gates = 0.0
        if isinstance(node, Recurrent):
            found = self.model.gate_us(node.cell.name, node.units)
            if found is None:
                raise UnsupportedError(f"cell '{node.cell.name}' is not in the calibration: calibrate again")
            gates = found
        rate = {m.role: self._rate(node, m) for m in matrices}

        def fastest(problems: Sequence[Problem]) -> tuple[float, dict[str, str]]:
            us, formats = gates, {}
            for m, p in zip(matrices, problems, strict=True):
                times = self._times(p, m, rate[m.role])
                formats[m.role] = min(times, key=lambda name: times[name])
                us += times[formats[m.role]]
            return us, formats

        def at(sparsity: float) -> Guess:
            us, formats = fastest([m.pruned(sparsity, self.maker) for m in matrices])
            return Guess(sparsity, us, _quotient(dense_us, us), formats)

        dense_us, _ = fastest([m.pruned(0.0, self.maker) for m in matrices])
        us, formats = fastest([m.problem for m in matrices])
        live = _quotient(sum(m.problem.pattern.nnz for m in matrices), sum(m.weight.size for m in matrices))
        return LayerGuess(
            node.name,
            node.cell.name if isinstance(node, Recurrent) else node.kind,
            {m.role: m.shape for m in matrices},
            graph.specs[node.name].time,
            dense_us,
            Guess(1 - live, us, _quotient(dense_us, us), formats),
            tuple(at(s) for s in wanted),
            _crossing(lambda s: at(s).us < dense_us * (1 - MARGIN)),
        )

    def _rate(self, node: Node, matrix: _Matrix) -> float:
        if not matrix.problem.spikes:
            return 1.0
        source = node.name if matrix.role == "hh" else node.inputs[0]
        return self.rates.get(source, self.rates.get(source.rpartition(".")[0], SPIKE_RATE))

    def _times(self, problem: Problem, matrix: _Matrix, rate: float) -> dict[str, float]:
        """Predicted microseconds by format, of those that support the problem and were calibrated."""
        found = {}
        for name, kernel in kernels_for(problem.isa, problem.dtype).items():
            if kernel.supports(problem) is None:
                size = Size.of(kernel.format.pack(problem.pattern, matrix.weight), matrix.scale)
                us = self.model.product(size, many=problem.vectors > 1, rate=rate)
                if us is not None:
                    found[name] = us
        if not found:
            raise UnsupportedError("no format that can run it is in the calibration: calibrate again")
        return found


def _quotient(a: float, b: float) -> float:
    """A / b; 1 for layers without anything to do."""
    return a / b if b else 1.0


def _crossing(faster: Callable[[float], bool]) -> float | None:
    """The sparsity from which ``faster`` holds, by halving; ``None`` if it never does."""
    low, high = SEARCH
    if not faster(high):
        return None
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if faster(middle) else (middle, high)
    return high
