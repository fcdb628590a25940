from __future__ import annotations

import numpy as np
import pytest
from _onnx_graphs import layer, network, prune, sequence, vectors

from sparsecirc.cells import CELLS, Options, Reset
from sparsecirc.errors import UnsupportedError
from sparsecirc.ir import Conv, Flatten, Graph, Input, Linear, Recurrent, Repeat, TimeReduce, interpret

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")

from sparsecirc.export.onnx import check_onnx, export_onnx, metadata, run_onnx, stream_onnx  # noqa: E402

MODES = [Options(reset, delay) for reset in Reset for delay in (True, False)]
ADAPTIVE = [*MODES, Options(Reset.SUBTRACT, True, adapted=True), Options(Reset.SUBTRACT, False, adapted=True)]
TOLERANCE = 2e-5


def spiking(rng, cell, *, options=None, recur="hh", reverse=False, bias=True, layers=2, units=17, batch_first=False):
    """Linear, neurons, linear, neurons: every port of the last layer is an output."""
    nodes, source, width = [Input("x", shape=(5,))], "x", 5
    for k in range(layers):
        w = rng.normal(0.1, 1.5 / np.sqrt(width), (units, width))
        nodes.append(Linear(f"fc{k}", (source,), {"weight": w, "bias": rng.normal(0.1, 0.2, units)}))
        made = layer(
            rng, f"lif{k}", f"fc{k}", CELLS[cell], units, units, ih=False, recur=recur, reverse=reverse, bias=bias,
            options=options,
        )  # fmt: skip
        nodes.append(made)
        source, width = made.name, units
    nodes.append(TimeReduce("rate", (source,), how="mean", feature_shape=(units,)))
    outputs = {"spk": source, **{p: f"{source}.{p}" for p in CELLS[cell].states[1:]}, "rate": "rate"}
    return Graph(tuple(nodes), outputs, batch_first=batch_first, dt=1e-3)


def compare(got, want):
    """Spikes exactly, the rest within float32."""
    assert set(want) <= set(got)
    assert 0.02 < want["spk"].mean() < 0.98
    np.testing.assert_array_equal(got["spk"], want["spk"])
    for name in set(want) - {"spk"}:
        scale = max(1.0, float(np.max(np.abs(want[name]))))  # a membrane without reset grows into the tens
        np.testing.assert_allclose(got[name], want[name], rtol=0, atol=TOLERANCE * scale, err_msg=name)


@pytest.mark.parametrize("recur", ["hh", "hh_diag", ""])
@pytest.mark.parametrize(
    ("cell", "options"),
    [(c, o) for c, modes in (("lif", MODES), ("synaptic", MODES), ("alif", ADAPTIVE)) for o in modes],
    ids=lambda v: (
        v if isinstance(v, str) else f"{v.reset.value}-{'delay' if v.delay else 'now'}{v.adapted * '-adapted'}"
    ),
)
def test_spikes_are_the_interpreters(tmp_path, cell, recur, options):
    rng = np.random.default_rng(1)
    graph = spiking(rng, cell, options=options, recur=recur)
    done = export_onnx(graph, tmp_path / "net.onnx")
    assert done.form == "scan"
    assert any("INFERENCE_PRECISION_HINT" in note for note in done.notes)
    for steps, batch in ((21, 3), (13, 1)):
        x = sequence(rng, steps, batch, 5)
        want = interpret(graph, x).outputs
        compare(run_onnx(done.paths[0], x), want)
        stepped = stream_onnx(done.paths[1], x)
        compare({**stepped, "rate": stepped["rate"][-1]}, want)
        check = check_onnx(graph, done, x)
        assert check.spike_mismatches == {"spk": 0}
        assert check.ok


@pytest.mark.parametrize("units", [1, 17])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_layouts_and_odd_sizes(tmp_path, units, bias, batch_first):
    rng = np.random.default_rng(2)
    graph = spiking(rng, "lif", units=units, bias=bias, batch_first=batch_first, layers=1)
    done = export_onnx(graph, tmp_path / "net.onnx")
    for steps, batch in ((1, 3), (1, 1), (19, 2)):
        x = sequence(rng, steps, batch, 5, batch_first=batch_first)
        got, want = run_onnx(done.paths[0], x), interpret(graph, x).outputs
        for name in want:
            assert got[name].shape == want[name].shape
            np.testing.assert_allclose(got[name], want[name], rtol=0, atol=TOLERANCE, err_msg=name)


def test_backward_neurons_run_but_cannot_be_stepped(tmp_path):
    rng = np.random.default_rng(3)
    graph = spiking(rng, "lif", reverse=True)
    done = export_onnx(graph, tmp_path / "net.onnx")
    assert len(done.paths) == 1
    assert any("no step file: layer 'lif0' runs backwards" in note for note in done.notes)
    x = sequence(rng, 15, 3, 5)
    compare(run_onnx(done.paths[0], x), interpret(graph, x).outputs)


@pytest.mark.parametrize("cell", ["lif", "synaptic", "alif"])
def test_neurons_after_a_convolution(tmp_path, cell):
    rng = np.random.default_rng(4)
    shape = (4, 5, 6)
    neurons = Recurrent(
        "lif", ("conv",), vectors(rng, CELLS[cell], shape), cell=CELLS[cell], units=120, feature_shape=shape
    )
    square = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    nodes = (
        Input("x", shape=(2, 7, 8)),
        Conv("conv", ("x",), {"weight": rng.normal(0, 0.5, (4, 2, 3, 3))}, **square),
        neurons,
        Flatten("flat", ("lif",), axes=3),
        Linear("fc", ("flat",), {"weight": rng.normal(0, 0.2, (3, 120))}),
    )  # fmt: skip
    graph = prune(Graph(nodes, {"spk": "lif", "y": "fc", "mem": "lif.mem"}, batch_first=True, dt=1e-3), rng, 0.5)
    done = export_onnx(graph, tmp_path / "net.onnx")
    x = sequence(rng, 9, 3, 2, 7, 8, batch_first=True)
    want = interpret(graph, x).outputs
    compare(run_onnx(done.paths[0], x), want)
    compare(stream_onnx(done.paths[1], x, batch_first=True), want)


def test_a_static_image_shown_at_every_step(tmp_path):
    rng = np.random.default_rng(5)
    nodes = (
        Input("image", shape=(5,), time=False),
        Linear("fc", ("image",), {"weight": rng.normal(0.2, 0.5, (9, 5))}),
        Repeat("shown", ("fc",), steps=12),
        layer(rng, "lif", "shown", CELLS["lif"], 9, 9, ih=False),
        TimeReduce("count", ("lif",), how="sum", feature_shape=(9,)),
    )
    graph = Graph(nodes, {"spk": "lif", "count": "count"}, batch_first=True, dt=1e-3)
    done = export_onnx(graph, tmp_path / "net.onnx")
    x = rng.normal(0, 1, (4, 5)).astype(np.float32)
    want = interpret(graph, x).outputs
    compare(run_onnx(done.paths[0], x), want)
    assert want["count"].max() > 1
    stepped = stream_onnx(done.paths[1], np.broadcast_to(x, (12, *x.shape)))
    np.testing.assert_array_equal(stepped["count"][-1], want["count"])
    dims = onnx.load(done.paths[0]).graph.output[0].type.tensor_type.shape.dim
    assert (dims[0].dim_param, dims[1].dim_value) == ("B", 12)


def test_the_reference_evaluator_agrees_on_a_scan(tmp_path):
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(6)
    graph = spiking(rng, "synaptic", options=Options(Reset.ZERO_UPDATE, True))
    done = export_onnx(graph, tmp_path / "net.onnx")
    x = sequence(rng, 15, 2, 5)
    got = ReferenceEvaluator(str(done.paths[0])).run(None, {"x": x})
    compare(dict(zip(graph.outputs, got, strict=True)), interpret(graph, x).outputs)


def test_step_states_are_named_after_the_graphs(tmp_path):
    graph = spiking(np.random.default_rng(7), "synaptic", layers=1)
    graph = Graph(graph.nodes[:-1], {"lif0.mem": "lif0.mem", "spk": "lif0"}, dt=1e-3)
    done = export_onnx(graph, tmp_path / "net.onnx")
    states = metadata(done.paths[1])["states"]
    assert list(states) == ["lif0.spk", "lif0.syn", "lif0.mem"]
    assert states["lif0.syn"] == {"input": "lif0.syn", "output": "lif0.syn.next", "shape": [17]}
    # An output of the user's has the first right to its name.
    assert states["lif0.mem"]["input"] == "lif0.mem_1"
    x = sequence(np.random.default_rng(8), 9, 2, 5)
    np.testing.assert_array_equal(stream_onnx(done.paths[1], x)["spk"], interpret(graph, x).outputs["spk"])


def test_spikes_without_feedback_are_not_carried(tmp_path):
    done = export_onnx(spiking(np.random.default_rng(9), "lif", recur=""), tmp_path / "net.onnx")
    assert list(metadata(done.paths[1])["states"]) == ["lif0.mem", "lif1.mem", "rate.value", "rate.count"]
    done = export_onnx(spiking(np.random.default_rng(9), "alif", recur="", layers=1), tmp_path / "adaptive.onnx")
    assert list(metadata(done.paths[1])["states"])[:3] == ["lif0.spk", "lif0.adapt", "lif0.mem"]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_a_read_out_of_membranes(tmp_path, flat, reverse):
    """Spikes into a leaky integrator, with its own product or over the units of an image."""
    rng = np.random.default_rng(12)
    decay = {"beta": rng.uniform(0.7, 0.95, 12)}
    lif = layer(rng, "lif", "x", CELLS["lif"], 5, 12, reverse=reverse)
    shape = (12,) if flat else (3, 4)
    nodes = [Input("x", shape=(5,)), lif] if flat else [Input("x", shape=(3, 4))]
    product = {"ih": rng.normal(0, 0.4, (12, 12)), "bias_ih": rng.normal(0, 0.1, 12)} if flat else {}
    nodes.append(
        Recurrent(
            "out", ("lif" if flat else "x",), {**product, **decay}, cell=CELLS["li"], units=12, reverse=reverse,
            feature_shape=() if flat else shape,
        )
    )  # fmt: skip
    nodes.append(TimeReduce("peak", ("out",), how="max", feature_shape=shape))
    graph = Graph(tuple(nodes), {"mem": "out", "peak": "peak"}, dt=1e-3)
    done = export_onnx(graph, tmp_path / "net.onnx")
    x = sequence(rng, 14, 3, *graph.inputs[0].shape)
    want = interpret(graph, x).outputs
    got = run_onnx(done.paths[0], x)
    if not reverse:
        stepped = stream_onnx(done.paths[1], x)
        got |= {"stepped": stepped["mem"], "so far": stepped["peak"][-1]}
        want |= {"stepped": want["mem"], "so far": want["peak"]}
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=TOLERANCE, err_msg=name)
    assert check_onnx(graph, done, x).spike_mismatches == {}


def test_a_scan_body_captures_nothing(tmp_path):
    """OpenVINO reads no value of the outer graph inside a body, except constants."""
    done = export_onnx(network(np.random.default_rng(10), "lif", layers=2), tmp_path / "net.onnx")
    scans = [n for n in onnx.load(done.paths[0]).graph.node if n.op_type == "Scan"]
    bodies = [a.g for n in scans for a in n.attribute if a.name == "body"]
    assert len(bodies) == 2
    for body in bodies:
        inside = (
            {i.name for i in body.input} | {c.name for c in body.initializer} | {o for n in body.node for o in n.output}
        )
        assert {i for n in body.node for i in n.input} <= inside


def test_spiking_cells_have_no_operator(tmp_path):
    with pytest.raises(UnsupportedError, match=r"layer 'lif0' .* form 'op': ONNX has no operator for .* use form"):
        export_onnx(spiking(np.random.default_rng(11), "lif"), tmp_path / "net.onnx", form="op")
    assert list(tmp_path.iterdir()) == []
