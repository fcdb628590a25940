from __future__ import annotations

from pathlib import Path

import pytest
from cli_support import Cli


def test_counts_of_a_gru(cli: Cli, half: Path) -> None:
    found = cli("inspect", half, "--json").json
    hh = next(w for w in found["weights"] if w["name"] == "rnn.l0.hh")
    assert hh["shape"] == [48, 16]
    assert hh["nnz"] == 32 * 16
    assert hh["density"] == pytest.approx(2 / 3)
    assert hh["gates"] == ["r", "z", "n"]
    assert hh["bytes_dense"] == 48 * 16 * 4
    assert hh["macs_per_step"] == 512
    assert hh["synops_per_step"] is None
    head = next(w for w in found["weights"] if w["name"] == "fc.weight")
    assert not head["per_step"]
    assert found["totals"]["nnz"] == 48 * 8 + 512 + 64


def test_gates_and_starved_gate(cli: Cli, half: Path) -> None:
    ran = cli("inspect", half, "--per-gate", "--json")
    gates = {w["name"]: w["density"] for w in ran.json["weights"]}
    assert gates["rnn.l0.hh.r"] == 1.0
    assert gates["rnn.l0.hh.n"] == 0.0
    assert any("rnn.l0.hh.n" in w for w in ran.json["warnings"])
    assert "warning: gate 'rnn.l0.hh.n'" in ran.err


def test_table_and_suggestion(cli: Cli, gru_file: Path) -> None:
    ran = cli("inspect", gru_file)
    assert ran.code == 0
    assert "rnn.l0  gru" in ran.out
    assert "48x16" in ran.out
    assert "next: sparsecirc prune" in ran.err
    assert cli("inspect", gru_file, "--quiet").err == ""


def test_spikes_are_counted_as_synaptic_operations(cli: Cli, lif_file: Path) -> None:
    found = cli("inspect", lif_file, "--json").json
    by_name = {w["name"]: w for w in found["weights"]}
    rate = found["activity"]["rates"]["lif1"]
    assert 0 < rate < 1
    assert by_name["fc2.weight"]["synops_per_step"] == pytest.approx(3 * 12 * rate)
    assert by_name["lif1.hh"]["synops_per_step"] == pytest.approx(12 * 12 * rate)
    assert by_name["fc1.weight"]["synops_per_step"] is None
    assert found["dt"] == 1e-3


def test_dt_overrides(cli: Cli, lif_file: Path) -> None:
    assert cli("inspect", lif_file, "--dt", "0.002", "--json").json["dt"] == 0.002
    ran = cli("inspect", lif_file, "--dt", "-1")
    assert ran.code == 2
    assert "dt is -1.0" in ran.line
