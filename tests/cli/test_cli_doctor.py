"""doctor, calibration, and predictions on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_support import Cli

import sparsecirc
from sparsecirc._cost import _calibrate as calibration
from sparsecirc.cells import GRU
from sparsecirc.cli import _env


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSECIRC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "FITTED": ((64, 64), (96, 160)), "DENSE_ONLY": ((64, 96),), "HELD_OUT": ((96, 96),), "DENSITIES": (0.3,),
        "LAYERS": ((GRU, 48, 16, 0.2),), "GATE_UNITS": (32, 64), "LAYER_SECONDS": 0.001,
    }.items():  # fmt: skip
        monkeypatch.setattr(calibration, name, value)


def test_doctor_reports_kernels_clock_memory_and_folder(cli: Cli, folder: Path) -> None:
    ran = cli("doctor", "--json")
    assert ran.code == 0, ran.err
    found = ran.json
    assert found["ok"]
    assert all(c["ok"] for c in found["checks"])
    assert found["bandwidth"][0]["level"] == "L1"
    assert found["cache"]["folder"] == folder.as_posix()
    assert found["cache"]["writable"]
    assert not found["cache"]["calibrated"]
    assert found["timer"]["sample_us"] > 0
    ran = cli("doctor", "--isa", "scalar")
    assert "0 wrong" in ran.out
    assert "GB/s" in ran.out
    assert "next: sparsecirc doctor --calibrate" in ran.err


def test_a_wrong_kernel_is_exit_code_4(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsecirc._doctor import _parity

    monkeypatch.setitem(_parity.LIMITS, "f32", 1e-12)
    ran = cli("doctor", "--quiet")
    assert ran.code == 4
    assert "kernel checks failed, first f32 dense" in ran.line
    assert "wrong" in ran.out
    assert not cli("doctor", "--json", "--quiet").json["ok"]


def test_doctor_says_what_is_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("doctor", "--isa", "neon").code in (0, 3)
    assert cli("doctor", "--calibrate", "--clear-cache").code == 2
    monkeypatch.setattr(_env, "kernels", lambda: {"built": False, "isa": [], "why": "not built"})
    ran = cli("doctor")
    assert ran.code == 3
    assert "the native kernels cannot be loaded: not built" in ran.line


def test_a_folder_that_cannot_be_written_is_told(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPARSECIRC_CACHE", str(tmp_path / "file"))
    ran = cli("doctor")
    assert ran.code == 0
    assert "cannot be written" in ran.out
    assert "warning: the cache folder cannot be written" in ran.err


def test_calibrate_then_predict_then_clear(cli: Cli, gru_file: Path, folder: Path, few: None) -> None:
    ran = cli("doctor", "--calibrate")
    assert ran.code == 0, ran.err
    assert "layers" in ran.out
    assert "calibration written to" in ran.err
    found = cli("inspect", gru_file, "--what-if", "0.5,.9", "--json").json["what_if"]
    assert found["calibrated"]
    assert [layer["layer"] for layer in found["layers"]] == ["rnn.l0", "fc"]
    assert [a["sparsity"] for a in found["totals"]["at"]] == [0.5, 0.9]
    text = cli("inspect", gru_file, "--what-if", ".9")
    assert "break-even" in text.out
    assert "calibrated on this machine" in text.out
    assert cli("compile", gru_file).code == 0
    cleared = cli("doctor", "--clear-cache", "--json").json
    assert cleared["calibrations"] == 1
    assert cleared["measurements"] == len(sparsecirc.Program.load(program(cli, gru_file)).choices)
    assert "not calibrated here" in cli("inspect", gru_file, "--what-if", ".9").out


def program(cli: Cli, graph: Path) -> Path:
    assert cli("compile", graph, "--no-cache", "-o", "net.safetensors").code == 0
    return Path("net.safetensors")


def test_an_interrupted_calibration_leaves_what_was_there(
    cli: Cli, folder: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("doctor", "--calibrate").code == 0
    (file,) = folder.rglob("*.json")
    before = file.read_text()

    def stopped(*args: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(calibration, "layer_ratio", stopped)
    ran = cli("doctor", "--calibrate")
    assert ran.code == 130
    assert "nothing was written" in ran.line
    assert [f.read_text() for f in folder.rglob("*.json")] == [before]
    assert json.loads(before)["shipped"] is False


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--what-if", "0.5,x"), "--what-if '0.5,x' is not understood"),
        (("--what-if", "1.0"), "expected sparsities from 0 to below 1"),
        (("--what-if", ""), "--what-if '' is not understood"),
        (("--what-if", ".5", "--pattern", "2:4"), "pattern '2:4' fixes the sparsity itself"),
        (("--what-if", ".5", "--pattern", "stars"), "pattern 'stars' is unknown"),
        (("--pattern", "block:16x1"), "add --what-if"),
    ],
)
def test_wrong_questions_are_usage_errors(cli: Cli, gru_file: Path, options: tuple[str, ...], words: str) -> None:
    ran = cli("inspect", gru_file, *options)
    assert ran.code == 2
    assert words in ran.line
