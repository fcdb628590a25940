"""`quantise`: a network in the numbers of a chip, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc.errors import UnsupportedError
from sparsecirc.hardware._chips import CHIPS, Chip
from sparsecirc.hardware._integer import IntegerNetwork, Run
from sparsecirc.hardware._network import Network, network
from sparsecirc.ir import Graph, interpret

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
    """

    layers: tuple[LayerCost, ...]
    score: float | None = None
    chip_score: float | None = None

    def table(self) -> str:
        """A line per layer, and the scores."""
        lines = [f"{'layer':<20} {'spikes':>9} {'on chip':>9} {'differ':>9} {'weights off by':>15}"]
        for c in self.layers:
            share = c.differ / max(c.decisions, 1)
            lines.append(f"{c.name:<20} {c.spikes:>9,} {c.chip_spikes:>9,} {share:>9.2%} {c.weight_error:>15.2%}")
        if self.score is not None:
            lines.append(f"score {self.score:.4f}, in the numbers of the chip {self.chip_score:.4f}")
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

    def cost(self, x: ArrayLike, *, score: Score | None = None) -> Cost:
        """Run both on spikes ``x``, (T, B, *features), and compare every layer.

        Args:
            x: whole numbers, spikes or counts of them.
            score: rates a run of each, e.g. by its accuracy.
        """
        values = interpret(self.graph, np.asarray(x, np.float64), keep_values=True).values
        got = self.run(x)
        before = {k: values[k].reshape(v.shape) for k, v in got.items() if k in values}
        layers = []
        for p in self.original.neurons:
            spikes = f"{p.name}.spk"
            want = before.get(spikes, np.zeros_like(got[spikes]))
            layers.append(
                LayerCost(
                    p.name, int(want.sum()), int(got[spikes].sum()), int((want != got[spikes]).sum()), want.size,
                    self._weight_error(p.name),
                )
            )  # fmt: skip
        rated = (None, None) if score is None else (score(before), score(got))
        return Cost(tuple(layers), *rated)

    def _weight_error(self, name: str) -> float:
        stored = {c.name: c.weight for c in self.integers.net.projections}
        pairs = [(c.weight, stored[c.name]) for c in self.original.into(name)]
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
