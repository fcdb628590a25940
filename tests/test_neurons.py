"""Neurons against closed forms, and against the equations of their sources written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sparsecirc import interpret, load_graph, save_graph
from sparsecirc.cells import ALIF, CELLS, LI, LIF, Options, Reset, crossed
from sparsecirc.errors import UsageError
from sparsecirc.ir import Graph, Input, Recurrent
from sparsecirc.testing import recurrent_graph

MODES = [Options(r, d, a) for r in Reset for d in (True, False) for a in (True, False)]


def one(cell, options: Options | None = None, **vectors: float) -> Graph:
    """A single unit that takes its input as it is."""
    params = {k: np.full(1, v) for k, v in vectors.items()}
    layer = Recurrent("n", ("x",), params, cell=cell, units=1, options=options or Options())
    return Graph((Input("x", shape=(1,)), layer), {s: f"n.{s}" for s in cell.states}, dt=1e-3)


def run(graph: Graph, x: np.ndarray) -> dict[str, np.ndarray]:
    return {k: v.ravel() for k, v in interpret(graph, np.asarray(x, np.float64).reshape(-1, 1, 1)).outputs.items()}


# The leaky integrator ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 1.0])
def test_a_leaky_integrator_is_a_geometric_sum(beta: float) -> None:
    t = np.arange(1, 41)
    step = run(one(LI, beta=beta), np.full(40, 0.3))["mem"]
    assert np.allclose(step, 0.3 * (t if beta == 1 else (1 - beta**t) / (1 - beta)), rtol=1e-13)
    impulse = run(one(LI, beta=beta), np.eye(40)[3])["mem"]
    assert np.allclose(impulse, np.where(t > 3, beta ** np.maximum(t - 4.0, 0), 0), rtol=1e-13)


def test_a_gain_is_folded_into_weights_and_biases() -> None:
    """v = beta v + (1 - beta) I, as many sources write it."""
    graph = recurrent_graph(LI, 4, 6, 0.5, seed=3)
    layer, x = graph.recurrent[0], np.random.default_rng(0).standard_normal((30, 2, 4))
    gain = 1 - layer.params["beta"]
    got = interpret(graph.replace_nodes(layer.with_input_gain(gain)), x).outputs["mem"]
    mem = np.zeros((2, 6))
    for t, now in enumerate(x):
        current = now @ layer.weight("ih").T + layer.params["bias_ih"]
        current = current + mem @ layer.weight("hh").T + layer.params["bias_hh"]
        mem = layer.params["beta"] * mem + gain * current
        assert np.allclose(got[t], mem, rtol=1e-5, atol=1e-7)
    single = layer.with_input_gain(np.float32(0.5))
    assert np.array_equal(single.params["ih"], layer.params["ih"] * 0.5)
    with pytest.raises(UsageError, match="layer 'rnn' has 3 gates and roles"):
        recurrent_graph(CELLS["gru"], 4, 6, 0.5).recurrent[0].with_input_gain(gain)
    with pytest.raises(UsageError, match="multiply the input before it instead"):
        one(LI, beta=0.5).recurrent[0].with_input_gain(gain)


# The adaptive neuron -------------------------------------------------------------------------------------------------


def test_adaptation_sinks_geometrically_after_a_spike() -> None:
    got = run(one(ALIF, beta=0.0, threshold=1.0, rho=0.75, strength=0.5), 2.0 * np.eye(12)[2])
    assert got["spk"].tolist() == np.eye(12)[2].tolist()
    assert np.allclose(got["adapt"], np.where(np.arange(12) > 2, 0.75 ** np.maximum(np.arange(12) - 3.0, 0), 0))


def test_intervals_grow_to_their_fixed_point() -> None:
    """Constant input into an integrator that is emptied by its spikes: the k-th interval needs the k-th threshold."""
    graph = one(ALIF, Options(Reset.ZERO, delay=False), beta=1.0, threshold=4.5, rho=1.0, strength=1.0)
    spikes = np.flatnonzero(run(graph, np.ones(200))["spk"])
    assert np.diff(spikes, prepend=-1).tolist()[:8] == [5, 6, 7, 8, 9, 10, 11, 12]


@pytest.mark.parametrize("options", MODES, ids=lambda o: f"{o.reset.value}-{o.delay}-{o.adapted}")
def test_without_strength_it_is_the_plain_neuron(options: Options) -> None:
    """At once, where no membrane stays above its threshold after a reset: LIF follows snntorch there."""
    graph = recurrent_graph(ALIF, 5, 17, 0.5, seed=1, options=options)
    layer = graph.recurrent[0].with_params(strength=np.zeros(17, np.float32))
    if not options.delay:
        layer = layer.with_params(threshold=layer.params["threshold"] + 2)
    plain = Recurrent("rnn", ("x",), {k: v for k, v in layer.params.items() if k not in ("rho", "strength")},
                      layer.patterns, cell=LIF, units=17, options=options)  # fmt: skip
    x = (2 if options.delay else 1) * np.random.default_rng(5).standard_normal((80, 3, 5))
    outputs = {"spk": "rnn.spk", "mem": "rnn.mem"}
    want = interpret(Graph((graph.nodes[0], plain), outputs, dt=1e-3), x).outputs
    got = interpret(Graph((graph.nodes[0], layer), outputs, dt=1e-3), x).outputs
    assert 0.01 < want["spk"].mean() < 0.9
    assert options.delay or options.reset is Reset.NONE or np.all(want["mem"] <= layer.params["threshold"])
    assert np.array_equal(got["spk"], want["spk"])
    assert np.allclose(got["mem"], want["mem"], rtol=1e-12)


def network(options: Options) -> tuple[Graph, dict[str, np.ndarray], np.ndarray]:
    graph = recurrent_graph(ALIF, 6, 20, 0.4, seed=7, bias=False, options=options)
    layer = graph.recurrent[0]
    params = {k: np.asarray(layer.weight(k), np.float64) for k in layer.params}
    return graph, params, 1.5 * np.random.default_rng(8).standard_normal((120, 2, 6))


def check(graph: Graph, x: np.ndarray, want: np.ndarray) -> None:
    got = interpret(graph, x).outputs["spk"]
    assert 0.03 < want.mean() < 0.6
    assert np.array_equal(got, want)


def test_eprop_equations() -> None:
    """Bellec et al. 2020, eq. 5-8: a' = rho a + z, A = v_th + beta a, v' = alpha v + W_in x + W_rec z - z v_th."""
    graph, p, x = network(Options(Reset.SUBTRACT))
    z, v, a, spikes = np.zeros((2, 20)), np.zeros((2, 20)), np.zeros((2, 20)), []
    for now in x:
        a = p["rho"] * a + z
        v = p["beta"] * v + now @ p["ih"].T + z @ p["hh"].T - z * p["threshold"]
        z = (v - p["threshold"] - p["strength"] * a > 0) * 1.0
        spikes.append(z)
    check(graph, x, np.array(spikes))


def test_lsnn_equations() -> None:
    """Bellec et al. 2018, eq. 1-3, with their gains 1 - alpha and 1 - rho and the raised threshold taken off."""
    graph, p, x = network(Options(Reset.SUBTRACT, adapted=True))
    layer = graph.recurrent[0].with_params(**{k: p[k] for k in p})
    layer = layer.with_input_gain(1 - p["beta"]).with_params(strength=p["strength"] * (1 - p["rho"]))
    z, v, b, spikes, x = np.zeros((2, 20)), np.zeros((2, 20)), np.zeros((2, 20)), [], 8 * x
    level = p["threshold"]
    for now in x:
        current = now @ p["ih"].T + z @ p["hh"].T
        v = p["beta"] * v + (1 - p["beta"]) * current - level * z
        b = p["rho"] * b + (1 - p["rho"]) * z
        level = p["threshold"] + p["strength"] * b
        z = (v > level) * 1.0
        spikes.append(z)
    check(graph.replace_nodes(layer), x, np.array(spikes))


def test_norse_equations() -> None:
    """The threshold of norse's LSNN: b sinks to v_th, spikes reset the membrane to zero and raise b."""
    graph, p, x = network(Options(Reset.ZERO, delay=False))
    sink, jump = 1 - p["rho"], 0.3
    layer = graph.recurrent[0].with_params(**{k: p[k] for k in p}).with_params(strength=jump * p["rho"])
    z, v, b, spikes = np.zeros((2, 20)), np.zeros((2, 20)), np.tile(p["threshold"], (2, 1)), []
    for now in x:
        v = v + (1 - p["beta"]) * (0 - v) + now @ p["ih"].T + z @ p["hh"].T
        b = b + sink * (p["threshold"] - b)
        z = (v - b > 0) * 1.0
        v = (1 - z) * v
        b = b + jump * z
        spikes.append(z)
    check(graph.replace_nodes(layer), x, np.array(spikes))


def test_what_a_spike_takes_off() -> None:
    """Two spikes in a row: the resting threshold, or the one that was crossed."""
    vectors = {"beta": 1.0, "threshold": 1.0, "rho": 1.0, "strength": 0.5}
    for delay in (True, False):
        for adapted, amounts in ((False, (1.0, 1.0)), (True, (1.0, 1.5))):
            got = run(one(ALIF, Options(Reset.SUBTRACT, delay, adapted), **vectors), [4.0, 0, -9, 0])
            at = 3 if delay else 1
            assert got["spk"].tolist()[:2] == [1, 1]
            assert got["mem"][at] == 4.0 - sum(amounts) + (-9 if delay else 0)


def test_the_level_that_is_crossed() -> None:
    theta, a = np.array([1.0, 2.0]), {"adapt": np.array([[0.5, 1.0]])}
    assert crossed({"threshold": theta}, {}) is theta
    assert crossed({"threshold": theta, "strength": np.array([2.0, 3.0])}, a).tolist() == [[2.0, 5.0]]


# Files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [ALIF, LI], ids=lambda c: c.name)
def test_graphs_come_back_from_their_files(cell, tmp_path) -> None:
    options = Options(Reset.SUBTRACT, False, adapted=True)
    graph = recurrent_graph(cell, 5, 9, 0.5, options=options)
    save_graph(graph, tmp_path / "g.safetensors")
    again = load_graph(tmp_path / "g.safetensors")
    assert again.recurrent[0].options == options
    x = np.random.default_rng(0).standard_normal((20, 2, 5))
    for name, value in interpret(graph, x).outputs.items():
        assert np.array_equal(interpret(again, x).outputs[name], value)


def test_options_of_older_files_are_the_plain_ones() -> None:
    from sparsecirc.ir._io import graph_from_parts, graph_to_parts

    header, arrays = graph_to_parts(recurrent_graph(LIF, 5, 9, 1.0, options=Options(Reset.ZERO, False)))
    for node in header["nodes"]:
        node["attrs"].pop("adapted", None)
    assert graph_from_parts(header, arrays, "old").recurrent[0].options == Options(Reset.ZERO, False)


# norse itself --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what it imports warns
def test_norse_agrees() -> None:
    """Its LSNN without recurrence and with a synapse of one step, which delays the input by one; its LI and LIBox."""
    torch = pytest.importorskip("torch", reason="needs torch")
    norse = pytest.importorskip("norse.torch", reason="the package 'norse' is not installed")
    rng, dt = np.random.default_rng(0), 1e-3
    x = 4 * rng.random((200, 2, 20))
    theta = rng.uniform(0.5, 1.5, 20)
    tau_mem, tau_adapt, jump = 100.0, 8.0, 0.4
    parameters = norse.functional.lsnn.LSNNParameters(
        tau_syn_inv=torch.tensor(1 / dt, dtype=torch.float64),
        tau_mem_inv=torch.tensor(tau_mem, dtype=torch.float64),
        tau_adapt_inv=torch.tensor(tau_adapt, dtype=torch.float64),
        v_th=torch.tensor(theta),
        beta=torch.tensor(jump, dtype=torch.float64),
    )
    zeros = torch.zeros(2, 20, dtype=torch.float64)
    state = norse.functional.lsnn.LSNNState(zeros, zeros, zeros, torch.tensor(theta).expand(2, 20))
    spikes = []
    for now in torch.tensor(x):
        z, state = norse.functional.lsnn.lsnn_step(
            now, state, torch.eye(20, dtype=torch.float64), torch.zeros(20, 20, dtype=torch.float64), parameters, dt
        )
        spikes.append(z.numpy())
    rho = 1 - dt * tau_adapt
    vectors = {"beta": 1 - dt * tau_mem, "threshold": theta, "rho": rho, "strength": jump * rho}
    params = {k: np.broadcast_to(v, 20).copy() for k, v in vectors.items()} | {"ih": np.eye(20) * dt * tau_mem}
    layer = Recurrent("n", ("x",), params, cell=ALIF, units=20, options=Options(Reset.ZERO, delay=False))
    graph = Graph((Input("x", shape=(20,)), layer), {"spk": "n"}, dt=dt)
    assert 0.02 < np.mean(spikes) < 0.5
    assert np.array_equal(interpret(graph, x).y[:-1], spikes[1:])

    cell = norse.LIBoxCell(norse.LIBoxParameters(tau_mem_inv=torch.tensor(tau_mem)), dt=dt)
    mem, want = None, []
    for now in torch.tensor(x, dtype=torch.float32):
        out, mem = cell(now, mem)
        want.append(out.detach().numpy())
    leak = Recurrent("n", ("x",), {"beta": params["beta"], "ih": params["ih"]}, cell=LI, units=20)
    got = interpret(Graph((Input("x", shape=(20,)), leak), {"mem": "n"}, dt=dt), x).y
    assert np.allclose(got, want, rtol=1e-5, atol=1e-5)
