"""The built-in networks through every command, the demo, and the page."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import Cli

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("snntorch", reason="snntorch is not installed")
if importlib.util.find_spec("sparsecirc._kernels") is None:
    pytest.skip("the native kernels are not built", allow_module_level=True)


@pytest.mark.parametrize(("name", "kind"), [("gru", "gru"), ("lstm", "lstm"), ("rnn", "rnn_tanh"), ("snn", "lif")])
def test_every_demo_name_can_be_inspected(cli: Cli, name: str, kind: str) -> None:
    ran = cli("inspect", f"demo:{name}", "--json")
    assert ran.code == 0, ran.err
    assert kind in {w["kind"] for w in ran.json["weights"]}
    assert ran.json["activity"]["input"] == "its own example input"
    assert bool(ran.json["activity"]["rates"]) == (name == "snn")


def test_two_runs_end_on_one_page(cli: Cli) -> None:
    assert cli("prune", "demo:gru", "-o", "runs/gru").code == 0
    assert cli("prune", "demo:snn", "--include", "lif.hh", "-o", "runs/snn").code == 0
    for name in ("gru", "snn"):
        assert cli("compile", f"runs/{name}").code == 0
        assert cli("verify", f"runs/{name}", "--against", "interpret,torch", "--seq-len", "24").code == 0
    assert cli("bench", "runs/gru", "--engines", "torch_dense", "--seq-len", "8", "--min-secs", "0.01").code == 0
    assert cli("export", "runs/gru", "--format", "c").code == 0
    assert json.loads(Path("runs/gru/verify.json").read_text())["ok"]
    assert json.loads(Path("runs/gru/report.json").read_text())["exports"]["c"]["bytes"] > 0
    listed = json.loads(Path("runs/gru/manifest.json").read_text())["files"]
    assert {"program.safetensors", "verify.json", "bench.json", "report.json"} <= set(listed)
    ran = cli("report", "runs/gru", "runs/snn", "-o", "page.html")
    assert ran.code == 0, ran.err
    page = Path("page.html").read_text(encoding="utf-8")
    assert "torch_dense" in page
    assert "PASS" in page
    assert "lif.hh" in page
    assert "http" not in page.replace("http://www.w3.org/", "")
    assert cli("report", "runs/gru", "-o", "page.html").code == 2


def test_a_missing_model_says_so_even_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from sparsecirc.cli import main; "
        "sys.exit(main(['inspect', 'nowhere']) + 10 * main(['inspect', 'demo:gru']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 72, done.stderr
    first, second = done.stderr.splitlines()
    assert "nowhere does not exist" in first
    assert "sparsecirc[torch]" in second


def test_an_interrupted_demo_leaves_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsecirc import demo

    def stopped(directory: Path, **options: object) -> None:
        (directory / "gru").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run_demo", stopped)
    ran = cli("demo", "-o", "runs/demo")
    assert ran.code == 130
    assert not Path("runs").exists()


@pytest.mark.slow
def test_the_demo_and_what_follows(cli: Cli) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    ran = cli("demo", "--quick", "--json")
    assert ran.code == 0, ran.err
    assert [m["name"] for m in ran.json["models"]] == ["gru", "snn"]
    assert json.loads(Path("runs/demo/report.json").read_text()) == ran.json
    assert cli("demo", "--quick").code == 2
    for name in ("gru", "snn"):
        assert cli("verify", f"runs/demo/{name}").code == 0
        assert cli("inspect", f"runs/demo/{name}", "--json").json["totals"]["density"] < 0.3
    assert cli("report", "runs/demo").code == 0
