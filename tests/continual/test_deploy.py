"""What a continual run learned compiles, and gives the logits of the network that was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy import clashing, net

import sparsecirc as sc
from sparsecirc.cells import Reset
from sparsecirc.continual import HLOP, Ranks, Setting, lif, rlif, run, sgd
from sparsecirc.hardware import LOIHI2, fits, quantise
from sparsecirc.ir import Graph, interpret


@pytest.mark.parametrize("density", [1.0, 0.5])
def test_the_result_compiles_and_answers_alike(density: float) -> None:
    pytest.importorskip("snntorch", reason="needs snntorch")
    scenario = clashing(2)
    model = net(scenario, density=density)
    run(model, scenario, HLOP(Ranks((8, 20, 20), (8, 10, 10))), Setting(optimizer=sgd(0.3), epochs=2))
    model.eval()
    x = scenario.tasks[1].test(slice(0, 50))[0]
    with torch.no_grad():
        expected = model(x).numpy()
    graph = sc.to_graph(model.to_snntorch(), example=x[:3], dt=1e-3)
    program = sc.compile(graph)
    steps = np.repeat(x.numpy()[None], model.steps, axis=0)
    assert sc.verify(program, steps).ok
    got = next(iter(program.run(steps).outputs.values())).mean(0)
    np.testing.assert_allclose(got, expected, atol=1e-4)


NETWORKS: dict[str, dict[str, Any]] = {
    "dense": {},
    "sparse": {"density": 0.3},
    "recurrent": {"neurons": rlif(density=0.3), "density": 0.3},
    "reset to zero": {"neurons": lif(reset_mechanism="zero"), "density": 0.3},
    "recurrent, reset to zero": {"neurons": rlif(density=0.3, reset_mechanism="zero")},
    "learned constants": {"neurons": lif(learn=True)},
}


@pytest.fixture(scope="module", params=NETWORKS)
def learned(request: pytest.FixtureRequest) -> tuple[Graph, np.ndarray[Any, Any]]:
    """The graph of a network that learned two tasks, and samples of the second."""
    pytest.importorskip("snntorch", reason="the package 'snntorch' is not installed")
    scenario = clashing(2)
    model = net(scenario, **NETWORKS[request.param])
    run(model, scenario, HLOP(Ranks((8, 20, 20), (8, 10, 10))), Setting(optimizer=sgd(0.3), epochs=2))
    x = scenario.tasks[1].test(slice(0, 20))[0]
    graph = sc.to_graph(model.to_snntorch(), example=x[:3], dt=1e-3)
    return graph, np.repeat(x.numpy()[None], model.steps, axis=0)


def test_every_export_computes_it(learned: tuple[Graph, np.ndarray[Any, Any]], tmp_path: Path) -> None:
    from sparsecirc.export.c import export_c, run_c
    from sparsecirc.export.onnx import export_onnx, run_onnx

    graph, x = learned
    (want,) = interpret(graph, x).outputs.values()
    assert float(np.ptp(want)) > 0.1
    (c,) = run_c(export_c(graph, tmp_path / "c"), x).values()
    (onnx,) = run_onnx(export_onnx(graph, tmp_path / "net.onnx").paths[0], x).values()
    for got in (c, onnx):
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_nir_has_its_spikes(learned: tuple[Graph, np.ndarray[Any, Any]], tmp_path: Path) -> None:
    pytest.importorskip("nir", reason="the package 'nir' is not installed")
    from sparsecirc.export.nir import export_nir
    from sparsecirc.frontends._nir import from_nir

    graph, x = learned
    export_nir(graph, tmp_path / "net.nir")
    back = from_nir(tmp_path / "net.nir")
    (want,), (got,) = interpret(graph, x).outputs.values(), interpret(back, x).outputs.values()
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_chip_takes_it_or_says_why(learned: tuple[Graph, np.ndarray[Any, Any]]) -> None:
    graph, x = learned
    chip = LOIHI2.with_limits(neurons_per_core=64)
    found = fits(graph, chip)
    resets = {layer.options.reset for layer in graph.recurrent}
    if resets != {Reset.ZERO}:  # a recurrent layer of snntorch drops the whole update of the step, see `Reset`
        assert not found.ok
        assert "its neurons reset by zero, this layer by" in found.table()
        return
    assert found.ok, found.table()
    assert found.partition is not None
    assert sum(len(core.units) for core in found.partition.cores) == 160
    spikes = (x > 0).astype(np.float32)
    assert quantise(graph, chip).cost(spikes).layers
