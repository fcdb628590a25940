"""What lattice pruning and a continual run left, on every simulator that can hold it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nets import net, spikes, with_vectors

import sparsecirc as sc
from sparsecirc import patterns
from sparsecirc.cells import LIF, SYNAPTIC, Cell, Options, Reset
from sparsecirc.hardware import (
    LOIHI1,
    LOIHI2,
    XYLO_AUDIO2,
    check_simulator,
    export_brian2,
    export_lava,
    export_nengo_loihi,
    export_xylo,
    fits,
    quantise,
    run_simulator,
)
from sparsecirc.ir import Graph

ZERO = Options(Reset.ZERO)
VECTORS = {"alpha": 0.75, "beta": 0.875, "threshold": 0.8}
LATTICES: dict[str, tuple[float | None, Any]] = {
    "threshold": (None, patterns.lattice(keep="both")),
    "ranked": (0.8, patterns.lattice(adjacency="continuous", keep="cover")),
}


def pruned(kind: str, cell: Cell = LIF, options: Options = ZERO) -> Graph:
    graph = with_vectors(net(cell, options, 1), cell, 1, **VECTORS)
    sparsity, pattern = LATTICES[kind]
    small: Graph = sc.prune(graph, sparsity, pattern=pattern)
    before, after = graph.recurrent[0].weight("hh"), small.recurrent[0].weight("hh")
    assert 0 < np.count_nonzero(after) < np.count_nonzero(before)
    return small


def continual() -> Graph:
    """Two tasks with spikes for inputs, learned one after the other."""
    torch = pytest.importorskip("torch", reason="the package 'torch' is not installed")
    pytest.importorskip("snntorch", reason="the package 'snntorch' is not installed")
    from sparsecirc.continual import HLOP, Ranks, Setting, lif, mlp, permuted, run, sequence, sgd

    g = torch.Generator().manual_seed(0)
    rates = torch.rand(4, 8, generator=g)
    labels = torch.arange(240) % 4
    x = (torch.rand(12, 240, 8, generator=g) < rates[labels]).float().movedim(0, 1)
    scenario = permuted(x[:200], labels[:200], x[200:], labels[200:], 2)
    torch.manual_seed(0)
    model = mlp(8, [24, 20], 4, neurons=lif(reset_mechanism="zero"), density=0.4, steps=12, coding=sequence)
    run(model, scenario, HLOP(Ranks((4, 12, 10), (2, 6, 5))), Setting(optimizer=sgd(0.3), epochs=2))
    return sc.to_graph(model.to_snntorch(), example=torch.zeros(12, 1, 8), dt=1e-3, spiking_input=True)


def made(kind: str) -> Graph:
    return continual() if kind == "continual" else pruned(kind)


KINDS = [*LATTICES, "continual"]


@pytest.mark.parametrize("kind", KINDS)
def test_it_fits_and_is_rounded(kind: str) -> None:
    graph, x = made(kind), spikes(80, 3, 0.8)
    for chip in (LOIHI1, LOIHI2.with_limits(neurons_per_core=16)):
        fit = fits(graph, chip)
        assert fit.ok, fit.table()
        assert fit.partition is not None
        units = [(core.population, u) for core in fit.partition.cores for u in core.units]
        assert len(units) == len(set(units)) == sum(layer.units for layer in graph.recurrent)
    cost = quantise(graph, LOIHI1).cost(x)
    assert all(0 < layer.weight_error < 0.1 for layer in cost.layers)


@pytest.mark.parametrize("kind", KINDS)
def test_nir_keeps_its_spikes_and_its_connections(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("nir", reason="the package 'nir' is not installed")
    graph, x = made(kind), spikes(80, 3, 0.8)
    sc.export_nir(graph, tmp_path / "net.nir")
    back = sc.from_nir(tmp_path / "net.nir")
    (want,), (got,) = sc.interpret(graph, x).outputs.values(), sc.interpret(back, x).outputs.values()
    np.testing.assert_allclose(got, want, atol=1e-6)
    before, after = ([p for n in g.nodes for p in n.patterns.values()] for g in (graph, back))
    assert before
    assert all(pattern in after for pattern in before)  # input weights of a layer become a node before it


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_brian2(kind: str, tmp_path: Path, brian2: Path) -> None:
    graph, x = made(kind), spikes(80, 3, 0.8)
    report = check_simulator(graph, x, run_simulator(export_brian2(graph, tmp_path), x, python=brian2))
    assert report.ok, str(report)
    assert report.spikes > 30


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_loihi(kind: str, tmp_path: Path, lava: Path, nengo_loihi: Path) -> None:
    graph, x = made(kind), spikes(80, 3, 0.8)
    report = check_simulator(graph, x, run_simulator(export_lava(graph, tmp_path / "float"), x, python=lava))
    assert report.ok, str(report)
    for chip, export, python in ((LOIHI2, export_lava, lava), (LOIHI1, export_nengo_loihi, nengo_loihi)):
        found = run_simulator(export(graph, tmp_path / chip.name, chip=chip), x, python=python)
        want = quantise(graph, chip).run(x)
        names = [f"{layer.name}.spk" for layer in graph.recurrent]
        assert sum(want[n].sum() for n in names) > 30
        for name in names:
            np.testing.assert_array_equal(found[name], want[name][:, 0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(LATTICES))
def test_xylo(kind: str, tmp_path: Path, xylosim: Path) -> None:
    graph, x = pruned(kind, SYNAPTIC, Options(Reset.SUBTRACT, False)), spikes(80, 3, 0.8)
    found = run_simulator(export_xylo(graph, tmp_path), x, python=xylosim)
    want = quantise(graph, XYLO_AUDIO2).integers.on_chip(x)  # type: ignore[attr-defined]
    for name in ("rnn.spk", "out.spk"):
        assert want[name].sum() > 10
        np.testing.assert_array_equal(found[name], want[name][:, 0])
