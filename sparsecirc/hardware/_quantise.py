"""`quantise`: a network in the numbers of a chip, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.hardware._chips import CHIPS, Chip
from sparsecirc.hardware._host import answers, classes
from sparsecirc.hardware._integer import IntegerNetwork, Run
from sparsecirc.hardware._network import Network, network
from sparsecirc.ir import Graph, interpret

Array = NDArray[Any]
Score = Callable[[Mapping[str, NDArray[Any]]], float]
"""Rates a run, e.g. its accuracy, from ``"NAME.spk"`` and ``"NAME.mem"``, each (T, B, units)."""


@dataclass(frozen=True)
class LayerCost:
    """What the numbers of a chip change in one layer.

    Attributes:
        name: of the layer.
        spikes, chip_spikes: in all.
        differ: decisions (unit, step and sample) that differ, of ``decisions``.
        decisions: how many there were.
        weight_error: root of the mean squared error of the weights into it, relative to the root mean square of those.
    """

    name: str
    spikes: int
    chip_spikes: int
    differ: int
    decisions: int
    weight_error: float


@dataclass(frozen=True)
class Cost:
    """What quantisation costs on one input.

    Attributes:
        layers: one entry per layer of neurons.
        score, chip_score: of the network before and after, where a score was asked for.
        accuracy, chip_accuracy: shares of right answers before and after, where labels were given.
        changed: share of the answers that are others than before, likewise.
    """

    layers: tuple[LayerCost, ...]
    score: float | None = None
    chip_score: float | None = None
    accuracy: float | None = None
    chip_accuracy: float | None = None
    changed: float | None = None

    def table(self) -> str:
        """A line per layer, and the scores."""
        lines = [f"{'layer':<20} {'spikes':>9} {'on chip':>9} {'differ':>9} {'weights off by':>15}"]
        for c in self.layers:
            share = c.differ / max(c.decisions, 1)
            lines.append(f"{c.name:<20} {c.spikes:>9,} {c.chip_spikes:>9,} {share:>9.2%} {c.weight_error:>15.2%}")
        if self.score is not None:
            lines.append(f"score {self.score:.4f}, in the numbers of the chip {self.chip_score:.4f}")
        if self.accuracy is not None:
            lines.append(
                f"accuracy {self.accuracy:.2%}, in the numbers of the chip {self.chip_accuracy:.2%}; "
                f"{self.changed:.2%} of the answers change"
            )
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()


@dataclass(frozen=True)
class Quantised:
    """A network in the numbers of a chip.

    Attributes:
        chip: the chip.
        original: the network before.
        integers: the network as the chip stores and runs it.
        graph: what was quantised.
    """

    chip: Chip
    original: Network
    integers: IntegerNetwork
    graph: Graph

    def run(self, x: ArrayLike | Mapping[str, ArrayLike]) -> Run:
        """Spikes and membranes in the chip's arithmetic; see `IntegerNetwork.run`."""
        return self.integers.run(x)

    def cost(self, x: ArrayLike, *, labels: ArrayLike | None = None, score: Score | None = None) -> Cost:
        """Run both on spikes ``x``, (T, B, *features), and compare every layer.

        Args:
            x: whole numbers, spikes or counts of them.
            labels: the right class of each sample (B,). The answer is where the first output of the graph, summed over
                the steps, is largest; layers behind the last neurons run on the host, in float64.
            score: rates a run of each in a way of your own.

        Raises:
            UsageError: as many labels as samples are expected.
        """
        values = interpret(self.graph, np.asarray(x, np.float64), keep_values=True).values
        got = self.run(x)
        names = [p.name for p in self.original.neurons]
        errors = [self._weight_error(name) for name in names]
        return _compared(self.graph, dict(zip(names, errors, strict=True)), values, got, labels, score)

    def _weight_error(self, name: str) -> float:
        stored = {c.name: c.weight for c in self.integers.net.projections}
        return _off([(c.weight, stored[c.name]) for c in self.original.into(name)])


def _compared(
    graph: Graph,
    errors: Mapping[str, float],
    before: Mapping[str, Array],
    after: Mapping[str, Array],
    labels: ArrayLike | None,
    score: Score | None = None,
) -> Cost:
    """What differs between two runs, in layers with these errors of their weights."""
    layers, was = [], {k: before[k].reshape(v.shape) for k, v in after.items() if k in before}
    for name, error in errors.items():
        got = after[f"{name}.spk"]
        want = was.get(f"{name}.spk", np.zeros_like(got))
        layers.append(LayerCost(name, int(want.sum()), int(got.sum()), int((want != got).sum()), want.size, error))
    rated = (None, None) if score is None else (score(was), score(after))
    if labels is None:
        return Cost(tuple(layers), *rated)
    right, (old, new) = np.asarray(labels).ravel(), (classes(answers(graph, run)) for run in (before, after))
    if len(right) != len(old):
        raise UsageError(f"{len(right)} labels for {len(old)} samples: expected one each")
    shares = float(np.mean(old == right)), float(np.mean(new == right)), float(np.mean(old != new))
    return Cost(tuple(layers), rated[0], rated[1], *shares)


def round_weights(graph: Graph, bits: int) -> Graph:
    """Every matrix before the last neurons in whole multiples of a scale of its own, ``s round(w / s)``.

    ``s = max|w| / (2^(bits - 1) - 1)``; what comes behind the last neurons is left to the host, as it is.

    Raises:
        UsageError: fewer than 2 bits.
    """
    if bits < 2:
        raise UsageError(f"{bits} bits for a weight: expected 2 or more, sign included")
    owner = {f"{n.name}.{p}" if p else n.name: n.name for n in graph.nodes for p in (*n.ports(), "")}
    on_chip = {n.name for n in graph.recurrent}
    for node in reversed(graph.nodes):
        if node.name in on_chip:
            on_chip |= {owner[i] for i in node.inputs}
    nodes = []
    for node in graph.nodes:
        rounded = {}
        for role in node.matrix_roles if node.name in on_chip else ():
            if role in node.params:
                weight = np.asarray(node.weight(role), np.float64)
                scale = float(np.abs(weight).max(initial=0.0)) / (2 ** (bits - 1) - 1) or 1.0
                rounded[role] = (scale * np.round(weight / scale)).astype(np.float32)
        nodes.append(node.with_params(**rounded) if rounded else node)
    return replace(graph, nodes=tuple(nodes))


def weight_cost(graph: Graph, chip: Chip, x: ArrayLike, *, labels: ArrayLike | None = None) -> Cost:
    """What the width of a chip's weights costs, where no more is known of its arithmetic; all else stays in float64.

    Args:
        graph: a spiking network, time first.
        chip: one whose bits of a weight are known.
        x: spikes (T, B, *features).
        labels: see `Quantised.cost`.

    Raises:
        UnsupportedError: the bits of its weights are not known, or the graph has no spiking layer.
    """
    bits = chip.limit("weight_bits")
    if bits is None:
        raise UnsupportedError(f"neither the arithmetic nor the weights of {chip.title} are known here")
    coarse, names = round_weights(graph, bits), [p.name for p in network(graph).neurons]
    before, after = (interpret(g, np.asarray(x, np.float64), keep_values=True).values for g in (graph, coarse))
    old, new = (network(g) for g in (graph, coarse))
    stored = {c.name: c.weight for c in new.projections}
    errors = {n: _off([(c.weight, stored[c.name]) for c in old.into(n)]) for n in names}
    return _compared(graph, errors, before, after, labels)


def _off(pairs: Sequence[tuple[Array, Array]]) -> float:
    """Root of the mean squared difference of matrices, relative to the root mean square of the first."""
    error = sum(float(np.square(a - b).sum()) for a, b in pairs)
    size = sum(float(np.square(a).sum()) for a, _ in pairs)
    return float(np.sqrt(error / size)) if size else 0.0


def quantise(graph: Graph, chip: Chip) -> Quantised:
    """The nearest network that a chip can store.

    Args:
        graph: spiking layers whose cells and resets the chip has, and weighted sums between them, time first.
        chip: one whose arithmetic is known: Loihi and Loihi 2 (after Lava's bit-accurate model), Xylo (after xylosim).

    Raises:
        UnsupportedError: the arithmetic is not known, or a layer cannot be stored; named, with the cure.
    """
    if chip.store is None:
        known = ", ".join(name for name, c in CHIPS.items() if c.store is not None)
        raise UnsupportedError(f"the arithmetic of {chip.title} is not known here: known are {known}")
    net = network(graph)
    return Quantised(chip, net, chip.store(net), graph)
