"""The examples run on real data, in their quick form, and end well."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparsecirc.errors import MismatchError

EXAMPLES = Path(__file__).parent.parent / "examples"
WORDS = {
    "mnist_lstm": "compiled, int16",
    "japanese_vowels_gru": "the padding changes nothing",
    "wavernn_gru": "tiles of 4x4",
    "neurobench": "MotorImagery",
    "rewire_gru": "every gate has as many connections as it began with",
    "rewire_snntorch": "every weight has as many connections as it began with",
    "rewire_lightning": "inside and between groups as many connections as before",
}


def run(name: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ, **env}, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORDS)
def test_quick_example(name: str) -> None:
    if not os.environ.get("SPARSECIRC_DATA"):
        pytest.skip("SPARSECIRC_DATA does not name a folder with the real data")
    pytest.importorskip("torch", reason="needs torch (extra 'torch')")
    if name == "rewire_lightning" and importlib.util.find_spec("lightning") is None:
        pytest.skip("the package lightning is not installed")
    done = run(name, "--quick")
    assert done.returncode == 0, done.stderr
    assert WORDS[name] in done.stdout


def test_every_example_is_tested() -> None:
    assert set(WORDS) == {p.stem for p in EXAMPLES.glob("*.py")} - {"common", "neurobench_models"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wavernn_gru", "neurobench"])
def test_missing_data_is_one_line(name: str, tmp_path: Path) -> None:
    done = run(name, SPARSECIRC_DATA=str(tmp_path), SPARSECIRC_CACHE=str(tmp_path / "cache"))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_quick_run_that_differs_exits_with_the_code_of_a_mismatch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not os.environ.get("SPARSECIRC_DATA"):
        pytest.skip("SPARSECIRC_DATA does not name a folder with the real data")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import common
    import wavernn_gru

    right = wavernn_gru.plain_run
    monkeypatch.setattr(wavernn_gru, "plain_run", lambda *args: right(*args) + 1e-3)
    assert common.run(wavernn_gru.main, ["--quick"]) == MismatchError.exit_code
    assert "differs from a dense float64 product" in capsys.readouterr().err
