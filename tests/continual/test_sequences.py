"""Streams of events, speech and series: loaders against slow definitions, recurrent spiking networks on real data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparsecirc import continual as cl
from sparsecirc.data import Dataset, bin_events, japanese_vowels, log_mel, nmnist, spoken_digits
from sparsecirc.data._speech import mel_filters
from sparsecirc.errors import FileFormatError, UsageError


@pytest.fixture
def real() -> None:
    if not os.environ.get("SPARSECIRC_DATA"):
        pytest.skip("real recordings are missing: set SPARSECIRC_DATA to a folder with nmnist-small, fsdd and ts-aeon")


def events(count: int, side: int, samples: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(0, count + 1, samples - 1)) if samples > 1 else np.zeros(0, np.int64)
    return {
        "x": rng.integers(0, side, count), "y": rng.integers(0, side, count), "p": rng.integers(0, 2, count),
        "t": rng.integers(0, 1000, count), "offsets": np.concatenate([[0], cuts, [count]]),
    }  # fmt: skip


@pytest.mark.parametrize(("side", "pool", "samples"), [(5, 1, 1), (7, 2, 4), (6, 3, 9)])
@pytest.mark.parametrize("duration", [None, 800.0])
def test_binned_events_are_those_of_a_loop(side: int, pool: int, samples: int, duration: float | None) -> None:
    made = events(120, side, samples)
    got = bin_events(**made, steps=4, side=side, pool=pool, duration=duration)
    width = -(-side // pool)
    expected = np.zeros((samples, 4, 2 * width * width), np.float32)
    for k in range(samples):
        low, high = made["offsets"][k], made["offsets"][k + 1]
        times = made["t"][low:high]
        for e in range(low, high):
            t = made["t"][e]
            if duration is None:
                step = min(int((t - times.min()) / max(times.max() - times.min(), 1e-9) * 4), 3)
            else:
                step = int(t / duration * 4)
            if step < 4:
                feature = made["p"][e] * width * width + made["y"][e] // pool * width + made["x"][e] // pool
                expected[k, step, feature] = 1.0
    np.testing.assert_array_equal(got, expected)


def test_empty_recordings_and_wrong_coordinates() -> None:
    none = {k: np.zeros(0, np.int64) for k in ("x", "y", "p", "t")}
    assert bin_events(**none, offsets=[0, 0, 0], steps=3, side=4).sum() == 0
    one: dict[str, Any] = {"y": [0], "p": [0], "t": [0], "offsets": [0, 1], "steps": 2, "side": 4}
    assert bin_events(x=[3], **one).shape == (1, 2, 32)
    with pytest.raises(UsageError, match="outside of a camera of 4 x 4"):
        bin_events(x=[4], **one)
    with pytest.raises(UsageError, match="polarity 2"):
        bin_events(x=[3], **(one | {"p": [2]}))
    with pytest.raises(UsageError, match="steps 0"):
        bin_events(x=[3], **(one | {"steps": 0}))


@pytest.mark.parametrize("samples", [100, 256, 4001])
def test_a_tone_has_its_power_in_its_band_at_all_times(samples: int) -> None:
    bands, frequency = 20, 1000.0
    tone = 1000 * np.sin(2 * np.pi * frequency / 8000 * np.arange(samples))
    got = log_mel(tone, steps=5, bands=bands)
    assert got.shape == (5, bands)
    assert got.max() <= 0
    assert got.min() >= -8
    filters = mel_filters(bands, 256, 8000)
    nearest = int(filters[:, round(frequency / 8000 * 256)].argmax())
    assert (got.argmax(1) == nearest).all()


def test_stretches_are_means_of_frames() -> None:
    rng = np.random.default_rng(0)
    wave = rng.standard_normal(256 + 80 * 11)  # 12 frames: 4 stretches of 3
    fine, coarse = log_mel(wave, steps=12), log_mel(wave, steps=4)
    np.testing.assert_allclose(coarse, fine.reshape(4, 3, -1).mean(1), atol=1e-5)


def test_missing_and_damaged_files_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARSECIRC_DATA", str(tmp_path))
    monkeypatch.setenv("SPARSECIRC_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match=r"nmnist_small\.npz' is not on this machine: set SPARSECIRC_DATA"):
        nmnist()
    (tmp_path / "fsdd").mkdir()
    (tmp_path / "fsdd" / "fsdd.npz").write_bytes(b"no archive")
    with pytest.raises(FileFormatError, match=r"no \.npz file"):
        spoken_digits()
    np.savez(tmp_path / "fsdd" / "fsdd.npz", audio=np.zeros(3, np.int16))
    with pytest.raises(FileFormatError, match="no array 'offsets'"):
        spoken_digits()
    with pytest.raises(UsageError, match="speaker 'nobody' is unknown: there are george"):
        spoken_digits(speakers=("nobody",))


def test_padding_stays_zero_and_features_are_standardised() -> None:
    rng = np.random.default_rng(0)
    x = (5 + 3 * rng.standard_normal((40, 6, 3))).astype(np.float32)
    lengths = rng.integers(2, 7, 40)
    x[np.arange(6)[None] >= lengths[:, None]] = 0
    data = Dataset("made", x, np.zeros(40, np.int64), x[:5], np.zeros(5, np.int64), lengths, lengths[:5])
    got, _, test, _ = cl.sequences(data)
    inside = torch.from_numpy(np.arange(6)[None] < lengths[:, None])
    assert torch.allclose(got[inside].mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(got[inside].std(0), torch.ones(3), atol=1e-5)
    assert not got[~inside].any()
    assert torch.equal(test, got[:5])
    spikes = Dataset("spikes", (x > 5).astype(np.float32), data.y_train, (x > 5).astype(np.float32), data.y_train)
    assert torch.equal(cl.sequences(spikes)[0], torch.from_numpy(spikes.x_train))


def learned(scenario: cl.Scenario, method: cl.Method, epochs: int, units: int = 60) -> cl.Result:
    torch.manual_seed(0)
    network = cl.mlp(
        scenario.features[-1], [units], scenario.outputs, heads=scenario.heads, neurons=cl.rlif(),
        steps=scenario.features[0], coding=cl.sequence,
    )  # fmt: skip
    return cl.run(network, scenario, method, cl.Setting(cl.adam(2e-3), epochs, 32, look=False))


def few(data: Dataset, train: int, test: int) -> tuple[torch.Tensor, ...]:
    """A random part, as publishers sort by class."""
    rng = np.random.default_rng(0)
    x, y, x_test, y_test = cl.sequences(data)
    a, b = (torch.from_numpy(rng.permutation(len(v))[:n]) for v, n in ((y, train), (y_test, test)))
    return x[a], y[a], x_test[b], y_test[b]


@pytest.mark.usefixtures("real")
@pytest.mark.parametrize("increment", list(cl.Increment))
@pytest.mark.parametrize("source", ["events", "speech", "series"])
def test_each_kind_of_stream_is_learned(source: str, increment: cl.Increment) -> None:
    torch.set_num_threads(1)
    arrays = few(
        {"events": nmnist, "speech": lambda: spoken_digits(steps=15), "series": japanese_vowels}[source](), 600, 100
    )
    tasks = 3 if source == "series" else 5
    scenario = cl.split(*arrays, tasks, increment=increment, name=source)
    assert scenario.features[0] == {"events": 10, "speech": 15, "series": 29}[source]
    found = learned(scenario, cl.Replay(20), epochs=4)
    chance = 1 / scenario.outputs if increment is cl.Increment.CLASS else 1 / len(set(arrays[1].tolist())) * tasks
    assert found.learning_accuracy > chance + 0.15
    assert found.acc > chance


@pytest.mark.usefixtures("real")
def test_projection_keeps_event_tasks_that_fine_tuning_forgets() -> None:
    torch.set_num_threads(1)
    scenario = cl.split(*few(nmnist(), 1000, 100), 5, increment=cl.Increment.DOMAIN, name="events")
    plain, kept = (learned(scenario, m, 3, 100) for m in (cl.Finetune(), cl.HLOP()))
    assert kept.bwt > -0.1
    assert kept.bwt > plain.bwt + 0.1
    assert kept.acc > plain.acc + 0.03


@pytest.mark.usefixtures("real")
def test_voices_are_tasks() -> None:
    parts = [spoken_digits(steps=12, speakers=(name,)) for name in ("george", "theo")]
    assert [len(p.y_train) for p in parts] == [450, 450]
    assert [len(p.y_test) for p in parts] == [50, 50]
    scenario = cl.from_tasks([cl.sequences(p) for p in parts], name="voices")
    assert scenario.outputs == 10
    assert not torch.equal(scenario.tasks[0].x_train, scenario.tasks[1].x_train)
