"""The study of exports: rows of a consumer that runs, one that is absent, one that refuses, and the page."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
sys.path.insert(0, str(Path(__file__).parent.parent))  # a bare `pytest` does not look there

from benchmarks.studies import __main__ as command
from benchmarks.studies import _exports as study
from benchmarks.studies._export_job import Absent, Consumer, Job, Model, Ran, Refused, package
from benchmarks.studies._export_models import MODELS
from sparsecirc.ir import interpret

KEYS = {
    "model", "format", "form", "consumer", "consumer_version", "bytes", "bytes_dense", "max_abs_diff",
    "spike_mismatches", "us_per_step", "instructions_per_step", "note",
}  # fmt: skip


def absent() -> str:
    raise Absent("nobody has it")


def refusing(job: Job):
    raise Refused("too large | for it")
    yield  # a generator, as all of them


def wrong(job: Job):
    outputs = {k: np.asarray(v) + 1 for k, v in interpret(job.graph, job.model.x).outputs.items()}
    yield Ran("off", 1, 2, *job.compare(outputs))


@pytest.fixture
def small(monkeypatch):
    consumers = {c.name: c for c in study.CONSUMERS}
    chosen = (
        consumers["onnxruntime"],
        Consumer("gone", "onnx", absent, refusing),
        Consumer("picky", "nir", lambda: "1", refusing, models=("rleaky",)),
        Consumer("wrong", "c", lambda: "2", wrong),
    )
    monkeypatch.setattr(study, "CONSUMERS", chosen)
    monkeypatch.setattr(study, "MODELS", {k: MODELS[k] for k in ("gru_128", "rleaky")})


def test_rows_and_page(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(["exports", "--quick", "--json", "rows.json", "--out", "pages"]) == 0
    rows = json.loads(Path("rows.json").read_text())
    assert all(set(r) == KEYS for r in rows)
    ran = [r for r in rows if r["consumer"] == "onnxruntime"]
    assert {(r["model"], r["form"]) for r in ran} >= {("gru_128", "op"), ("gru_128", "scan"), ("rleaky", "scan")}
    for r in ran:
        assert r["us_per_step"] > 0
        assert r["spike_mismatches"] == (0 if r["model"] == "rleaky" else None)
        assert r["max_abs_diff"] < (1e-6 if r["model"] == "gru_128" else 1e-5)
    assert [r["note"] for r in rows if r["consumer"] == "gone"] == ["not run: nobody has it"]
    assert [(r["model"], r["note"]) for r in rows if r["consumer"] == "picky"] == [
        ("rleaky", "not run: too large | for it")
    ]
    off = {r["model"]: r for r in rows if r["consumer"] == "wrong"}
    assert off["gru_128"]["max_abs_diff"] == pytest.approx(1)
    assert off["rleaky"]["spike_mismatches"] > 0
    text = Path("pages/exports.md").read_text()
    assert "nobody has it" in text
    assert r"too large \| for it" in text
    assert "onnxruntime" in text


def test_outputs_that_do_not_fit_are_refused(tmp_path):
    model = MODELS["gru_128"]()
    assert isinstance(model, Model)
    job = Job("gru_128", model, tmp_path, True)
    with pytest.raises(Refused, match="output 'y' has nothing"):
        job.compare({})
    with pytest.raises(Refused, match=r"shape \(1,\): expected"):
        job.compare({"y": np.zeros(1)})
    assert job.compare({"y": np.full((23, 2, 128), np.nan)}) == (float("inf"), None)
    assert model.steps == 100


def test_versions_of_packages():
    assert package("numpy") == np.__version__
    with pytest.raises(Absent, match="'no-such-package' is not installed"):
        partial(package, "no-such-package")()


def test_a_quick_run_leaves_out_large_networks_in_c(tmp_path):
    from benchmarks._networks import gated
    from benchmarks.studies._export_c import QUICK_LIVE, _check_size
    from sparsecirc.cells import GRU

    large, small = gated(GRU, 400, 0.9), gated(GRU, 40, 0.1)
    x = np.zeros((2, 1, 64), np.float32)
    with pytest.raises(Refused, match="left to the full study"):
        _check_size(Job("large", Model(large, x, x), tmp_path, quick=True))
    assert sum(v.pattern.nnz for v in large.weights()) > QUICK_LIVE
    _check_size(Job("large", Model(large, x, x), tmp_path, quick=False))
    _check_size(Job("small", Model(small, x, x), tmp_path, quick=True))
