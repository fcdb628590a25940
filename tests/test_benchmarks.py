"""The benchmark cases run, in miniature, and give the rows that they promise."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch (extra 'torch')")
pytest.importorskip("scipy", reason="needs scipy (extra 'bench')")
sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import __main__ as command
from benchmarks._cases import CASES, Effort
from benchmarks._training import TRAINING

KEYS = {
    "case", "engine", "n", "density", "batch", "seq_len",
    "us_per_step", "speedup_vs_best_dense", "max_abs_diff", "bytes",
}  # fmt: skip
TINY = Effort(0.01, 2, (32,), (1, 3))


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("wavernn", "rlif_event")])
def test_case(name: str) -> None:
    rows = [r.to_json() for r in CASES[name](TINY)]
    assert all(set(r) == KEYS and r["case"] == name for r in rows)
    engines = {r["engine"] for r in rows}
    assert any(e.startswith("sparsecirc") for e in engines)
    assert engines & {"torch_dense", "onnxruntime"}, "no dense engine to compare with"
    if "int16" in name:
        assert {"dense_int8", "dense_int16", "sparsecirc_int16"} <= engines
    assert min(r["us_per_step"] for r in rows) > 0
    loose = 0.05 if "int16" in name else 1e-4
    assert max(r["max_abs_diff"] for r in rows) < loose


def test_spiking_case() -> None:
    rows = list(CASES["rlif_event"](Effort(0.01, 2, (32,), (1,))))
    assert {r.n for r in rows} == {32, 1024}
    assert {"sparsecirc", "snntorch"} <= {r.engine for r in rows}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINING)
def test_training_case(name: str) -> None:
    rows = list(TRAINING[name](TINY))
    assert {"sparsecirc"} < {r.engine for r in rows}
    assert max(r.max_abs_diff for r in rows) < 1e-3


def test_command_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "QUICK", TINY)
    assert command.main(["--quick", "--case", "rnn_unstructured", "--json", str(tmp_path / "out.json")]) == 0
    assert {frozenset(r) for r in json.loads((tmp_path / "out.json").read_text())} == {frozenset(KEYS)}
    assert "x best dense" in capsys.readouterr().out


def test_interruption_prints_what_there_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: Effort) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(command.CASES, "rnn_unstructured", stop)  # type: ignore[arg-type]
    assert command.main(["--quick", "--case", "rnn_unstructured"]) == 130
    assert "interrupted" in capsys.readouterr().err
