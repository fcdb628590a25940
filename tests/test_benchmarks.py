"""The benchmark command measures, proves, and writes the rows that it promises."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs torch (extra 'torch')")
pytest.importorskip("scipy", reason="needs scipy (extra 'bench')")
pytest.importorskip("snntorch", reason="needs snntorch (extra 'torch')")
sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import __main__ as command

KEYS = {
    "case", "engine", "n", "density", "batch", "seq_len",
    "us_per_step", "speedup_vs_best_dense", "max_abs_diff", "bytes",
}  # fmt: skip
CASES = {
    "gru_unstructured", "lstm_unstructured", "rnn_unstructured", "gru_unstructured_int16", "gru_block16", "rlif_event",
    "train_gru", "train_rlif", "wavernn",
}  # fmt: skip


def rows_of(case: str, path: Path) -> list[dict[str, Any]]:
    assert command.main(["--quick", "--case", case, "--json", str(path)]) == 0
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    assert rows
    assert all(set(r) == KEYS and r["case"] == case and r["us_per_step"] > 0 for r in rows)
    return rows


def test_all_cases_are_there() -> None:
    assert set(command.CASES) == CASES


def test_quick_rnn_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of("rnn_unstructured", tmp_path / "out.json")
    assert {"sparsecirc", "sparsecirc_dense", "torch_dense", "scipy_csr"} <= {r["engine"] for r in rows}
    assert max(r["max_abs_diff"] for r in rows) < 1e-4
    assert "speed-up" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("case", ["gru_unstructured_int16", "rlif_event", "train_gru", "train_rlif"])
def test_quick_case(case: str, tmp_path: Path) -> None:
    engines = {r["engine"] for r in rows_of(case, tmp_path / "out.json")}
    if "int16" in case:
        assert any("int8" in e for e in engines)
        assert sum("int16" in e for e in engines) >= 2, "sparse integers need dense ones beside them"


def test_interruption_keeps_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: object) -> Iterator[Any]:
        raise KeyboardInterrupt

    monkeypatch.setitem(command.CASES, "rnn_unstructured", stop)
    out = tmp_path / "out.json"
    assert command.main(["--quick", "--case", "rnn_unstructured", "--json", str(out)]) == 130
    assert json.loads(out.read_text()) == []
    assert "interrupted" in capsys.readouterr().err


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    for args in (["--case", "gnu"], ["--json", str(tmp_path)]):
        with pytest.raises(SystemExit) as stopped:
            command.main(args)
        assert stopped.value.code == 2
