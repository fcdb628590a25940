"""The rows of readers of NIR, simulators and emulators in the study of exports."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("snntorch", reason="snntorch is not installed")
pytest.importorskip("nir", reason="the package 'nir' is not installed")
sys.path.insert(0, str(Path(__file__).parents[2]))  # a bare `pytest` does not look there

from benchmarks.studies import _export_neuro as neuro
from benchmarks.studies._export_job import Absent, Consumer, Job, Ran
from benchmarks.studies._export_models import MODELS

NAMES = {c.name: c for c in neuro.NEURO_CONSUMERS}


def rows(consumer: Consumer, model: str, folder: Path) -> dict[str, Ran]:
    return {ran.form.partition(",")[0]: ran for ran in consumer.run(Job(model, MODELS[model](), folder, True))}


def test_an_environment_that_is_missing_is_said_to_be(monkeypatch, tmp_path):
    monkeypatch.setattr(neuro, "EMULATORS", tmp_path)
    for name in ("Brian2 numpy", "Lava", "nengo-loihi", "xylosim"):
        with pytest.raises(Absent, match="make test-emulators"):
            NAMES[name].version()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["norse", "spikingjelly", "snntorch"])
@pytest.mark.parametrize("model", ["rleaky", "rsynaptic"])
def test_readers_of_nir_give_the_same_spikes_where_a_spike_resets_to_zero(name, model, tmp_path):
    try:
        assert NAMES[name].version()
    except Absent as error:
        pytest.skip(str(error))
    found = rows(NAMES[name], model, tmp_path)
    assert found["reset zero"].spike_mismatches == 0
    assert found["approximate"].spike_mismatches > 0
    assert found["exact"].note.startswith("not run: ")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Brian2 numpy", "Lava", "nengo-loihi", "xylosim"])
@pytest.mark.parametrize("model", ["rleaky", "rsynaptic"])
def test_simulators_give_the_same_spikes(name, model, tmp_path):
    try:
        assert NAMES[name].version()
    except Absent as error:
        pytest.skip(str(error))
    found = rows(NAMES[name], model, tmp_path)
    assert found
    assert all(ran.spike_mismatches == 0 and not ran.note for ran in found.values())
