"""NIR export and import of spiking layers: the same spikes for every reset, or a documented refusal."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsecirc._pattern import Pattern
from sparsecirc.cells import LIF, SYNAPTIC, Cell, Options, Reset
from sparsecirc.errors import UnsupportedError
from sparsecirc.ir import Graph, Input, Linear, Recurrent, TimeReduce, interpret

nir = pytest.importorskip("nir", reason="the package 'nir' is not installed")

from sparsecirc.export.nir import Profile, euler, export_nir  # noqa: E402
from sparsecirc.export.nir._check import check  # noqa: E402
from sparsecirc.export.nir._profile import zero_reset  # noqa: E402
from sparsecirc.frontends._nir import from_nir  # noqa: E402

IN = 8
SIZES = (1, 17, 33)
RESETS = tuple(itertools.product(Reset, (True, False)))
KINDS = ((LIF, ""), (LIF, "hh_diag"), (LIF, "hh"), (SYNAPTIC, ""), (SYNAPTIC, "hh_diag"), (SYNAPTIC, "hh"))


def layer(
    cell: Cell, role: str, options: Options, units: int, seed: int, name: str = "lif", **vectors: Any
) -> Recurrent:
    rng = np.random.default_rng([seed, units])
    values = {"alpha": 0.8, "beta": 0.9, "threshold": 1.0} | vectors
    params = {v: np.broadcast_to(np.asarray(values[v], np.float32), (units,)).copy() for v in cell.vectors}
    patterns = {}
    if role:
        shape = (units, units) if role == "hh" else (units,)
        params[role] = (rng.standard_normal(shape) * 0.4).astype(np.float32)
        if role == "hh" and units > 1:
            patterns[role] = Pattern.from_mask(rng.random(shape) < 0.3)
            params["bias_hh"] = (rng.standard_normal(units) * 0.1).astype(np.float32)
    return Recurrent(name, ("fc",), params, patterns, cell=cell, units=units, options=options)


def linear(name: str, source: str, out: int, wide: int, seed: int) -> Linear:
    rng = np.random.default_rng([seed, out, wide])
    weight = (rng.standard_normal((out, wide)) * 0.6).astype(np.float32)
    bias = (rng.standard_normal(out) * 0.1).astype(np.float32)
    return Linear(
        name, (source,), {"weight": weight, "bias": bias}, {"weight": Pattern.from_mask(rng.random((out, wide)) < 0.7)}
    )


def net(node: Recurrent, seed: int = 0, output: str = "lif") -> Graph:
    return Graph((Input("x", shape=(IN,)), linear("fc", "x", node.units, IN, seed), node), {"y": output}, dt=1e-3)


def sample(seed: int, *shape: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.random((60, 2, *shape)) < 0.4, 1.5 * rng.standard_normal((60, 2, *shape))], axis=1)


def same_spikes(graph: Graph, path: Path, seed: int = 7) -> float:
    """Compare file, reference and what is read back on an input that the exporter did not see; returns the spikes."""
    x = sample(seed, *graph.inputs[0].shape)
    want = interpret(graph, x).y
    np.testing.assert_array_equal(next(iter(euler(nir.read(path), x).outputs.values())), want)
    np.testing.assert_array_equal(interpret(from_nir(path), x).y, want)
    return float(want.sum())


@pytest.mark.parametrize(("reset", "delay"), RESETS)
@pytest.mark.parametrize(("cell", "role"), KINDS)
def test_every_reset_is_exact(cell: Cell, role: str, reset: Reset, delay: bool, tmp_path: Path) -> None:
    fired = 0.0
    for seed, units in enumerate(SIZES):
        node = layer(cell, role, Options(reset, delay), units, seed)
        graph = net(node, seed)
        path = tmp_path / f"{units}.nir"
        made = export_nir(graph, path)
        assert made.form == ("dialect" if zero_reset(node) else "subtract")
        assert made.notes[0].startswith("0 of ")
        fired += same_spikes(graph, path)
        back = from_nir(path).recurrent[0]
        assert (back.name, back.cell, back.options) == ("lif", cell, node.options)
        for name in cell.vectors:
            np.testing.assert_array_equal(back.params[name], node.params[name])
            assert back.params[name].dtype == np.float32
        if role and not (role == "hh_diag" and units == 1):
            np.testing.assert_array_equal(back.params[role], node.weight(role))
            assert back.patterns.get(role) == node.patterns.get(role)
    assert fired > 100


@pytest.mark.parametrize(("cell", "role"), KINDS)
def test_a_lost_update_beside_other_outputs(cell: Cell, role: str, tmp_path: Path) -> None:
    """Per-unit thresholds, zero among them; strong inhibition in the step that is lost; the synapse read too."""
    for seed in range(3):
        theta = np.where(np.arange(17) % 5 == 0, 0.0, 0.4 + np.random.default_rng(seed).random(17))
        node = layer(cell, role, Options(Reset.ZERO_UPDATE, delay=True), 17, seed, threshold=theta)
        graph = net(node, seed)
        if cell is SYNAPTIC:
            graph = replace(graph, outputs={"y": "lif", "syn": "lif.syn"})
        export_nir(graph, tmp_path / "a.nir")
        x = 1e3 * sample(seed, IN)
        want, back = interpret(graph, x).outputs, from_nir(tmp_path / "a.nir")
        got = interpret(back, x).outputs
        assert back.recurrent[0].options == node.options
        assert want["y"].sum() > 100
        np.testing.assert_array_equal(got["y"], want["y"])
        if cell is SYNAPTIC:
            np.testing.assert_allclose(got["syn"], want["syn"], rtol=1e-12)


def test_half_a_lost_update_is_not_taken_for_one(tmp_path: Path) -> None:
    graph = net(layer(LIF, "", Options(Reset.ZERO_UPDATE), 5, 0), 0)
    export_nir(graph, tmp_path / "a.nir")
    for part, change in (("push", 1e-9), ("once", 0.5)):
        read = nir.read(tmp_path / "a.nir")
        name = next(n for n in read.nodes if n.endswith(part))
        read.nodes[name].scale = read.nodes[name].scale * change
        with pytest.raises(UnsupportedError, match="a cycle through"):
            from_nir(read)


@pytest.mark.parametrize("profile", [Profile.DIALECT, Profile.SUBTRACT])
@pytest.mark.parametrize(("cell", "role"), KINDS)
def test_a_reset_to_zero_is_exact_in_both_profiles(cell: Cell, role: str, profile: Profile, tmp_path: Path) -> None:
    for seed in range(4):
        graph = net(layer(cell, role, Options(Reset.ZERO, delay=True), 17, seed), seed)
        assert export_nir(graph, tmp_path / "a.nir", profile=profile).form == profile.value
        assert same_spikes(graph, tmp_path / "a.nir") > 100


@pytest.mark.parametrize("reset", [Reset.SUBTRACT, Reset.NONE])
@pytest.mark.parametrize("delay", [True, False])
@pytest.mark.parametrize(("cell", "role"), KINDS)
def test_membranes_and_synapses_can_be_outputs(
    cell: Cell, role: str, reset: Reset, delay: bool, tmp_path: Path
) -> None:
    graph = net(layer(cell, role, Options(reset, delay), 17, 3), 3)
    ports = [p for p in cell.states if p != "spk"]
    graph = replace(graph, outputs={p: f"lif.{p}" for p in (*ports, "spk")})
    export_nir(graph, tmp_path / "a.nir")
    x = sample(2, IN)
    want = interpret(graph, x).outputs
    back = interpret(from_nir(tmp_path / "a.nir"), x).outputs
    assert set(back) == set(want)
    for name, value in want.items():
        np.testing.assert_allclose(back[name], value, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(back["spk"], want["spk"])


def test_a_membrane_alone_needs_no_threshold(tmp_path: Path) -> None:
    graph = net(layer(LIF, "", Options(Reset.NONE), 5, 0), 0, "lif.mem")
    export_nir(graph, tmp_path / "a.nir")
    kinds = {type(n).__name__ for n in nir.read(tmp_path / "a.nir").nodes.values()}
    assert kinds == {"Input", "Affine", "LI", "Output"}
    x = sample(0, IN)
    np.testing.assert_allclose(interpret(from_nir(tmp_path / "a.nir"), x).y, interpret(graph, x).y, rtol=1e-12)


def test_membranes_of_a_reset_to_zero_are_refused(tmp_path: Path) -> None:
    graph = net(layer(LIF, "", Options(Reset.ZERO), 5, 0), 0, "lif.mem")
    for approximate in (False, True):
        with pytest.raises(UnsupportedError, match=r"layer 'lif'.*its 'mem' is read"):
            export_nir(graph, tmp_path / "a.nir", allow_approximate=approximate)


def test_the_synapse_of_a_reset_to_zero_is_a_node_of_its_own(tmp_path: Path) -> None:
    graph = net(layer(SYNAPTIC, "hh", Options(Reset.ZERO), 9, 0), 0)
    graph = replace(graph, outputs={"y": "lif", "syn": "lif.syn"})
    assert export_nir(graph, tmp_path / "a.nir").form == "subtract"
    back, x = from_nir(tmp_path / "a.nir"), sample(0, IN)
    assert back.recurrent[0].cell is SYNAPTIC
    got, want = interpret(back, x).outputs, interpret(graph, x).outputs
    np.testing.assert_array_equal(got["y"], want["y"])
    np.testing.assert_allclose(got["syn"], want["syn"], rtol=1e-12)


@pytest.mark.parametrize(("reset", "delay"), [(Reset.ZERO, True), (Reset.SUBTRACT, True), (Reset.SUBTRACT, False)])
@pytest.mark.parametrize(("cell", "role"), KINDS)
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999, 1.0])
def test_decays_from_none_to_a_perfect_integrator(
    cell: Cell, role: str, reset: Reset, delay: bool, decay: float, tmp_path: Path
) -> None:
    for name in ("alpha", "beta")[cell is LIF :]:
        graph = net(layer(cell, role, Options(reset, delay), 9, 1, **{name: decay}), 1)
        export_nir(graph, tmp_path / "a.nir")
        assert same_spikes(graph, tmp_path / "a.nir") > 0
        back = from_nir(tmp_path / "a.nir").recurrent[0]
        assert back.cell is cell
        np.testing.assert_array_equal(back.params[name], np.float32(decay))


@pytest.mark.parametrize("cell", [LIF, SYNAPTIC])
@pytest.mark.parametrize("role", ["", "hh", "hh_diag"])
def test_thresholds_and_time_constants_per_unit(cell: Cell, role: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    theta, beta = 0.5 + rng.random(17), 0.5 + 0.4 * rng.random(17)
    for vectors in ({"threshold": theta}, {"beta": beta}, {"threshold": theta, "beta": beta}):
        graph = net(layer(cell, role, Options(Reset.ZERO), 17, 0, **vectors), 0)
        made = export_nir(graph, tmp_path / "a.nir")
        assert made.form == "dialect"
        assert any("time constant per unit" in n for n in made.notes) == ("beta" in vectors)
        assert same_spikes(graph, tmp_path / "a.nir") > 100
        read = nir.read(tmp_path / "a.nir").nodes
        inner = next(iter(n.nodes["lif"] for n in read.values() if type(n).__name__ == "NIRGraph")) if role else None
        neuron = inner or next(n for n in read.values() if "LIF" in type(n).__name__)
        if vectors.keys() == {"threshold"}:
            assert np.unique(neuron.v_threshold).size == 1, "readers need one threshold per layer"
        graph = net(layer(cell, role, Options(Reset.SUBTRACT), 17, 0, **vectors), 0)
        assert export_nir(graph, tmp_path / "b.nir").form == "subtract"
        assert same_spikes(graph, tmp_path / "b.nir") > 100


@pytest.mark.parametrize("reset", [Reset.ZERO, Reset.SUBTRACT])
@pytest.mark.parametrize("profile", [Profile.AUTO, Profile.SUBTRACT])
def test_a_membrane_that_equals_its_threshold_does_not_fire(reset: Reset, profile: Profile, tmp_path: Path) -> None:
    """Weights on a grid meet the threshold exactly; rounding it down would fire there."""
    rng = np.random.default_rng(0)
    equal = 0
    for beta, role in itertools.product((0.5, 0.0), ("", "hh")):
        node = layer(LIF, role, Options(reset), 16, 0, beta=beta)
        fc = Linear("fc", ("x",), {"weight": rng.integers(-1, 3, (16, IN)).astype(np.float32) / 2})
        grid = {k: np.round(v * 2) / 2 if k.startswith(("hh", "bias")) else v for k, v in node.params.items()}
        graph = Graph((Input("x", shape=(IN,)), fc, replace(node, params=grid)), {"y": "lif"})
        export_nir(graph, tmp_path / "a.nir", profile=profile)
        x = (rng.random((60, 3, IN)) < 0.2).astype(float)
        run = euler(nir.read(tmp_path / "a.nir"), x)
        equal += int((np.abs(next(iter(run.margins.values()))) < 1e-6).sum())
        np.testing.assert_array_equal(next(iter(run.outputs.values())), interpret(graph, x).y)
        assert same_spikes(graph, tmp_path / "a.nir") > 0
    assert equal > 200, "the test needs membranes at their threshold"


def test_resets_mix_in_one_network(tmp_path: Path) -> None:
    first = layer(LIF, "hh", Options(Reset.ZERO, delay=False), 17, 0)
    last = replace(layer(LIF, "", Options(Reset.NONE), 4, 1, "out"), inputs=("fc2",))
    graph = Graph((*net(first).nodes, linear("fc2", "lif", 4, 17, 1), last), {"y": "out.mem", "hidden": "lif"})
    assert export_nir(graph, tmp_path / "a.nir").form == "subtract"
    back, x = from_nir(tmp_path / "a.nir"), sample(0, IN)
    got, want = interpret(back, x).outputs, interpret(graph, x).outputs
    np.testing.assert_allclose(got["y"], want["y"], rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(got["hidden"], want["hidden"])


def test_input_weights_of_a_layer_become_a_node(tmp_path: Path) -> None:
    node = layer(LIF, "hh", Options(Reset.ZERO), 17, 0)
    fc = linear("fc", "x", 17, IN, 0)
    own = node.with_params(ih=fc.params["weight"], bias_ih=fc.params["bias"]).with_patterns(ih=fc.patterns["weight"])
    graph = Graph((Input("x", shape=(IN,)), replace(own, inputs=("x",))), {"y": "lif"})
    export_nir(graph, tmp_path / "a.nir")
    assert same_spikes(graph, tmp_path / "a.nir") > 100
    back = from_nir(tmp_path / "a.nir")
    assert back.node("lif.ih").patterns["weight"] == fc.patterns["weight"]


def test_a_recurrent_bias_without_a_linear_before_it(tmp_path: Path) -> None:
    node = replace(layer(LIF, "hh", Options(Reset.ZERO), IN, 0), inputs=("x",))
    graph = Graph((Input("x", shape=(IN,)), node), {"y": "lif"})
    export_nir(graph, tmp_path / "a.nir")
    assert same_spikes(graph, tmp_path / "a.nir") > 100
    shared = net(layer(LIF, "hh", Options(Reset.ZERO), 17, 0))
    shared = replace(shared, outputs={"y": "lif", "drive": "fc"})  # its own output must not get the bias
    export_nir(shared, tmp_path / "b.nir")
    back, x = from_nir(tmp_path / "b.nir"), sample(0, IN)
    for name in ("y", "drive"):
        np.testing.assert_allclose(interpret(back, x).outputs[name], interpret(shared, x).outputs[name], atol=1e-12)


@pytest.mark.parametrize(("reset", "delay"), [(Reset.SUBTRACT, True), (Reset.ZERO_UPDATE, True), (Reset.NONE, True)])
@pytest.mark.parametrize(("cell", "role"), KINDS)
def test_an_approximation_is_asked_for_and_measured(
    cell: Cell, role: str, reset: Reset, delay: bool, tmp_path: Path
) -> None:
    graph = net(layer(cell, role, Options(reset, delay), 17, 0), 0)
    with pytest.raises(UnsupportedError, match="allow_approximate=True"):
        export_nir(graph, tmp_path / "a.nir", profile=Profile.DIALECT)
    made = export_nir(graph, tmp_path / "a.nir", profile=Profile.DIALECT, allow_approximate=True)
    assert made.form == "dialect, approximate"
    assert made.notes[0].startswith("not exact: layer 'lif'")
    differ = int(made.notes[1].split(" of ")[0].replace(",", ""))
    assert differ > 0
    again = export_nir(graph, tmp_path / "a.nir", profile=Profile.DIALECT, allow_approximate=True)
    assert again.notes == made.notes
    other = export_nir(graph, tmp_path / "a.nir", profile=Profile.DIALECT, allow_approximate=True, seed=1)
    assert other.notes[1] != made.notes[1]
    assert from_nir(tmp_path / "a.nir").recurrent[0].options == Options(Reset.ZERO, delay=False)


def test_the_check_can_fail() -> None:
    graph = net(layer(LIF, "hh", Options(Reset.ZERO), 17, 0), 0)

    def build(change: float) -> Any:
        fc, lif = graph.node("fc"), graph.node("lif")
        weight = fc.weight("weight").copy()
        weight[3, 2] += change
        shape = np.array([17])
        one = np.ones(17)
        neuron = nir.LIF(
            tau=one * 1e-3, r=one, v_leak=one * 0, v_threshold=one * (1 - lif.params["beta"].astype(float))
        )
        neuron.tau = 1e-4 / (1 - lif.params["beta"].astype(float))
        inner = nir.NIRGraph(
            {"input": nir.Input(shape), "lif": neuron, "output": nir.Output(shape), "w": nir.Linear(lif.weight("hh"))},
            [("input", "lif"), ("lif", "output"), ("lif", "w"), ("w", "lif")],
        )
        affine = nir.Affine(weight, fc.params["bias"].astype(float) + lif.params["bias_hh"])
        return nir.NIRGraph(
            {"a": nir.Input(np.array([IN])), "b": affine, "c": inner, "d": nir.Output(shape)},
            [("a", "b"), ("b", "c"), ("c", "d")],
        )

    assert check(build(0.0), graph, {"lif": "c/lif"}, {"y": "d"}, 0).exact
    wrong = check(build(0.05), graph, {"lif": "c/lif"}, {"y": "d"}, 0)
    assert wrong.differ > 0
    assert "layer 'lif' at step" in wrong.words()


def test_a_silent_layer_is_named(tmp_path: Path) -> None:
    graph = net(layer(LIF, "", Options(Reset.ZERO), 5, 0, threshold=1e6), 0)
    assert "never fired: lif" in export_nir(graph, tmp_path / "a.nir").notes[0]


def test_a_reduction_over_time_is_left_to_the_reader(tmp_path: Path) -> None:
    graph = net(layer(LIF, "", Options(Reset.ZERO), 5, 0), 0)
    summed = Graph(
        (*graph.nodes, TimeReduce("sum", ("lif",), how="sum", feature_shape=(5,))), {"y": "sum"}, batch_first=True
    )
    made = export_nir(summed, tmp_path / "a.nir")
    assert any("sum over time" in n for n in made.notes)
    assert same_spikes(graph, tmp_path / "a.nir") > 0


def test_auto_falls_back_to_float64_where_float32_changes_a_spike(monkeypatch: Any, tmp_path: Path) -> None:
    below = lambda v: np.nextafter(v.astype(np.float32), np.float32(-np.inf))  # noqa: E731
    monkeypatch.setattr("sparsecirc.export.nir._neurons._above", below)
    node = layer(LIF, "", Options(Reset.ZERO), 16, 0, beta=0.5)
    weight = np.random.default_rng(0).integers(-1, 3, (16, IN)).astype(np.float32) / 2
    graph = Graph((Input("x", shape=(IN,)), Linear("fc", ("x",), {"weight": weight}), node), {"y": "lif"})
    with pytest.raises(UnsupportedError, match=r"in the profile 'dialect' .* first: layer 'lif' at step .*theta"):
        export_nir(graph, tmp_path / "a.nir", profile=Profile.DIALECT)
    assert export_nir(graph, tmp_path / "a.nir").form == "subtract"
    assert same_spikes(graph, tmp_path / "a.nir") > 0


def test_outputs_keep_their_order_and_membranes_that_nir_lacks_are_named(tmp_path: Path) -> None:
    graph = net(layer(LIF, "", Options(Reset.SUBTRACT), 5, 0), 0)
    for names in (("a", "b", "c"), ("c", "b", "a")):
        ordered = replace(graph, outputs=dict(zip(names, ("lif", "lif.mem", "fc"), strict=True)))
        export_nir(ordered, tmp_path / "a.nir")
        assert tuple(from_nir(tmp_path / "a.nir").outputs) == names
    zero = replace(net(layer(LIF, "", Options(Reset.ZERO), 5, 0), 0), outputs={"mem": "lif.mem", "y": "lif"})
    made = export_nir(zero, tmp_path / "a.nir")
    assert "output 'mem' is left out: a NIR neuron that resets to zero puts out spikes only" in made.notes
    assert list(from_nir(tmp_path / "a.nir").outputs) == ["y"]
