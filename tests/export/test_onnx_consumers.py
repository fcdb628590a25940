"""OpenVINO and tract on every form that they read, at lengths that no exporter saw. Both are in the extra `peers`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("torch", reason="needs the package torch")
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.studies._export_job import Absent, Job
from benchmarks.studies._export_models import MODELS
from benchmarks.studies._export_onnx import ONNX_CONSUMERS

CONSUMERS = {c.name: c for c in ONNX_CONSUMERS}
READS = {
    ("openvino", "gru_128"): {"op", "scan"},
    ("openvino", "demo_lstm"): {"op", "scan"},
    ("openvino", "rleaky"): {"scan", "packed", "packed int8"},
    ("openvino", "rsynaptic"): {"scan", "packed", "packed int8"},
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
