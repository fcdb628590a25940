"""Graphs: what they refuse, what interpret computes, and their file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from sparsecirc import Graph, Pattern, interpret, load_graph, save_graph
from sparsecirc.cells import CELLS, GRU, LIF, LSTM, RNN_RELU, RNN_TANH, SYNAPTIC, Cell, Options, Reset
from sparsecirc.errors import FileFormatError, SparsecircError, UnsupportedError, UsageError
from sparsecirc.ir import (
    Add,
    Affine,
    Concat,
    Conv,
    Elementwise,
    Embedding,
    Flatten,
    Input,
    Linear,
    Multiply,
    Node,
    Pool,
    Recurrent,
    Repeat,
    TimeReduce,
)
from sparsecirc.testing import PROBLEMS, classifier_graph, random_pattern, recurrent_graph

EVERY_CELL = pytest.mark.parametrize("cell", CELLS.values(), ids=lambda c: c.name)


def w(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def graph(*nodes: Node, **outputs: str) -> Graph:
    return Graph(nodes, outputs or {"y": nodes[-1].name})


# Refusals ------------------------------------------------------------------------------------------------------------

X = Input("x", shape=(4,))
STATIC = Input("s", shape=(4,), time=False)
LAYER = Recurrent("rnn", ("x",), {"ih": w(9, 4), "hh": w(9, 3)}, cell=GRU, units=3)

BAD_GRAPHS: dict[str, tuple[Callable[[], Graph], str]] = {
    "no outputs": (lambda: Graph((X,), {}), "needs at least one output"),
    "empty name": (lambda: graph(Input("", shape=(4,))), "node name '' is empty or used twice"),
    "name twice": (lambda: graph(X, X), "node name 'x' is empty or used twice"),
    "unknown input": (lambda: graph(X, Flatten("f", ("z",))), "node 'f' reads 'z', which no earlier node computes"),
    "later input": (lambda: graph(Flatten("f", ("x",)), X, y="f"), "node 'f' reads 'x', which no earlier node"),
    "unknown output": (lambda: graph(X, y="z"), "output 'y' reads 'z', which no node computes"),
    "unknown port": (lambda: graph(X, LAYER, y="rnn.c"), r"output 'y' reads 'rnn\.c'"),
    "two inputs": (lambda: graph(X, STATIC, Flatten("f", ("x", "s"))), r"node 'f' \(flatten\) takes one input, got 2"),
    "linear": (lambda: graph(X, Linear("l", ("x",), {"weight": w(2, 5)})), r"linear 'l' has weight \(2, 5\)"),
    "recurrent features": (
        lambda: graph(Input("x", shape=(5,)), LAYER),
        r"layer 'rnn' takes features \(4,\), got \(5,\)",
    ),
    "recurrent static": (
        lambda: graph(STATIC, replace(LAYER, inputs=("s",))),
        r"'rnn' needs a sequence, got a static value of shape \(4,\)",
    ),
    "gates": (
        lambda: graph(X, LAYER.with_params(hh=w(3, 3))),
        r"weight 'rnn\.hh' has shape \(3, 3\): a gru of 3 units stacks 3 gates, expected \(9, 3\)",
    ),
    "width": (lambda: graph(X, LAYER.with_params(hh=w(9, 4))), r"weight 'rnn\.hh' has shape \(9, 4\)"),
    "drive": (lambda: graph(X, Recurrent("rnn", ("x",), {}, cell=GRU, units=3)), r"takes features \(9,\), got \(4,\)"),
    "nan": (
        lambda: graph(X, Linear("l", ("x",), {"weight": np.full((2, 4), np.nan)})),
        r"weight 'l\.weight' of shape \(2, 4\) holds NaN or infinite entries: train again",
    ),
    "infinite bias": (
        lambda: graph(X, Linear("l", ("x",), {"weight": w(2, 4), "bias": np.array([1, np.inf])})),
        r"weight 'l\.bias' of shape \(2,\) holds NaN",
    ),
    "conv features": (lambda: graph(X, Conv("c", ("x",), {"weight": w(2, 3, 3)})), "conv 'c' has weight"),
    "conv too large": (
        lambda: graph(Input("x", shape=(3, 2)), Conv("c", ("x",), {"weight": w(2, 3, 5)})),
        r"conv 'c' has kernel \(5,\), too large for an input of \(3, 2\)",
    ),
    "pool": (lambda: graph(X, Pool("p", ("x",))), "pool 'p' has kernel"),
    "function": (lambda: graph(X, Elementwise("e", ("x",), fn="gelu")), "node 'e' applies 'gelu': expected one of"),
    "add": (lambda: graph(X, STATIC, Add("a", ("x", "s"))), "add 'a' needs two or more values of one shape"),
    "add one": (lambda: graph(X, Add("a", ("x",))), "add 'a' needs two or more"),
    "multiply": (lambda: graph(X, STATIC, Multiply("m", ("x", "s"))), "multiply 'm' needs two or more"),
    "concat": (lambda: graph(X, STATIC, Concat("c", ("x", "s"))), "concat 'c' needs values equal but for the last"),
    "flatten": (lambda: graph(X, Flatten("f", ("x",), axes=2)), "flatten 'f' joins 2 feature axes"),
    "repeat": (lambda: graph(X, Repeat("r", ("x",), steps=3)), "repeat 'r' needs a static value"),
    "reduce static": (lambda: graph(STATIC, TimeReduce("t", ("s",), feature_shape=(4,))), "'t' needs a sequence"),
    "reduce how": (
        lambda: graph(X, TimeReduce("t", ("x",), how="median", feature_shape=(4,))),
        "time reduction 'median' is unknown: expected one of last, first, mean, sum, max",
    ),
    "reduce shape": (lambda: graph(X, TimeReduce("t", ("x",), feature_shape=(3,))), r"declares features \(3,\)"),
}


@pytest.mark.parametrize("what", BAD_GRAPHS)
def test_graphs_that_do_not_fit_are_refused(what: str) -> None:
    make, message = BAD_GRAPHS[what]
    with pytest.raises((UsageError, UnsupportedError), match=message):
        make()


def test_dead_weights_may_hold_anything() -> None:
    pattern = random_pattern(2, 4, 0.5, 0)
    weight = np.where(pattern.mask(), np.float32(1), np.float32(np.nan))
    linear = Linear("l", ("x",), {"weight": weight}, {"weight": pattern})
    assert np.array_equal(interpret(graph(X, linear), np.ones((1, 1, 4))).y.ravel(), pattern.fan_in())


def test_patterns_must_fit_their_weight() -> None:
    g = recurrent_graph(GRU, 4, 3, 1.0)
    with pytest.raises(UsageError, match=r"weight 'rnn\.hh' has shape \(9, 3\), the pattern \(3, 3\)"):
        g.with_patterns({"rnn.hh": Pattern.full(3, 3)})
    with pytest.raises(UsageError, match=r"no weight 'rnn\.xx': it has rnn\.ih, rnn\.hh"):
        g.with_patterns({"rnn.xx": Pattern.full(3, 3)})
    with pytest.raises(UsageError, match="the graph has no node 'fc': it has x, rnn"):
        g.node("fc")
    with pytest.raises(UsageError, match="the graph has no node 'fc'"):
        g.replace_nodes(Linear("fc", ("x",), {"weight": w(2, 4)}))


def test_gates_are_views_of_the_stacked_weight() -> None:
    g = recurrent_graph(LSTM, 4, 3, 0.4)
    stacked = {v.name: v for v in g.weights()}
    by_gate = {v.name: v for v in g.weights(per_gate=True)}
    assert list(by_gate) == [f"rnn.{r}.{g}" for r in ("ih", "hh") for g in "ifgo"]
    assert np.array_equal(by_gate["rnn.hh.g"].value, stacked["rnn.hh"].value[6:9])
    assert Pattern.stack(by_gate[f"rnn.hh.{k}"].pattern for k in "ifgo") == stacked["rnn.hh"].pattern
    assert g.density == pytest.approx((round(0.4 * 48) + round(0.4 * 36)) / 84)


# Interpret against closed forms --------------------------------------------------------------------------------------


def one_layer(cell: Cell, units: int, options: Options = Options(), **params: np.ndarray) -> Graph:  # noqa: B008 - frozen
    inputs = params["ih"].shape[1] if "ih" in params else cell.n_gates * units
    layer = Recurrent("rnn", ("x",), params, cell=cell, units=units, options=options)
    return Graph((Input("x", shape=(inputs,)), layer), {s: f"rnn.{s}" for s in cell.states}, dt=1e-3)


def test_a_linear_rnn_sums_its_input() -> None:
    one = np.ones((1, 1))
    x = np.arange(1.0, 6.0).reshape(5, 1, 1)
    result = interpret(one_layer(RNN_RELU, 1, ih=one, hh=one), x)
    assert result.y.ravel().tolist() == [1, 3, 6, 10, 15]
    assert result.state["rnn.h"].item() == 15
    halving = interpret(one_layer(RNN_RELU, 1, ih=one, hh=one / 2), np.array([8.0, 0, 0, 0]).reshape(4, 1, 1))
    assert halving.y.ravel().tolist() == [8, 4, 2, 1]
    assert interpret(one_layer(RNN_RELU, 1, ih=-one), x).y.max() == 0


def test_a_tanh_rnn_without_recurrence_is_tanh() -> None:
    x = w(6, 2, 3).astype(np.float64)
    g = one_layer(RNN_TANH, 4, ih=w(4, 3), bias_ih=w(4, seed=1))
    assert np.allclose(interpret(g, x).y, np.tanh(x @ w(4, 3).T + w(4, seed=1)), rtol=0, atol=1e-15)


def test_gated_cells_without_weights_halve_their_state() -> None:
    zero = {"ih": np.zeros((9, 2)), "hh": np.zeros((9, 3))}
    start = np.array([[1.0, -2.0, 4.0]])
    result = interpret(one_layer(GRU, 3, **zero), np.ones((4, 1, 2)), {"rnn.h": start})
    assert np.allclose(result.y[:, 0], start * 0.5 ** np.arange(1, 5)[:, None], rtol=0, atol=1e-15)
    zero = {"ih": np.zeros((12, 2)), "hh": np.zeros((12, 3))}
    result = interpret(one_layer(LSTM, 3, **zero), np.ones((4, 1, 2)), {"rnn.c": start})
    c = start * 0.5 ** np.arange(1, 5)[:, None]
    assert np.allclose(result.outputs["c"][:, 0], c, rtol=0, atol=1e-15)
    assert np.allclose(result.outputs["h"][:, 0], 0.5 * np.tanh(c), rtol=0, atol=1e-15)


def neuron(cell: Cell, theta: float, options: Options = Options(), **vectors: float) -> Graph:  # noqa: B008 - frozen
    return one_layer(cell, 1, options, threshold=np.array([theta]), **{k: np.array([v]) for k, v in vectors.items()})


def test_a_membrane_decays_geometrically() -> None:
    x = np.zeros((10, 1, 1))
    x[0] = 3.0
    result = interpret(neuron(LIF, 99.0, beta=0.8), x)
    assert np.allclose(result.outputs["mem"].ravel(), 3 * 0.8 ** np.arange(10))
    assert result.outputs["spk"].sum() == 0
    steady = interpret(neuron(LIF, 99.0, beta=0.8), np.ones((10, 1, 1)))
    assert np.allclose(steady.outputs["mem"].ravel(), (1 - 0.8 ** np.arange(1, 11)) / 0.2)


def test_a_synaptic_current_decays_too() -> None:
    x = np.zeros((12, 1, 1))
    x[0] = 1.0
    a, b, t = 0.9, 0.6, np.arange(12)
    result = interpret(neuron(SYNAPTIC, 99.0, alpha=a, beta=b), x)
    assert np.allclose(result.outputs["syn"].ravel(), a**t)
    assert np.allclose(result.outputs["mem"].ravel(), (a ** (t + 1) - b ** (t + 1)) / (a - b))


@pytest.mark.parametrize(
    ("options", "mem"),
    [
        (Options(Reset.SUBTRACT, True), [1.5, 2.0, 2.5, 3.0]),
        (Options(Reset.SUBTRACT, False), [0.5, 1.0, 1.5, 2.0]),
        (Options(Reset.ZERO, True), [1.5, 1.5, 1.5, 1.5]),
        (Options(Reset.ZERO_UPDATE, True), [1.5, 0.0, 1.5, 0.0]),
        (Options(Reset.NONE, True), [1.5, 3.0, 4.5, 6.0]),
    ],
    ids=str,
)
def test_resets_by_hand(options: Options, mem: list[float]) -> None:
    """Without decay, theta = 1 and an input of 1.5 at every step."""
    result = interpret(neuron(LIF, 1.0, options, beta=1.0), np.full((4, 1, 1), 1.5))
    first = result.outputs["mem"].ravel().tolist()
    assert first[0] == mem[0]
    if options == Options(Reset.SUBTRACT, False):  # the next spike is due only where the membrane fell below theta
        assert first[1] == 1.0
    else:
        assert first == mem
    assert result.outputs["spk"].ravel()[0] == 1


@EVERY_CELL
def test_samples_are_independent(cell: Cell) -> None:
    g = recurrent_graph(cell, 5, 8, 0.5)
    x = w(12, 4, 5).astype(np.float64)
    together = interpret(g, x)
    for b in range(4):
        alone = interpret(g, x[:, b : b + 1])
        for key, value in together.outputs.items():
            assert np.allclose(alone.outputs[key][:, 0], value[:, b], rtol=0, atol=1e-12)


@EVERY_CELL
def test_lengths_cut_and_reversal_flips(cell: Cell) -> None:
    x = w(9, 3, 5).astype(np.float64)
    lengths = np.array([9, 4, 0])
    for backwards in (False, True):
        g = recurrent_graph(cell, 5, 8, 0.5, reverse=backwards)
        ragged = interpret(g, x, lengths=lengths)
        for b, n in enumerate(lengths):
            cut = x[:n, b : b + 1]
            alone = interpret(g, cut)
            flipped = interpret(recurrent_graph(cell, 5, 8, 0.5), cut[::-1] if backwards else cut)
            for key, value in ragged.outputs.items():
                assert np.allclose(alone.outputs[key][:, 0], value[:n, b], rtol=0, atol=1e-12)
                assert not value[n:, b].any()
                plain = flipped.outputs[key][::-1] if backwards else flipped.outputs[key]
                assert np.array_equal(plain, alone.outputs[key])
            for key, value in ragged.state.items():
                assert np.allclose(value[b], alone.state[key][0], rtol=0, atol=1e-12)


@EVERY_CELL
def test_a_sequence_in_two_parts(cell: Cell) -> None:
    for how in ("last", "first", "mean", "sum", "max"):
        g = classifier_graph(cell, 5, 8, 3, 0.5)
        g = g.replace_nodes(replace(g.node("reduce"), how=how))
        x = w(11, 2, 5).astype(np.float64)
        whole = interpret(g, x)
        state = None
        for part in (x[:4], x[4:4], x[4:]):
            result = interpret(g, part, state)
            state = result.state
        assert np.allclose(result.y, whole.y, rtol=0, atol=1e-12)


def test_kept_values_are_every_value() -> None:
    g = classifier_graph(LSTM, 5, 8, 3, 0.5)
    result = interpret(g, w(4, 2, 5), keep_values=True)
    assert set(result.values) == {"x", "rnn", "rnn.h", "rnn.c", "reduce", "fc"}
    assert result.values["rnn"] is result.values["rnn.h"]
    assert interpret(g, w(4, 2, 5)).values == {}


# Files ---------------------------------------------------------------------------------------------------------------


def everything(seed: int) -> Graph:
    """One of every node, sequence and static, images and indices."""
    live = random_pattern(6, 5, 0.4, seed)
    nodes = (
        Input("tokens", shape=()),
        Embedding("emb", ("tokens",), {"weight": w(7, 5, seed=seed)}, {"weight": random_pattern(7, 5, 0.6, seed)}),
        Linear("fc", ("emb",), {"weight": w(6, 5, seed=seed), "bias": w(6)}, {"weight": live}),
        Affine("norm", ("fc",), {"scale": w(6), "shift": w(6, seed=1)}),
        Elementwise("act", ("norm",), fn="tanh"),
        Recurrent(
            "lstm.l0", ("act",), {"ih": w(16, 6), "hh": w(16, 3, seed=seed), "hr": w(3, 4)},
            {"hh": random_pattern(16, 3, 0.5, seed)}, cell=LSTM, units=4, reverse=bool(seed % 2),
        ),
        Conv("time", ("lstm.l0",), {"weight": w(3, 3, 3)}, over_time=True, padding=(1,)),
        Add("sum", ("lstm.l0", "time")),
        Multiply("gate", ("sum", "time")),
        Concat("cat", ("sum", "gate")),
        TimeReduce("mean", ("cat",), how="mean", feature_shape=(6,)),
        Input("image", shape=(2, 5, 6), time=False),
        Conv("conv", ("image",), {"weight": w(4, 1, 2, 3)}, stride=(1, 2), padding=(0, 1), groups=2, dilation=(1, 1)),
        Pool("pool", ("conv",), how="avg", kernel=(2, 2), stride=(2, 1)),
        Repeat("repeat", ("pool",), steps=3),
        Recurrent(
            "lif", ("repeat",), {"beta": np.full(16, 0.9, np.float32), "threshold": np.float32([1.0])},
            cell=LIF, units=16, feature_shape=(4, 2, 2), options=Options(Reset.ZERO, False),
        ),
        Flatten("flat", ("lif",), axes=3),
    )  # fmt: skip
    outputs = {"mean": "mean", "c": "lstm.l0.c", "flat": "flat"}
    return Graph(nodes, outputs, batch_first=bool(seed % 3), dt=2e-3, meta={"from": "a test", "accuracy": [0.5, 1]})


def same(a: Graph, b: Graph) -> bool:
    if (dict(a.outputs), a.batch_first, a.dt, dict(a.meta)) != (dict(b.outputs), b.batch_first, b.dt, dict(b.meta)):
        return False
    for m, n in zip(a.nodes, b.nodes, strict=True):
        if (type(m), m.name, m.inputs, m.attrs(), set(m.params)) != (
            type(n),
            n.name,
            n.inputs,
            n.attrs(),
            set(n.params),
        ):
            return False
        if dict(m.patterns) != dict(n.patterns) or [p.origin for p in m.patterns.values()] != [
            p.origin for p in n.patterns.values()
        ]:
            return False
        for role in m.params:
            if m.params[role].dtype != n.params[role].dtype or not np.array_equal(m.weight(role), n.weight(role)):
                return False
    return True


GRAPHS = st.one_of(
    st.integers(0, 60).map(everything),
    st.builds(
        lambda cell, i, u, d, seed, bias: recurrent_graph(cell, i, u, d, seed=seed, bias=bias),
        st.sampled_from(list(CELLS.values())),
        st.integers(0, 9),
        st.integers(0, 12),
        st.sampled_from([0.0, 0.2, 1.0]),
        st.integers(0, 99),
        st.booleans(),
    ),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(g=GRAPHS)
def test_reading_undoes_writing(tmp_path: Path, g: Graph) -> None:
    path = tmp_path / "net.scg"
    save_graph(g, path)
    assert same(load_graph(path), g)
    assert [p.name for p in tmp_path.iterdir()] == ["net.scg"]


@pytest.mark.parametrize("name", [n for n in PROBLEMS if "500" not in n])
def test_every_problem_survives_its_file(name: str, tmp_path: Path) -> None:
    g = PROBLEMS[name].graph()
    save_graph(g, tmp_path / "net.scg")
    assert same(load_graph(tmp_path / "net.scg"), g)


def test_difference_is_seen_by_the_comparison_above() -> None:
    g = everything(1)
    other = g.replace_nodes(g.node("fc").with_params(bias=w(6, seed=9)))
    assert not same(g, other)
    assert not same(g, replace(g, dt=1e-3))


def test_only_live_values_are_written(tmp_path: Path) -> None:
    sizes = []
    for density in (1.0, 0.1):
        save_graph(recurrent_graph(GRU, 64, 128, density), tmp_path / "net.scg")
        sizes.append((tmp_path / "net.scg").stat().st_size)
    weights = 4 * (384 * 64 + 384 * 128)
    assert sizes[0] > weights
    assert sizes[1] < 0.1 * weights + weights / 32 + 8192  # live values, one bit a connection, header and biases


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_graph(everything(3), tmp_path / "net.scg")
    return tmp_path / "net.scg"


def rewrite(path: Path, change: Callable[[dict, dict], object]) -> None:
    with safe_open(str(path), framework="numpy") as file:
        header = json.loads(file.metadata()["sparsecirc"])
        arrays = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict
    change(header, arrays)
    save_file(arrays, str(path), metadata={"sparsecirc": json.dumps(header)})


def node(header: dict, name: str) -> dict:
    return next(n for n in header["graph"]["nodes"] if n["name"] == name)


DAMAGE: dict[str, Callable[[dict, dict], object]] = {
    "no nodes": lambda h, a: h["graph"].pop("nodes"),
    "nodes of another type": lambda h, a: h["graph"].update(nodes=3),
    "no graph": lambda h, a: h.pop("graph"),
    "unknown kind": lambda h, a: node(h, "fc").update(kind="transformer"),
    "unknown cell": lambda h, a: node(h, "lif")["attrs"].update(cell="izhikevich"),
    "unknown reset": lambda h, a: node(h, "lif")["attrs"].update(reset="soft"),
    "unknown attribute": lambda h, a: node(h, "flat")["attrs"].update(depth=2),
    "missing array": lambda h, a: a.pop("fc|weight"),
    "missing bits": lambda h, a: a.pop("fc|weight|bits"),
    "fewer values": lambda h, a: a.update({"fc|weight": a["fc|weight"][:-1]}),
    "other bits": lambda h, a: a.update({"fc|weight|bits": ~a["fc|weight|bits"]}),
    "fewer bits": lambda h, a: a.update({"fc|weight|bits": a["fc|weight|bits"][:-1]}),
    "another shape": lambda h, a: node(h, "fc")["patterns"]["weight"].update(shape=[5, 6]),
    "shape that does not fit": lambda h, a: node(h, "fc")["patterns"]["weight"].update(full_shape=[7, 5]),
    "shape of words": lambda h, a: node(h, "fc")["patterns"]["weight"].update(shape=["a", 5]),
    "shape of one axis": lambda h, a: node(h, "fc")["patterns"]["weight"].update(shape=[30]),
    "weights that do not fit": lambda h, a: a.update({"norm|scale": a["norm|scale"], "lstm.l0|ih": w(16, 7)}),
    "nan": lambda h, a: a.update({"fc|bias": np.full(6, np.nan, np.float32)}),
    "inputs of another type": lambda h, a: node(h, "fc").update(inputs=5),
    "no outputs": lambda h, a: h["graph"].update(outputs={}),
    "outputs of another type": lambda h, a: h["graph"].update(outputs=[1]),
    "a list": lambda h, a: h.update(graph=[]),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_graphs_are_refused_by_name(what: str, saved: Path) -> None:
    rewrite(saved, DAMAGE[what])
    with pytest.raises(FileFormatError, match=r"net\.scg") as caught:
        load_graph(saved)
    assert "\n" not in str(caught.value)


def test_truncated_and_foreign_graphs_are_refused(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    for size in (0, 7, 200, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:size])
        with pytest.raises(FileFormatError, match="truncated or of another kind"):
            load_graph(saved)
    with pytest.raises(FileFormatError, match="is not a file"):
        load_graph(tmp_path / "nothing.scg")
    with pytest.raises(FileFormatError, match="is not a file"):
        load_graph(tmp_path)


def test_a_newer_graph_is_refused_by_name(saved: Path) -> None:
    rewrite(saved, lambda h, a: h.update(format=2, version="3.0"))
    with pytest.raises(FileFormatError, match=r"format 2 \(written by sparsecirc 3\.0\), this version reads up to 1"):
        load_graph(saved)


def test_a_failed_write_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def fail(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_graph(everything(4), saved)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["net.scg"]
    assert issubclass(FileFormatError, SparsecircError)


@pytest.mark.parametrize("how", ["last", "first", "mean", "sum", "max"])
def test_reductions_go_on_after_a_call_with_lengths(how: str) -> None:
    graph = Graph((Input("x", shape=(2,)), TimeReduce("r", ("x",), how=how, feature_shape=(2,))), {"y": "r"})
    x = np.random.default_rng(0).standard_normal((5, 3, 2))
    first = interpret(graph, x[:3], lengths=[1, 3, 0])
    got = interpret(graph, x[3:], first.state).y
    kept = [np.concatenate([x[:n, b], x[3:, b]]) for b, n in enumerate((1, 3, 0))]
    expected = {
        "last": [k[-1] for k in kept], "first": [k[0] for k in kept], "mean": [k.mean(axis=0) for k in kept],
        "sum": [k.sum(axis=0) for k in kept], "max": [k.max(axis=0) for k in kept],
    }[how]  # fmt: skip
    assert np.allclose(got, expected)
