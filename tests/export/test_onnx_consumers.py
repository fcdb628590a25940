"""OpenVINO and tract on every form that they read, at lengths that no exporter saw. Both are in the extra `peers`."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("torch", reason="needs the package torch")
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.studies import _export_onnx
from benchmarks.studies._export_job import Absent, Job, Model
from benchmarks.studies._export_models import MODELS
from benchmarks.studies._export_onnx import ONNX_CONSUMERS
from sparsecirc.cells import CELLS, LSTM
from sparsecirc.export.onnx import export_onnx
from sparsecirc.testing import recurrent_graph

CONSUMERS = {c.name: c for c in ONNX_CONSUMERS}
READS = {
    ("openvino", "gru_128"): {"op", "scan"},
    ("openvino", "demo_lstm"): {"op", "scan"},
    ("openvino", "rleaky"): {"scan", "packed", "packed int8", "events"},
    ("openvino", "rsynaptic"): {"scan", "packed", "packed int8", "events"},
    ("tract", "gru_128"): {"op", "scan", "packed", "packed int8"},
    ("tract", "demo_lstm"): {"op", "scan", "packed", "packed int8"},
    ("tract", "rleaky"): {"scan", "packed", "packed int8"},
    ("tract", "rsynaptic"): {"scan", "packed", "packed int8"},
}
"""Forms by consumer and model; a change means that a note of the export is wrong."""


@pytest.mark.parametrize(("consumer", "model"), READS)
def test_forms_that_a_consumer_reads(tmp_path, consumer, model):
    try:
        CONSUMERS[consumer].version()
    except Absent as error:
        pytest.skip(str(error))
    rows = list(CONSUMERS[consumer].run(Job(model, MODELS[model](), tmp_path, True)))
    assert {r.form for r in rows if not r.note} == READS[consumer, model]
    for row in rows:
        if not row.note:
            assert row.spike_mismatches in (None, 0), row
            assert row.max_abs_diff is None or row.max_abs_diff < 1e-5, row


def ordered(cell, units):
    """Four groups of units, each of which reads itself and those before."""
    graph = recurrent_graph(CELLS[cell], 12, units, 1.0)
    layer, group = graph.recurrent[0], np.arange(units) % 4
    keep = np.tile(group[:, None] >= group[None, :], (layer.cell.n_gates, 1))
    return replace(graph.replace_nodes(layer.with_params(hh=0.2 * layer.params["hh"] * keep)), outputs={"y": "rnn"})


GRAPHS = {
    **{name: partial(recurrent_graph, cell, 12, 64, 0.1) for name, cell in CELLS.items()},
    "projected": partial(recurrent_graph, LSTM, 12, 64, 0.1, projection=17),
    "ordered gru": partial(ordered, "gru", 800),
    "ordered lstm": partial(ordered, "lstm", 480),
    "ordered lif": partial(ordered, "lif", 1100),
}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("consumer", ["openvino", "tract"])
@pytest.mark.parametrize("named", [False, True])
def test_what_auto_writes_for_it_and_for_anybody(tmp_path, monkeypatch, consumer, name, named):
    try:
        CONSUMERS[consumer].version()
    except Absent as error:
        pytest.skip(str(error))
    graph = GRAPHS[name]()
    x = np.random.default_rng(1).normal(size=(13, 1, 12)).astype(np.float32)
    wanted = consumer if named else "any"

    def files(job, _forms):
        yield "auto", job, export_onnx(job.graph, job.folder / "net.onnx", consumer=wanted, step=False)

    monkeypatch.setattr(_export_onnx, "_files", files)
    (row,) = CONSUMERS[consumer].run(Job(name, Model(graph, x, x), tmp_path, True))
    assert not row.note
    assert row.spike_mismatches in (None, 0)
    assert row.max_abs_diff is None or row.max_abs_diff < 1e-5
