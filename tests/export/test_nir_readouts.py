"""Leaky integrators and thresholds that adapt: written to NIR exactly or refused by name, and read from other hands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsecirc import Pattern
from sparsecirc.cells import ALIF, LI, LIF, SYNAPTIC, Options, Reset
from sparsecirc.errors import UnsupportedError
from sparsecirc.ir import Affine, Graph, Input, Linear, Recurrent, interpret
from sparsecirc.testing import recurrent_graph

nir = pytest.importorskip("nir", reason="the package 'nir' is not installed")

from sparsecirc.export.nir import Profile, euler, export_nir  # noqa: E402
from sparsecirc.frontends._nir import from_nir  # noqa: E402

RNG = np.random.default_rng(5)
X = np.concatenate([RNG.random((50, 2, 6)) < 0.4, 1.5 * RNG.standard_normal((50, 2, 6))], axis=1).astype(float)
FOUR = np.array([4])


def full(value: float) -> np.ndarray[Any, Any]:
    return np.full(4, value)


def same(graph: Graph, path: Path, x: np.ndarray[Any, Any] = X) -> dict[str, np.ndarray[Any, Any]]:
    """The file, run by the judge and read back, gives what the graph gives; returns that."""
    want = interpret(graph, x).outputs
    judged = euler(nir.read(path), x).outputs
    back = interpret(from_nir(path), x).outputs
    assert len(judged) == len(want)
    assert set(back) == set(want)
    for value, have in zip(want.values(), judged.values(), strict=True):
        np.testing.assert_allclose(have, value, rtol=1e-9, atol=1e-10)
    for name, value in want.items():
        np.testing.assert_allclose(back[name], value, rtol=1e-9, atol=1e-10)
    return want


# Integrators ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"recurrence": False}, {"one_to_one": True}, {"density": 1.0}], ids=str)
@pytest.mark.parametrize("units", [1, 17])
def test_integrators_are_exact(units: int, options: dict[str, Any], tmp_path: Path) -> None:
    graph = recurrent_graph(LI, 6, units, **{"density": 0.4, "seed": 3, **options})
    made = export_nir(graph, tmp_path / "a.nir")
    assert made.form == "subtract"
    assert np.any(same(graph, tmp_path / "a.nir")["mem"])
    back = from_nir(tmp_path / "a.nir").recurrent[0]
    assert (back.name, back.cell) == ("rnn", LI)
    np.testing.assert_array_equal(back.params["beta"], graph.recurrent[0].params["beta"])
    if "hh" in graph.recurrent[0].params and units > 1:
        np.testing.assert_array_equal(back.weight("hh"), graph.recurrent[0].weight("hh"))
        assert back.patterns.get("hh") == graph.recurrent[0].patterns.get("hh")


def test_a_spiking_network_with_a_read_out(tmp_path: Path) -> None:
    lif = recurrent_graph(LIF, 6, 20, 0.5, options=Options(Reset.ZERO), seed=2).recurrent[0]
    weight = {"ih": RNG.standard_normal((3, 20)) * 0.3, "beta": np.array([0.9, 0.5, 1.0])[:3]}
    out = Recurrent("out", ("rnn",), weight, cell=LI, units=3)
    graph = Graph((Input("x", shape=(6,)), lif, out), {"y": "out", "spk": "rnn"}, dt=1e-3)
    with pytest.raises(UnsupportedError, match="layer 'out' has beta = 1 in some units only"):
        export_nir(graph, tmp_path / "a.nir")
    for beta in (np.array([0.9, 0.5, 0.0]), np.ones(3)):
        graph = graph.replace_nodes(out.with_params(beta=beta))
        assert export_nir(graph, tmp_path / "a.nir").form == "subtract"
        assert same(graph, tmp_path / "a.nir")["spk"].sum() > 100
    with pytest.raises(UnsupportedError, match=r"layer 'out': it never fires: that is NIR's LI, which no reader"):
        export_nir(graph, tmp_path / "b.nir", profile=Profile.DIALECT)


def test_an_image_of_integrators(tmp_path: Path) -> None:
    graph = recurrent_graph(LI, 24, 24, 1.0, input_product=False, recurrence=False, bias=False, feature_shape=(2, 3, 4))
    export_nir(graph, tmp_path / "a.nir")
    same(graph, tmp_path / "a.nir", RNG.standard_normal((20, 2, 2, 3, 4)))
    assert from_nir(tmp_path / "a.nir").recurrent[0].feature_shape == (2, 3, 4)


def chain(*nodes: Any) -> Any:
    names = {f"{k}_{type(n).__name__}": n for k, n in enumerate([nir.Input(FOUR), *nodes, nir.Output(FOUR)])}
    return nir.NIRGraph(names, list(zip(list(names), list(names)[1:], strict=False)), type_check=False)


def agree(graph: Any) -> Graph:
    x = RNG.standard_normal((40, 3, 4))
    read = from_nir(graph)
    want = next(iter(euler(graph, x).outputs.values()))
    assert np.any(want)
    np.testing.assert_allclose(interpret(read, x).y, want, rtol=1e-9, atol=1e-12)
    return read


def test_leaks_of_other_hands() -> None:
    """norse writes LI with r = 1; a CubaLI is two leaks in a row."""
    leak = nir.LI(tau=full(1e-3), r=full(1.0), v_leak=full(0))
    read = agree(chain(leak))
    assert [type(n) for n in read.nodes] == [Input, Recurrent, Affine]
    assert read.recurrent[0].cell is LI
    assert not read.spiking
    np.testing.assert_allclose(read.node(read.nodes[2].name).params["scale"], 0.1)
    unit = nir.LI(tau=full(1e-3), r=full(10.0), v_leak=full(0))
    assert [type(n) for n in agree(chain(unit)).nodes] == [Input, Recurrent]
    assert [n.cell for n in agree(chain(leak, leak)).recurrent] == [LI, LI]
    assert [n.cell for n in agree(chain(nir.I(full(1e4)))).recurrent] == [LI]
    cuba = nir.CubaLI(full(5e-4), full(1e-3), full(4.0), full(0), w_in=full(3))
    read = agree(chain(cuba))
    assert [n.cell for n in read.recurrent] == [LI, LI]
    assert read.recurrent[0].name == f"{read.recurrent[1].name}.syn"
    assert [n.cell for n in agree(chain(cuba, nir.Threshold(full(0.3)))).recurrent] == [SYNAPTIC]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("diagonal", [False, True])
def test_a_linear_recurrence_of_another_hand(diagonal: bool, bias: bool) -> None:
    weight = np.diag(RNG.standard_normal(4)) if diagonal else RNG.standard_normal((4, 4)) * 0.4
    w = nir.Affine(weight, RNG.standard_normal(4)) if bias else nir.Linear(weight)
    nodes = {"a": nir.Input(FOUR), "n": nir.LI(np.array([1e-3, 2e-3, 3e-3, 5e-4]), full(2.0), full(0)), "w": w,
             "z": nir.Output(FOUR)}  # fmt: skip
    read = agree(nir.NIRGraph(nodes, [("a", "n"), ("n", "w"), ("w", "n"), ("n", "z")]))
    layer = read.recurrent[0]
    assert layer.cell is LI
    assert ("hh_diag" if diagonal else "hh") in layer.params


def test_spikes_that_reach_a_synapse_are_no_reset() -> None:
    """A connection of -threshold / gain into a CubaLI lowers its current, not its membrane."""
    cuba = nir.CubaLI(full(5e-4), full(1e-3), full(10.0), full(0), w_in=full(5))
    nodes = {"a": nir.Input(FOUR), "b": cuba, "c": nir.Threshold(full(1.0)), "d": nir.Linear(-np.eye(4)),
             "z": nir.Output(FOUR)}  # fmt: skip
    read = agree(nir.NIRGraph(nodes, [("a", "b"), ("b", "c"), ("c", "d"), ("d", "b"), ("c", "z")]))
    assert read.recurrent[0].options.reset is Reset.NONE


def test_what_was_written_as_a_neuron_comes_back_as_one(tmp_path: Path) -> None:
    for cell in (LIF, SYNAPTIC):
        base = recurrent_graph(cell, 6, 5, 1.0, recurrence=False, options=Options(Reset.NONE))
        graph = replace(base, outputs={"mem": "rnn.mem"})
        export_nir(graph, tmp_path / "a.nir")
        same(graph, tmp_path / "a.nir")
        assert from_nir(tmp_path / "a.nir").recurrent[0].cell is cell


# Thresholds that adapt -----------------------------------------------------------------------------------------------

MODES = [Options(Reset.SUBTRACT), Options(Reset.SUBTRACT, delay=False), Options(Reset.NONE)]


def adaptive(options: Options, seed: int = 4, units: int = 17, **more: Any) -> Graph:
    return recurrent_graph(ALIF, 6, units, 0.4, seed=seed, options=options, **more)


@pytest.mark.parametrize("outputs", [("spk",), ("spk", "mem")], ids=str)
@pytest.mark.parametrize("more", [{}, {"recurrence": False}, {"one_to_one": True}], ids=str)
@pytest.mark.parametrize("options", MODES, ids=lambda o: f"{o.reset.value}-{o.delay}")
def test_adaptation_is_exact(options: Options, more: dict[str, Any], outputs: tuple[str, ...], tmp_path: Path) -> None:
    fired = 0.0
    for seed in range(3):
        graph = replace(adaptive(options, seed, **more), outputs={o: f"rnn.{o}" for o in outputs})
        made = export_nir(graph, tmp_path / "a.nir")
        assert made.form == "subtract"
        assert made.notes[0].startswith("0 of ")
        fired += same(graph, tmp_path / "a.nir")["spk"].sum()
        back, layer = from_nir(tmp_path / "a.nir").recurrent[0], graph.recurrent[0]
        assert (back.name, back.cell, back.options.reset) == ("rnn", ALIF, options.reset)
        assert back.options.delay == options.delay or options.reset is Reset.NONE
        for name in ALIF.vectors:
            np.testing.assert_array_equal(back.params[name], layer.params[name])
    assert fired > 300


def test_adaptation_that_never_sinks_and_images_of_it(tmp_path: Path) -> None:
    graph = adaptive(Options())
    graph = graph.replace_nodes(graph.recurrent[0].with_params(rho=np.ones(17, np.float32)))
    graph = replace(graph, outputs={"spk": "rnn"})
    export_nir(graph, tmp_path / "a.nir")
    assert same(graph, tmp_path / "a.nir")["spk"].sum() > 20
    options = {"input_product": False, "recurrence": False, "bias": False, "feature_shape": (2, 3, 4)}
    image = recurrent_graph(ALIF, 24, 24, 1.0, options=Options(delay=False), **options)
    image = replace(image, outputs={"spk": "rnn", "mem": "rnn.mem"})
    export_nir(image, tmp_path / "b.nir")
    assert same(image, tmp_path / "b.nir", 2 * RNG.standard_normal((30, 2, 2, 3, 4)))["spk"].sum() > 50


@pytest.mark.parametrize(
    ("options", "outputs", "words"),
    [
        (Options(Reset.ZERO), "spk", "its threshold adapts and it resets to zero"),
        (Options(Reset.ZERO_UPDATE, False), "spk", "its threshold adapts and it resets to zero"),
        (Options(Reset.SUBTRACT, adapted=True), "spk", "a product of two states"),
        (Options(Reset.NONE), "adapt", "its 'adapt' is read one step before"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_what_nir_cannot_hold_is_refused(options: Options, outputs: str, words: str, tmp_path: Path) -> None:
    graph = replace(adaptive(options), outputs={"y": f"rnn.{outputs}"})
    with pytest.raises(UnsupportedError, match=f"layer 'rnn': .*{words}"):
        export_nir(graph, tmp_path / "a.nir")
    assert list(tmp_path.iterdir()) == []


def test_the_dialect_has_no_adaptation(tmp_path: Path) -> None:
    graph = replace(adaptive(Options()), outputs={"y": "rnn"})
    with pytest.raises(UnsupportedError, match=r"its threshold adapts, that of NIR's LIF is fixed \(profile=Profile"):
        export_nir(graph, tmp_path / "a.nir", profile=Profile.DIALECT)
    zero = graph.replace_nodes(replace(graph.recurrent[0], options=Options(Reset.ZERO)))
    with pytest.raises(UnsupportedError, match="not even an approximation"):
        export_nir(zero, tmp_path / "a.nir", allow_approximate=True)


def test_an_approximation_keeps_a_readout_that_never_fires(tmp_path: Path) -> None:
    base = recurrent_graph(LIF, 4, 6, 0.5, options=Options(Reset.SUBTRACT), seed=1)
    beta = np.full(6, 0.9, np.float32)
    readout = Recurrent("out", ("rnn",), {"beta": beta}, cell=LI, units=6)
    graph = replace(base, nodes=(*base.nodes, readout), outputs={"y": "out"})
    made = export_nir(graph, tmp_path / "a.nir", profile=Profile.DIALECT, allow_approximate=True)
    assert made.form == "dialect, approximate"
    assert "it resets by subtraction" in made.notes[0]
    assert "spike decisions differ from interpret" in made.notes[1]
    assert any(n.cell is LI for n in from_nir(made.paths[0]).recurrent)


def test_an_adaptation_with_gains_of_another_hand() -> None:
    """Leaks of r = 1, the rise as a Linear, a reset that is no reset here: an inhibition of each unit by itself."""
    leak = nir.LI(tau=np.array([1e-3, 2e-3, 5e-4, 1e-3]), r=full(3.0), v_leak=full(0))
    slow = nir.LI(tau=full(5e-3), r=full(2.0), v_leak=full(0))
    nodes = {"a": nir.Input(FOUR), "b": leak, "c": nir.Threshold(full(0.4)), "d": slow,
             "e": nir.Linear(-np.diag([3.0, 5.0, 1.0, 4.0])), "f": nir.Linear(-0.3 * np.eye(4)),
             "z": nir.Output(FOUR)}  # fmt: skip
    edges = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "c"), ("c", "f"), ("f", "b"), ("c", "z")]
    layer = agree(nir.NIRGraph(nodes, edges)).recurrent[0]
    assert (layer.cell, layer.options.reset) == (ALIF, Reset.NONE)
    assert "hh_diag" in layer.params
    np.testing.assert_allclose(layer.params["rho"], 1 - 1e-4 / 5e-3)


def test_patterns_of_a_recurrent_adaptive_layer_come_back(tmp_path: Path) -> None:
    graph = replace(adaptive(Options()), outputs={"y": "rnn"})
    export_nir(graph, tmp_path / "a.nir")
    back = from_nir(tmp_path / "a.nir")
    assert back.recurrent[0].patterns["hh"] == graph.recurrent[0].patterns["hh"]
    assert isinstance(back.node("rnn.ih"), Linear)
    assert isinstance(back.node("rnn.ih").patterns["weight"], Pattern)
