"""The study of chips: its encoding, its rows with and without a chip's arithmetic, and the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("snntorch", reason="the package 'snntorch' is not installed")

from benchmarks.studies import _chips as study
from benchmarks.studies._study import Setting


def test_levels_become_as_many_spikes() -> None:
    level = np.random.default_rng(0).random((3, 40, 5))
    found = study.spiking(level)
    assert found.shape == (40, 3, 5)
    assert set(np.unique(found)) == {0.0, 1.0}
    assert np.abs(found.sum(axis=0) - level.sum(axis=1)).max() < 1
    assert not study.spiking(np.zeros((2, 4, 3))).any()
    assert study.spiking(np.ones((2, 4, 3))).all()


def few() -> study.Spikes:
    """Four classes that light different inputs."""
    rng = np.random.default_rng(1)
    y = np.arange(260) % 4
    rate = np.where(np.arange(16)[None] // 4 == y[:, None], 0.7, 0.1)
    x = (rng.random((20, 260, 16)) < rate).astype(np.float32)
    return study.Spikes(x[:, :240], y[:240], x[:, 240:], y[240:])


def test_rows_and_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = {n: (few, neurons, gain) for n, (_, neurons, gain) in study.MODELS.items() if n != "nmnist_lif"}
    monkeypatch.setattr(study, "MODELS", models)
    monkeypatch.setattr(study, "EPOCHS", 20)
    setting = Setting(False, (0,), tmp_path, lambda line: None)
    rows = [row for task in study.tasks(setting) for row in task.run()]
    assert len(rows) == 2 * 2 * len(study.CHIPS)
    ran = [r for r in rows if r.accuracy is not None]
    assert {r.chip for r in ran if r.model == "speech_lif"} == {"loihi1", "loihi2", "speck2", "brainscales2"}
    assert {r.chip for r in ran if r.model == "speech_synaptic"} == {"xylo-audio3", "speck2", "brainscales2"}
    for r in ran:
        assert r.accuracy is not None
        assert r.chip_accuracy is not None
        assert r.changed is not None
        assert r.samples == 20
        assert r.accuracy > 0.4, r  # of four classes: learned, so that something is compared
        assert abs(r.chip_accuracy - r.accuracy) <= r.changed + 1e-9
        assert 0 < (r.weight_error or 0) < 0.05
    assert all("resets by subtract" in r.note for r in rows if r.model == "speech_synaptic" and "loihi" in r.chip)
    text = study.page(rows, setting).text
    assert text.count("| chip | numbers |") == 4
    assert "## speech_lif, pruned" in text
    assert "## What a chip does not have" in text
    assert "1 seed; in float64" in text
    assert len(study.table(rows).splitlines()) == 1 + len(rows)
