"""The study of integers in exported C: rows of networks with and without labels, one that is absent, and the page."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("snntorch", reason="snntorch is not installed")
sys.path.insert(0, str(Path(__file__).parent.parent))  # a bare `pytest` does not look there
sys.path.insert(0, str(Path(__file__).parent / "export"))

from c_problems import gru_of, layer, sequence

from benchmarks.studies import __main__ as command
from benchmarks.studies import _integers as study
from benchmarks.studies._export_job import Absent
from benchmarks.studies._integer_models import Trial, _best, _scores
from sparsecirc.cells import CELLS
from sparsecirc.ir import interpret

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler")


def labelled(setting, seed):
    graph = gru_of(0.2, units=24, inputs=5)
    parts = [sequence(5, steps=6, batch=8), sequence(5, steps=9, batch=4)]
    right = [_best(interpret(graph, x).outputs) for x in parts]
    right[1] = right[1] + 1  # the second part is answered wrong throughout
    return Trial(graph, tuple(zip(parts, right, strict=True)), _best, _scores)


def spiking(setting, seed):
    graph = layer(CELLS["lif"], 5, 17, drive=3.0)
    x = np.random.default_rng(seed).standard_normal((20, 3, 5)).astype(np.float32)
    return Trial(graph, ((x, None),), None, lambda o: o["mem"], "random inputs")


def absent(setting, seed):
    raise Absent("nobody has it")


def test_rows_and_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    trials = {"mnist_gru": labelled, "mnist_rleaky": spiking, "wavernn_768": absent}
    monkeypatch.setattr(study, "TRIALS", trials)
    assert command.main(["integers", "--seeds", "0,1", "--json", "rows.json", "--out", "pages"]) == 0
    rows = json.loads(Path("rows.json").read_text())
    assert len([r for r in rows if r["model"] == "wavernn_768"]) == 1, "published networks have one seed"
    gru = {r["form"]: r for r in rows if r["model"] == "mnist_gru" and r["seed"] == 0}
    assert set(gru) == {o.form.removeprefix("c99 ") for o in study.GATED}
    exact, coarse = gru["float32"], gru["int8 x int8, fast activations"]
    assert exact["changed"] == 0
    assert exact["max_diff"] < 1e-5
    steps = 6 * 8 + 9 * 4
    assert exact["samples"] == steps
    assert exact["accuracy"] == exact["reference"] == pytest.approx(6 * 8 / steps)
    assert 1e-4 < coarse["mean_diff"] < 0.1, "rounding has to show"
    assert coarse["bytes"] < 0.8 * exact["bytes"]
    spikes = [r for r in rows if r["model"] == "mnist_rleaky" and r["seed"] == 1]
    assert len(spikes) == len(study.SPIKING)
    assert all(r["accuracy"] is None for r in spikes)
    assert spikes[0]["mean_diff"] < 1e-5 < spikes[-1]["mean_diff"]
    page = Path("pages/integers.md").read_text()
    assert "2 seeds" in page
    assert "Random inputs" in page
    assert "nobody has it" in page
    assert "int8 x int8, fixed-point neurons" in capsys.readouterr().out
