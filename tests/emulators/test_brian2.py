"""Networks run by Brian2: every spike of every layer, and every membrane, is that of `interpret`."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from nets import currents, net, side_by_side, spikes

from sparsecirc.cells import ALIF, LIF, SYNAPTIC, Options, Reset
from sparsecirc.hardware import check_simulator, export_brian2, run_simulator
from sparsecirc.ir import Graph, interpret

pytestmark = pytest.mark.slow


def agree(graph: Graph, folder: Path, python: Path, x: np.ndarray, *options: str) -> int:
    """Run and compare; returns how many spikes there were."""
    found = run_simulator(export_brian2(graph, folder), x, python=python, options=options)
    report = check_simulator(graph, x, found)
    assert report.ok, str(report)
    assert report.ties == ()
    values = interpret(graph, x, keep_values=True).values
    for layer in graph.recurrent:
        np.testing.assert_allclose(found[f"{layer.name}.mem"], values[f"{layer.name}.mem"][:, 0], atol=1e-12)
    return report.spikes


def test_every_cell_and_every_reset(tmp_path: Path, brian2: Path) -> None:
    """24 recurrent layers beside each other on one input, and 4 units behind each."""
    parts = [
        net(cell, Options(reset, delay), 1)
        for cell, reset, delay in itertools.product((LIF, SYNAPTIC, ALIF), Reset, (True, False))
    ]
    graph = side_by_side(parts)
    assert len(graph.recurrent) == 48
    assert agree(graph, tmp_path, brian2, spikes(60, 3)) > 24 * 60
    assert all(interpret(graph, spikes(60, 3), keep_values=True).values[n.name].sum() > 10 for n in graph.recurrent)


@pytest.mark.parametrize("adapted", [False, True])
def test_currents_readouts_and_one_to_one_feedback(adapted: bool, tmp_path: Path, brian2: Path) -> None:
    graph = net(ALIF, Options(Reset.SUBTRACT, True, adapted), 2, readout=True, one_to_one=True)
    assert agree(graph, tmp_path, brian2, currents(70, 5)) > 50
    assert agree(graph, tmp_path, brian2, currents(1, 5)) >= 0


def test_compiled_to_cpp(tmp_path: Path, brian2: Path) -> None:
    assert agree(net(LIF, Options(Reset.SUBTRACT), 1), tmp_path, brian2, spikes(60, 3), "--device", "cpp") > 60
