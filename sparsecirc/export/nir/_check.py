"""An export compared with the graph it was made of, spike by spike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.export.nir._euler import NIR_DT, euler
from sparsecirc.ir import Graph, interpret

STEPS, BATCH = 48, 6


@dataclass(frozen=True)
class Check:
    """Result of one comparison.

    Attributes:
        decisions: steps x samples x units over all spiking layers.
        spikes: how many of them fired in the reference.
        differ: how many differ.
        first: the earliest difference in words, empty if there is none.
        silent: layers that never fired, for which the check says little.
        output_diff: largest difference of outputs that are not spikes, relative to the largest value there.
        seed: of the random input.
    """

    decisions: int
    spikes: int
    differ: int
    first: str
    silent: tuple[str, ...]
    output_diff: float
    seed: int

    @property
    def exact(self) -> bool:
        """Every spike is equal, and every other output to the rounding of float32."""
        return self.differ == 0 and self.output_diff < 1e-5

    def words(self) -> str:
        """One line for the notes of an export."""
        run = f"random input, seed {self.seed}, {STEPS} steps x {BATCH} samples, {self.spikes:,} spikes"
        text = (
            f"{self.differ:,} of {self.decisions:,} spike decisions differ from interpret ({run}; forward Euler in "
            f"float64, dt = {NIR_DT:g} s)"
        )
        if self.first:
            text += f"; first: {self.first}"
        if self.output_diff >= 1e-5:
            text += f"; outputs differ by up to {self.output_diff:.2g} of their largest value"
        if self.silent:
            text += f"; never fired: {', '.join(self.silent)}"
        return text


def random_input(shape: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    """(T, B, *shape): rare and frequent spikes, strong spikes, and normal numbers of three sizes."""
    rng = np.random.default_rng(seed)
    coins = rng.random((STEPS, BATCH // 2, *shape))
    normal = rng.standard_normal((STEPS, BATCH - BATCH // 2, *shape))
    rates = np.array([0.1, 0.5, 0.5]).reshape(-1, *(1,) * len(shape))
    sizes = np.array([1.0, 1.0, 4.0]).reshape(-1, *(1,) * len(shape))
    x = np.concatenate([(coins < rates) * sizes, normal * np.array([0.5, 1.0, 3.0]).reshape(sizes.shape)], axis=1)
    return x.astype(np.float32).astype(np.float64)


def check(nir_graph: Any, graph: Graph, layers: Mapping[str, str], outputs: Mapping[str, str], seed: int) -> Check:
    """Run both on the same input.

    Args:
        nir_graph: what was exported.
        graph: the reference; one sequence input, time first.
        layers: our spiking layer -> path of the NIR node that fires.
        outputs: our output name -> name of the NIR Output node.
        seed: of the random input.
    """
    source = graph.inputs[0]
    x = random_input(tuple(source.shape), seed)
    expected = interpret(graph, x, keep_values=True)
    got = euler(nir_graph, x)
    decisions = spikes = differ = 0
    silent: list[str] = []
    earliest: tuple[int, str] | None = None
    for name, path in layers.items():
        want, have = expected.values[f"{name}.spk"], got.spikes[path]
        wrong = want != have
        decisions, spikes, differ = decisions + want.size, spikes + int(want.sum()), differ + int(wrong.sum())
        if not want.any():
            silent.append(name)
        if wrong.any() and (earliest is None or _first(wrong) < earliest[0]):
            step = _first(wrong)
            margin = float(np.abs(got.margins[path][step][wrong[step]]).min())
            earliest = step, f"layer '{name}' at step {step}, where |v - theta| / theta = {margin:.2g}"
    real = 0.0
    for name, node in outputs.items():
        if not graph.outputs[name].endswith(".spk") and graph.outputs[name] not in layers:
            want, have = expected.outputs[name], got.outputs[node]
            real = max(real, float(np.abs(want - have).max() / max(1e-30, np.abs(want).max())) if want.size else 0.0)
    return Check(decisions, spikes, differ, earliest[1] if earliest else "", tuple(silent), real, seed)


def _first(wrong: NDArray[np.bool_]) -> int:
    return int(np.argmax(wrong.reshape(len(wrong), -1).any(axis=1)))
