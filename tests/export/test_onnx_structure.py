"""What pruning left is used: units that do nothing go, layers that fall apart are written in parts."""

from __future__ import annotations

from dataclasses import replace

import networkx
import numpy as np
import pytest
from _onnx_graphs import network, sequence

from sparsecirc.cells import CELLS
from sparsecirc.errors import UnsupportedError
from sparsecirc.export.c import export_c
from sparsecirc.ir import Graph, Input, Linear, ResetFirstGru, TimeReduce, interpret
from sparsecirc.testing import recurrent_graph

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")

from sparsecirc.export.onnx import export_onnx, run_onnx, stream_onnx  # noqa: E402
from sparsecirc.export.onnx._form import Form  # noqa: E402
from sparsecirc.export.onnx._split import components, groups, in_order, strong_components  # noqa: E402


def apart(cell, sizes, *, inputs=6, seed=0, reverse=False, shuffled=True):
    """A layer whose units fall into groups of these sizes, in a random order of units."""
    units = sum(sizes)
    graph = recurrent_graph(CELLS[cell], inputs, units, 1.0, seed=seed, reverse=reverse)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    if shuffled:
        owner = np.random.default_rng(seed).permutation(owner)
    layer = graph.recurrent[0]
    keep = np.tile(owner[:, None] == owner[None, :], (layer.cell.n_gates, 1))
    return graph.replace_nodes(layer.with_params(hh=layer.params["hh"] * keep)), owner


def close(path, graph, x, **options):
    want, got = interpret(graph, x, **options).outputs, run_onnx(path, x, **options)
    assert list(got) == list(want)
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=2e-5 * max(1, np.abs(value).max()), err_msg=name)


def test_components_are_what_was_put_together():
    graph, owner = apart("lstm", (7, 3, 12, 1))
    found = sorted(components(graph.recurrent[0]), key=lambda u: u[0])
    assert sorted(map(len, found)) == [1, 3, 7, 12]
    for part in found:
        assert len(set(owner[part])) == 1
    assert np.array_equal(np.sort(np.concatenate(found)), np.arange(23))


def test_small_layers_stay_whole_and_crumbs_are_joined():
    whole = apart("gru", (8, 8))[0].recurrent[0]
    assert len(groups(whole, Form.OP)) == 1
    crumbs = recurrent_graph(CELLS["gru"], 6, 300, 1.0).recurrent[0]
    crumbs = crumbs.with_params(hh=np.tile(np.eye(300, dtype=np.float32), (3, 1)))
    parts = groups(crumbs, Form.OP)
    assert 1 < len(parts) < 30
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(300))
    assert len(groups(crumbs, Form.CUSTOM)) == len(parts)
    assert len(in_order(triangular("lstm", 240).recurrent[0], Form.CUSTOM)) == 1  # the kernels see the zeros themselves
    assert len(groups(replace(crumbs, feature_shape=(300,)), Form.OP)) == 1


@pytest.mark.parametrize(("reverse", "lengths"), [(False, False), (True, True)])
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_in_parts(tmp_path, cell, reverse, lengths):
    sizes = (128, 96, 120) if not CELLS[cell].vectors else (500, 500)
    graph, _ = apart(cell, sizes, reverse=reverse)
    outputs = {"y": "rnn", **({"c_n": "last"} if cell == "lstm" else {})}
    if cell == "lstm":
        how = "first" if reverse else "last"
        last = TimeReduce("last", ("rnn.c",), how=how, feature_shape=(sum(sizes),))
        graph = replace(graph, nodes=(*graph.nodes, last))
    graph = replace(graph, outputs=outputs)
    done = export_onnx(graph, tmp_path / "net.onnx", lengths=lengths, step=False, consumer="onnxruntime")
    assert any("is written in" in n for n in done.notes)
    assert done.bytes < done.bytes_dense
    for steps, batch in ((1, 1), (7, 3)):
        valid = np.array([steps, 0, 1][:batch]) if lengths else None
        close(done.paths[0], graph, sequence(np.random.default_rng(1), steps, batch, 6), lengths=valid)


def triangular(cell, units, *, cycle=0, seed=0, reverse=False):
    """A layer whose units read only themselves and earlier ones, in a random order; the middle ones form a cycle."""
    graph = recurrent_graph(CELLS[cell], 6, units, 1.0, seed=seed, reverse=reverse)
    rng = np.random.default_rng(seed)
    keep = np.tri(units, dtype=bool) & (rng.random((units, units)) < 0.6)
    middle = slice(units // 3, units // 3 + cycle)
    keep[middle, middle] = True
    order = rng.permutation(units)
    keep = keep[np.ix_(order, order)]
    layer = graph.recurrent[0]
    graph = replace(graph, outputs={"y": "rnn"})
    return graph.replace_nodes(layer.with_params(hh=layer.params["hh"] * np.tile(keep, (layer.cell.n_gates, 1)) * 2))


@pytest.mark.parametrize(("reverse", "lengths"), [(False, False), (True, True)])
@pytest.mark.parametrize("cell", ["rnn_tanh", "rnn_relu", "lstm", "gru", "lif", "synaptic", "alif", "li"])
def test_units_in_an_order(tmp_path, cell, reverse, lengths):
    units = 360 if cell == "lstm" else 500 if cell == "gru" else 1100 if CELLS[cell].vectors else 700
    graph = triangular(cell, units, cycle=50, reverse=reverse)
    done = export_onnx(graph, tmp_path / "net.onnx", lengths=lengths)
    assert any("is written in" in n for n in done.notes)
    for steps, batch in ((1, 1), (2, 1), (11, 3)):
        valid = np.array([steps, 0, 1][:batch]) if lengths else None
        close(done.paths[0], graph, sequence(np.random.default_rng(1), steps, batch, 6), lengths=valid)
    onnx.checker.check_model(onnx.load(done.paths[0]), full_check=True)


@pytest.mark.parametrize("density", [0.0, 0.02, 0.05, 0.1, 0.5])
@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_strong_components_behind_what_they_read(n, density):
    for seed in range(10):
        reads = np.random.default_rng(seed).random((n, n)) < density
        found = strong_components(reads)
        graph = networkx.from_numpy_array(reads, create_using=networkx.DiGraph)
        want = {frozenset(c) for c in networkx.strongly_connected_components(graph)}
        assert {frozenset(part.tolist()) for part in found} == want
        place = {unit: k for k, part in enumerate(found) for unit in part.tolist()}
        assert all(place[source] <= place[unit] for unit, source in np.argwhere(reads).tolist())


@pytest.mark.parametrize(("cell", "form"), [("lstm", "op"), ("lstm", "scan"), ("gru", "auto"), ("gru", "packed")])
def test_cycles_that_read_earlier_ones(tmp_path, cell, form):
    units = 480 if form == "op" else 800
    base = recurrent_graph(CELLS[cell], 6, units, 1.0, seed=2)
    block = np.random.default_rng(3).permutation(np.arange(units) % 4)  # each block reads itself and those before
    layer = base.recurrent[0]
    keep = np.tile(block[:, None] >= block[None, :], (layer.cell.n_gates, 1))
    graph = replace(base.replace_nodes(layer.with_params(hh=layer.params["hh"] * keep)), outputs={"y": "rnn"})
    done = export_onnx(graph, tmp_path / "net.onnx", form=form)
    size = units // 4
    assert any(f"is written in 4 parts of {size}, {size}, {size}, {size} units" in n for n in done.notes), done.notes
    assert done.form.startswith("scan") == (cell == "gru" or form == "scan")
    for steps, batch in ((1, 1), (9, 3)):
        close(done.paths[0], graph, sequence(np.random.default_rng(1), steps, batch, 6))


@pytest.mark.parametrize(("form", "consumer"), [("op", "any"), ("auto", "openvino"), ("auto", "tract")])
def test_a_gru_stays_an_operator_where_scans_are_slow(tmp_path, form, consumer):
    graph = triangular("gru", 500)
    done = export_onnx(graph, tmp_path / "net.onnx", form=form, consumer=consumer, step=False)
    assert "scan" not in done.form
    assert "scan" in export_onnx(graph, tmp_path / "net.onnx", step=False).form


def test_an_order_is_not_made_up():
    for graph in (triangular("lstm", 40), recurrent_graph(CELLS["lstm"], 6, 240, 0.1, seed=1)):
        assert len(in_order(graph.recurrent[0], Form.OP)) == 1
    layer = triangular("lstm", 240, cycle=50).recurrent[0]
    parts = in_order(layer, Form.OP)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(240))
    seen = np.zeros(240, bool)
    for part in parts:  # reads nothing of later parts
        seen[part] = True
        rows = (np.arange(4)[:, None] * 240 + part).ravel()
        assert not np.any(layer.params["hh"][rows][:, ~seen])


@pytest.mark.parametrize("form", ["op", "scan", "packed", "custom"])
@pytest.mark.parametrize("opset", [17, 20])
def test_forms_and_opsets(tmp_path, form, opset):
    sizes = (260, 200, 220) if form == "scan" else (130, 100, 110)
    graph, _ = apart("gru", sizes, shuffled=opset == 17)
    done = export_onnx(graph, tmp_path / "net.onnx", form=form, opset=opset)
    whole = export_onnx(graph, tmp_path / "whole.onnx", form=form, opset=opset, structure=False)
    assert any("'rnn' is written in" in n for n in done.notes)
    assert not any("is written in" in n for n in whole.notes)
    assert done.bytes < whole.bytes
    x = sequence(np.random.default_rng(2), 5, 2, 6)
    close(done.paths[0], graph, x)
    np.testing.assert_allclose(stream_onnx(done.paths[1], x)["h"], interpret(graph, x).y, rtol=0, atol=2e-5)


@pytest.mark.parametrize("cell", ["gru", "lif"])
def test_units_that_do_nothing_are_not_written(tmp_path, cell):
    rng = np.random.default_rng(3)
    base = recurrent_graph(CELLS[cell], 5, 40, 1.0, seed=4)
    read = np.arange(40) < 25
    layer = base.recurrent[0]
    hh = layer.params["hh"] * np.tile(read[None, :], (layer.cell.n_gates * 40, 1))
    head = Linear("fc", ("rnn",), {"weight": rng.normal(size=(3, 40)) * read})
    graph = Graph((Input("x", shape=(5,)), layer.with_params(hh=hh), head), {"y": "fc"}, dt=base.dt)
    done = export_onnx(graph, tmp_path / "net.onnx")
    assert any("15 units of 'rnn' do nothing" in n for n in done.notes)
    assert done.bytes < export_onnx(graph, tmp_path / "whole.onnx", structure=False).bytes < 1.02 * done.bytes_dense
    x = sequence(rng, 9, 2, 5)
    close(done.paths[0], graph, x)
    np.testing.assert_allclose(stream_onnx(done.paths[1], x)["y"], interpret(graph, x).y, rtol=0, atol=2e-5)


def test_dense_networks_are_written_as_they_are(tmp_path):
    graph = network(np.random.default_rng(5), "lstm", layers=2)
    done = export_onnx(graph, tmp_path / "net.onnx")
    plain = export_onnx(graph, tmp_path / "plain.onnx", structure=False)
    assert done.paths[0].read_bytes() == plain.paths[0].read_bytes()
    assert done.bytes_dense == done.bytes


def test_a_layer_that_only_onnx_holds_is_refused_elsewhere(tmp_path):
    rng = np.random.default_rng(6)
    params = {"ih": rng.normal(size=(12, 3)), "hh": rng.normal(size=(12, 4))}
    graph = Graph((Input("x", shape=(3,)), ResetFirstGru("gru", ("x",), params, units=4)), {"y": "gru"})
    close(export_onnx(graph, tmp_path / "net.onnx").paths[0], graph, sequence(rng, 5, 2, 3))
    with pytest.raises(UnsupportedError, match=r"'gru' \(gru_reset_first\) has no C code"):
        export_c(graph, tmp_path / "c")
