"""The studies of wiring and rewiring on toy images."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
sys.path.insert(0, str(Path(__file__).parent.parent))  # a bare `pytest` does not look there

import torch

from benchmarks.studies import __main__ as command
from benchmarks.studies import _g2g as study
from benchmarks.studies import _wired as wired
from sparsecirc.data import Dataset
from sparsecirc.errors import UsageError

KEYS = {"study", "dataset", "network", "wiring", "rule", "density", "params", "seed", "accuracy", "train_us_per_step",
        "train_us_per_step_dense"}  # fmt: skip


@pytest.fixture
def toy_images(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    x, y = rng.random((1100, 16, 16), dtype=np.float32), rng.integers(0, 10, 1100)
    data = Dataset("toy", x[:1024], y[:1024], x[1024:], y[1024:])
    monkeypatch.setattr(wired, "fashion_mnist", lambda: data)
    sizes = {("fashion_mnist", "mlp"): wired.Size(32, 1), ("fashion_mnist", "snn"): wired.Size(32, 1, None, 2)}
    monkeypatch.setattr(study, "QUICK", sizes)
    monkeypatch.setattr(study, "FAST", 2)
    wired.images.cache_clear()
    yield
    wired.images.cache_clear()


@pytest.mark.parametrize("name", ["g2g", "dst"])
@pytest.mark.usefixtures("toy_images")
def test_a_study_of_wiring_on_a_toy(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main([name, "--quick", "--json", "rows.json", "--out", "pages"]) == 0
    rows = json.loads(Path("rows.json").read_text())
    assert all(set(r) == KEYS for r in rows)
    assert {r["network"] for r in rows} == {"mlp", "snn"}
    wirings = {r["wiring"] for r in rows}
    assert wirings == (set(wired.WIRINGS) if name == "g2g" else {"er", "g2g_mixer"})
    for r in rows:
        assert r["train_us_per_step"] > 0
        if r["wiring"].startswith("dense"):
            assert r["density"] == 1
        else:
            assert r["density"] == pytest.approx(0.256, abs=0.03)
    if name == "g2g":
        by_wiring = {(r["network"], r["wiring"]): r["params"] for r in rows if r["rule"] == "static"}
        assert by_wiring["mlp", "dense_same_params"] == pytest.approx(by_wiring["mlp", "g2g_index"], rel=0.15)
    page = Path(f"pages/{name}.md").read_text()
    assert "training speed over dense" in page
    for network in ("mlp", "snn"):
        picture = f"{name}-fashion-mnist-{network}.svg"
        assert picture in page
        ET.fromstring(Path("pages", picture).read_text())


@pytest.mark.parametrize("network", ["mlp", "patch_mlp", "snn"])
@pytest.mark.parametrize("wiring", wired.WIRINGS)
def test_networks_have_the_wiring_that_they_are_called_by(network: str, wiring: str) -> None:
    size = wired.Size(32, 1, None, 3)
    model = wired.build(network, wiring, 0, (1, 28, 28), size)
    assert model(torch.rand(4, 1, 28, 28)).shape == (4, 10)
    assert wired.density(model) == pytest.approx(1.0 if wiring.startswith("dense") else 0.256, abs=0.02)
    assert len(wired.hidden(model)) == 3
    if wiring in wired.GROUPINGS:
        tiers = study.tiers_of(model, wiring, 0)
        for layer, maker in zip(wired.hidden(model), tiers.values(), strict=True):
            pattern = layer.weight.pattern
            inside = maker.regions(pattern.shape, *np.indices(pattern.shape)) == 0
            assert pattern.mask()[inside].all()


def test_the_full_studies_plan_what_they_say(tmp_path: Path) -> None:
    from benchmarks.studies._study import Setting

    setting = Setting(False, (0, 1), tmp_path, print)
    assert wired.density(wired.build("mlp_sparse", "er", 0, (1, 28, 28), wired.Size(64, 1))) == pytest.approx(
        0.05, abs=0.002
    )
    for tasks, lacking in ((study.g2g_tasks, "mlp_sparse"), (study.dst_tasks, "mlp_wide")):
        keys = [task.key for task in tasks(setting)]
        assert len(set(keys)) == len(keys)
        assert not any(lacking in key for key in keys)
    assert sum("mlp_wide" in task.key for task in study.g2g_tasks(setting)) == 9
    assert {task.key.split("seed")[0] for task in study.dst_tasks(setting) if "mlp_sparse" in task.key} == {
        f"fashion_mnist mlp_sparse er {rule} "
        for rule in ("static", "rigl", "deep_r", "g2g magnitude+random, fading", "g2g magnitude+hebb, fading",
                     "g2g three+hebb, fading")
    }  # fmt: skip


def test_absent_copies_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSECIRC_DATA", str(tmp_path))
    with pytest.raises(UsageError, match="set SPARSECIRC_DATA to the folder that holds cifar10-jpeg"):
        wired.cifar10_jpeg(tmp_path)
