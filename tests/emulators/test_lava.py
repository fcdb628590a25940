"""Networks run by Lava's CPU simulation: in floating point as `interpret`, in integers as `quantise` says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nets import net, spikes, with_vectors

from sparsecirc.cells import LIF, SYNAPTIC, Cell, Options, Reset
from sparsecirc.hardware import LOIHI2, check_simulator, export_lava, quantise, run_simulator
from sparsecirc.ir import Add, Graph, Linear

pytestmark = pytest.mark.slow
VECTORS = {"alpha": 0.8, "beta": 0.9, "threshold": 1.0}


def plain(cell: Cell, seed: int = 1, **vectors: object) -> Graph:
    return with_vectors(net(cell, Options(Reset.ZERO), seed), cell, seed, **(VECTORS | vectors))


@pytest.mark.parametrize("cell", [LIF, SYNAPTIC])
def test_floating_point(cell: Cell, tmp_path: Path, lava: Path) -> None:
    graph, x = plain(cell, threshold=lambda rng, n: rng.uniform(0.7, 1.4, n)), spikes(60, 3)
    report = check_simulator(graph, x, run_simulator(export_lava(graph, tmp_path), x, python=lava))
    assert report.ok, str(report)
    assert report.spikes > 60


def test_a_connection_that_skips_a_layer_waits(tmp_path: Path, lava: Path) -> None:
    graph, x = plain(LIF), spikes(50, 3)
    rng = np.random.default_rng(0)
    skip = Linear("skip", ("x",), {"weight": rng.standard_normal((4, 8)).astype(np.float32)})
    nodes = [*graph.nodes[:-1], skip, Add("sum", ("fc", "skip")), replace(graph.nodes[-1], inputs=("sum",))]
    graph = replace(graph, nodes=tuple(nodes))
    report = check_simulator(graph, x, run_simulator(export_lava(graph, tmp_path), x, python=lava))
    assert report.ok, str(report)


@pytest.mark.parametrize("cell", [LIF, SYNAPTIC])
def test_integers_bit_by_bit(cell: Cell, tmp_path: Path, lava: Path) -> None:
    graph, x = plain(cell), spikes(60, 3)
    made = export_lava(graph, tmp_path, chip=LOIHI2)
    assert made.form == "integers of Intel Loihi 2"
    found = run_simulator(made, x, python=lava)
    assert str(found["runner"]) == "lava-nc 0.10.0 fixed point"
    want = quantise(graph, LOIHI2).run(x)
    for name in ("rnn.spk", "out.spk"):
        assert want[name].sum() > 10
        np.testing.assert_array_equal(found[name], want[name][:, 0])
