"""Spiking layers of exported C in fixed point: the integers of the numpy form, spikes without a mismatch."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from c_problems import STRICT, layer, sequence

from sparsecirc.cells import CELLS, Options, Reset
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.export.c import Arithmetic, COptions, Neurons, Weights, as_exported, check_c, export_c, run_c
from sparsecirc.export.c._fixed import LIMIT, fixed_layer, merge_linear
from sparsecirc.ir import Conv, Elementwise, Flatten, Graph, Input, Linear, Pool, Recurrent, TimeReduce, interpret

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler")
SANITIZE = (*STRICT, "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all")
FIXED = {w: COptions(w, neurons=Neurons.FIXED) for w in (Weights.INT8, Weights.INT16)}
BY_8 = COptions(Weights.INT8, arithmetic=Arithmetic.INT8, neurons=Neurons.FIXED)


def assert_identical(
    graph: Graph, options: COptions, x: np.ndarray, folder: Path, within: float = 1e-6
) -> dict[str, np.ndarray]:
    exported = as_exported(graph, options)
    want = interpret(exported, x).outputs
    got = run_c(export_c(graph, folder, options=options), x, flags=SANITIZE)
    for name, value in want.items():
        if graph.specs[graph.outputs[name]].spikes:
            assert np.array_equal(got[name], value), name
        else:
            assert np.abs(got[name] - value).max() <= within * max(1.0, np.abs(value).max()), name
    return got


RESETS = [(name, Options(r, d)) for name in ("lif", "synaptic", "alif") for r in Reset for d in (True, False)]
RESETS += [("alif", Options(Reset.SUBTRACT, d, adapted=True)) for d in (True, False)]


@pytest.mark.parametrize(("name", "options"), RESETS)
def test_every_reset_gives_the_same_integers(name: str, options: Options, tmp_path: Path) -> None:
    graph = layer(CELLS[name], 11, 24, density=0.3, options=options, drive=2.0)
    got = assert_identical(graph, FIXED[Weights.INT8], sequence(11, 40), tmp_path)
    assert 0 < got["spk"].mean() < 1


@pytest.mark.parametrize("options", [*FIXED.values(), BY_8], ids=lambda o: o.form)
@pytest.mark.parametrize(
    ("inputs", "units", "tile", "feedback"),
    [(1, 1, 1, "hh"), (5, 17, 1, "hh_diag"), (16, 300, 4, "hh"), (20, 40, 1, "")],
)
def test_odd_sizes_give_the_same_integers(
    inputs: int, units: int, tile: int, feedback: str, options: COptions, tmp_path: Path
) -> None:
    graph = layer(CELLS["lif"], inputs, units, tile=tile, feedback=feedback, drive=4.0)
    assert_identical(graph, options, sequence(inputs), tmp_path)


@pytest.mark.parametrize("options", [*FIXED.values(), BY_8], ids=lambda o: o.form)
@pytest.mark.parametrize("feedback", ["hh", "hh_diag"])
@pytest.mark.parametrize("cell", ["alif", "li"])
def test_adaptive_neurons_and_recurrent_integrators(
    cell: str, feedback: str, options: COptions, tmp_path: Path
) -> None:
    graph = layer(CELLS[cell], 7, 33, density=0.2, feedback=feedback, drive=3.0 if cell == "alif" else 0.3)
    if cell == "li":  # a feedback below one, so that it settles
        node = graph.recurrent[0]
        weak = {feedback: np.float32(0.1) * node.params[feedback]}
        graph = graph.replace_nodes(node.with_params(**weak))
    x = sequence(7, 60)
    got = assert_identical(graph, options, x, tmp_path)
    exact = interpret(graph, x).outputs
    if cell == "alif":
        assert 0.02 < got["spk"].mean() < 0.9
        assert np.abs(got["adapt"] - exact["adapt"]).mean() < 0.2 * exact["adapt"].std()
    else:
        assert np.abs(got["mem"] - exact["mem"]).mean() < 0.05 * exact["mem"].std()
    assert "tanhf" not in (tmp_path / "net.c").read_text()


def network(*, units: int = 40) -> Graph:
    """Linear, recurrent lif, linear, synaptic, linear, integrator, mean over time; membranes read by a tanh."""
    first = layer(CELLS["lif"], 12, units, drive=3.0, seed=1).recurrent[0]
    params = {k: v for k, v in first.params.items() if k not in ("ih", "bias_ih")}
    rng = np.random.default_rng(5)
    patterns = {"hh": first.patterns["hh"]}
    second = {
        "alpha": np.float32(0.8).reshape(1),
        "beta": np.float32(0.7).reshape(1),
        "threshold": np.ones(1, np.float32),
    }
    nodes = (
        Input("x", shape=(12,)),
        Linear("fc1", ("x",), {"weight": rng.standard_normal((units, 12)), "bias": rng.standard_normal(units)}),
        Recurrent("lif1", ("fc1",), params, patterns, cell=CELLS["lif"], units=units),
        Linear("fc2", ("lif1",), {"weight": 0.4 * rng.standard_normal((30, units))}),
        Recurrent("syn", ("fc2",), second, cell=CELLS["synaptic"], units=30),
        Linear("fc3", ("syn",), {"weight": rng.standard_normal((5, 30)), "bias": rng.standard_normal(5)}),
        Recurrent("out", ("fc3",), {"beta": np.full(5, 0.9, np.float32)}, cell=CELLS["li"], units=5),
        TimeReduce("mean", ("out",), how="mean", feature_shape=(5,)),
        Elementwise("t", ("syn.mem",), fn="tanh"),
        Linear("probe", ("lif1.mem",), {"weight": rng.standard_normal((3, units))}),
    )
    outputs = {"y": "mean", "spk": "lif1", "spk2": "syn", "mem": "syn.mem", "t": "t", "probe": "probe"}
    return Graph(nodes, outputs)


@pytest.mark.parametrize("options", [*FIXED.values(), BY_8], ids=lambda o: o.form)
def test_a_whole_network_in_integers(options: COptions, tmp_path: Path) -> None:
    graph, x = network(), sequence(12, 40, batch=3)
    export = export_c(graph, tmp_path, options=options)
    found = check_c(graph, export, x, options=options)
    assert found.spike_mismatches == 0
    assert found.spikes > 100
    largest = max(np.abs(v).max() for v in interpret(as_exported(graph, options), x).outputs.values())
    assert found.max_abs_diff < (5e-3 if options is BY_8 else 2e-6) * largest
    source = (tmp_path / "net.c").read_text()
    assert "float net_lif1_hh" not in source
    assert "lif1_grain" in source, "its membranes are read"
    assert "out_grain" in source
    made = as_exported(graph, options)
    assert [n.name for n in made.nodes if isinstance(n, Linear)] == ["probe"]
    assert check_c(graph, export, x).max_abs_diff > 1e-3, "rounding has to show"


def test_integers_are_close_to_the_network(tmp_path: Path) -> None:
    """16-bit weights: nearly all spikes of a driven network are those of float64."""
    graph, x = network(), np.abs(sequence(12, 20, batch=8))
    exact, fixed = interpret(graph, x).outputs, interpret(as_exported(graph, FIXED[Weights.INT16]), x).outputs
    assert np.mean(exact["spk"] != fixed["spk"]) < 0.005
    coarse = interpret(as_exported(graph, FIXED[Weights.INT8]), x).outputs
    assert np.mean(exact["spk"] != coarse["spk"]) < 0.05


def test_a_linear_layer_is_merged_only_where_nobody_else_reads_it() -> None:
    graph = network()
    assert {n.name for n in merge_linear(graph).nodes} == {n.name for n in graph.nodes} - {"fc1", "fc2", "fc3"}
    shown = Graph(graph.nodes, {**graph.outputs, "drive": "fc1"})
    assert "fc1" in {n.name for n in merge_linear(shown).nodes}
    x = sequence(12, 15)
    for name, value in interpret(merge_linear(graph), x).outputs.items():
        assert np.abs(value - interpret(graph, x).outputs[name]).max() < 1e-5


@pytest.mark.parametrize("cell", ["synaptic", "alif", "li"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_no_input_overflows(value: float, cell: str, tmp_path: Path) -> None:
    graph = layer(CELLS[cell], 4, 8, density=1.0, drive=2.0)
    x = sequence(4, 60)
    x[3:50] = value
    for k, options in enumerate((FIXED[Weights.INT16], BY_8)):
        got = run_c(export_c(graph, tmp_path / str(k), options=options), x, flags=SANITIZE)
        grain = fixed_layer(graph.recurrent[0], options).grain
        assert np.all(np.abs(got["mem"]) <= 1.001 * LIMIT * grain)


def test_a_state_carried_on_is_the_same_run() -> None:
    graph, x = as_exported(network(), FIXED[Weights.INT8]), sequence(12, 30)
    whole, first = interpret(graph, x), interpret(graph, x[:13])
    second = interpret(graph, x[13:], first.state)
    assert np.array_equal(np.concatenate([first.outputs["spk2"], second.outputs["spk2"]]), whole.outputs["spk2"])
    assert interpret(graph, x[:0]).outputs["spk"].shape == (0, 2, 40)
    with pytest.raises(UnsupportedError, match="know no valid steps"):
        interpret(graph, x, lengths=[3, 5])


def test_fixed_point_needs_integer_weights() -> None:
    with pytest.raises(UsageError, match="neurons in fixed point need integer weights, got f32"):
        COptions(neurons=Neurons.FIXED)


# ---- neurons without weights of their own --------------------------------------------------------------------------
def convolved(cell: str = "lif", options: Options | None = None, per_channel: bool = True, seed: int = 0) -> Graph:
    """Two convolutions with neurons behind each, a pool between them, and neurons behind a linear layer."""
    rng = np.random.default_rng(seed)
    f = lambda *s: rng.standard_normal(s).astype(np.float32)  # noqa: E731
    own = Options(Reset.SUBTRACT, True) if options is None else options
    values = {"alpha": 0.7, "beta": 0.8, "rho": 0.9, "strength": 0.3, "threshold": 0.9}

    def neurons(name: str, source: str, shape: tuple[int, ...]) -> Recurrent:
        wide = (shape[0], *(1,) * (len(shape) - 1)) if per_channel else ()
        params = {v: (values[v] * rng.uniform(0.8, 1.1, wide)).astype(np.float32) for v in CELLS[cell].vectors}
        units, features = int(np.prod(shape)), shape if len(shape) > 1 else ()
        if not features:
            params = {k: np.broadcast_to(v, (units,)).astype(np.float32) for k, v in params.items()}
        return Recurrent(name, (source,), params, cell=CELLS[cell], units=units, feature_shape=features, options=own)

    return Graph(
        (
            Input("x", shape=(2, 9, 7)),
            Conv(
                "conv1",
                ("x",),
                {"weight": f(4, 2, 3, 3) * 0.5, "bias": f(4) * 0.1},
                stride=(1, 1),
                padding=(1, 1),
                dilation=(1, 1),
            ),
            neurons("one", "conv1", (4, 9, 7)),
            Pool("pool", ("one",), how="avg", kernel=(2, 2), stride=(2, 2)),
            Conv(
                "conv2",
                ("pool",),
                {"weight": f(6, 4, 3, 3) * 0.5, "bias": f(6) * 0.1},
                stride=(1, 1),
                padding=(0, 0),
                dilation=(1, 1),
            ),
            neurons("two", "conv2", (6, 2, 1)),
            Flatten("flat", ("two",), axes=3),
            Linear("fc", ("flat",), {"weight": f(5, 12)}),
            neurons("three", "fc", (5,)),
        ),
        {"one": "one", "two": "two", "three": "three", "mem": "two.mem"},
        dt=1e-3,
    )


@pytest.mark.parametrize("options", [*FIXED.values(), BY_8], ids=lambda o: o.form)
@pytest.mark.parametrize("cell", ["lif", "synaptic", "alif"])
@pytest.mark.parametrize("per_channel", [True, False], ids=["vectors", "scalars"])
def test_neurons_behind_convolutions(cell: str, options: COptions, per_channel: bool, tmp_path: Path) -> None:
    graph = convolved(cell, per_channel=per_channel)
    x = np.random.default_rng(1).standard_normal((30, 2, 2, 9, 7)).astype(np.float32)
    counts = 2 * 1.1 * 0.9 / 2**14  # single precision of a convolution may round to the next count of the membrane
    got = assert_identical(graph, options, x, tmp_path, within=counts)
    assert all(0 < got[n].mean() < 1 for n in ("one", "two", "three"))
    text = "".join(p.read_text() for p in tmp_path.glob("*.[ch]"))
    assert "int32_t" in text
    assert "float one_mem" not in text
    wanted = interpret(graph, x).outputs
    assert np.mean(got["one"] != wanted["one"]) < 0.02  # integers are close to the network


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["aarch64", "riscv64"])
def test_neurons_behind_convolutions_are_the_same_on_every_machine(machine: str, tmp_path: Path) -> None:
    compiler, emulator = f"{machine}-linux-gnu-gcc", f"qemu-{machine}"
    if not shutil.which(compiler) or not shutil.which(emulator):
        pytest.skip(f"needs {compiler} and {emulator}: apt-get install gcc-{machine}-linux-gnu qemu-user")
    graph = convolved()
    x = np.random.default_rng(2).standard_normal((30, 2, 2, 9, 7)).astype(np.float32)
    made = export_c(graph, tmp_path, options=FIXED[Weights.INT8])
    here, there = run_c(made, x), run_c(made, x, compile_with=(compiler, "-static"), run_with=(emulator,))
    for name, value in here.items():
        assert np.array_equal(value, there[name]), name


def test_their_state_is_carried_on() -> None:
    graph = as_exported(convolved(), FIXED[Weights.INT8])
    x = np.random.default_rng(1).standard_normal((20, 1, 2, 9, 7)).astype(np.float32)
    whole = interpret(graph, x)
    first = interpret(graph, x[:8])
    rest = interpret(graph, x[8:], state=first.state)
    for name, value in whole.outputs.items():
        np.testing.assert_array_equal(np.concatenate([first.outputs[name], rest.outputs[name]]), value)
