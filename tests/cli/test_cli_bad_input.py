"""Bad input: one clear line, the documented exit code, nothing left behind."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from cli_support import Cli
from safetensors.numpy import load_file, save_file

from sparsecirc.ir import load_graph

torch = pytest.importorskip("torch", reason="torch is not installed")

NETS = textwrap.dedent(
    """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, units=16):
            super().__init__()
            self.rnn = nn.GRU(8, units, batch_first=True)
            self.fc = nn.Linear(units, 10)

        def forward(self, x):
            return self.fc(self.rnn(x)[0][:, -1])

    def build():
        torch.manual_seed(1)
        return Net()

    def wider():
        return Net(24)

    def other():
        return nn.GRU(8, 16)

    def nothing():
        return nn.Sequential(nn.Linear(8, 4))

    def image():
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 4))

    def bad():
        net = build()
        with torch.no_grad():
            net.rnn.weight_hh_l0[0, 0] = float("nan")
        return net

    def needs(units):
        return Net(units)

    def number():
        return 3

    text = "not callable"
    """
)


@pytest.fixture
def nets(tmp_path: Path, cli: Cli) -> Path:
    (tmp_path / "clinets.py").write_text(NETS)
    sys.modules.pop("clinets", None)
    importlib.invalidate_caches()
    return tmp_path


@pytest.fixture
def weights(nets: Path) -> Path:
    module = importlib.import_module("clinets")
    save_file({k: v.numpy() for k, v in module.build().state_dict().items()}, nets / "net.safetensors")
    return nets / "net.safetensors"


def left(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()} - {"__pycache__"}


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("inspect", "missing.safetensors"), 2, ("missing.safetensors does not exist",)),
        (("inspect", "clinets:absent"), 2, ("has no 'absent'",)),
        (("inspect", "clinets:bild"), 2, ("did you mean 'build'",)),
        (("inspect", "nomodule:build"), 2, ("no module 'nomodule'",)),
        (("inspect", "clinets:text"), 2, ("not callable",)),
        (("inspect", "clinets:needs"), 2, ("units", "without arguments")),
        (("inspect", "clinets:number"), 2, ("gives int", "torch.nn.Module")),
        (("inspect", "net.safetensors"), 2, ("--arch",)),
        (("inspect", "net.safetensors", "--arch", "clinets"), 2, ("expected pkg.mod:factory",)),
        (("inspect", "net.safetensors", "--arch", "clinets:wider"), 2, ("'rnn.weight_ih_l0'", "(48, 8)", "(72, 8)")),
        (("inspect", "net.safetensors", "--arch", "clinets:other"), 2, ("missing, first 'weight_ih_l0'", "unknown")),
        (("inspect", "clinets:build@gone.pt"), 2, ("gone.pt does not exist",)),
        (("inspect", "clinets:bad"), 2, ("rnn.l0.hh", "NaN")),
        (("inspect", "clinets:build", "--seq-len", "0"), 2, ("seq-len is 0",)),
        (("verify", "clinets:build", "--seq-len", "0"), 2, ("seq-len is 0",)),
        (("bench", "clinets:build", "--seq-len", "0"), 2, ("seq-len is 0",)),
        (("bench", "clinets:build", "--batch", "0"), 2, ("batch is 0",)),
        (("prune", "clinets:build", "--sparsity", "1.5", "-o", "out"), 2, ("sparsity 1.5", "less than 1")),
        (("prune", "clinets:build", "--pattern", "blok:16x1", "-o", "out"), 2, ("blok:16x1", "block:16x1")),
        (("prune", "clinets:build", "--pattern", "block:5x1", "-o", "out"), 2, ("not a multiple of 5",)),
        (("prune", "clinets:build", "--pattern", "2:4", "-s", "0.9", "-o", "out"), 2, ("2:4", "0.5")),
        (("prune", "clinets:nothing", "-o", "out"), 3, ("nothing is pruned", "with --include")),
        (("inspect", "clinets:image"), 3, ("give --input-shape",)),
        (("inspect", "clinets:image", "--input-shape", "big"), 2, ("input-shape 'big'",)),
        (("prune", "clinets:build", "--include", "rnn.l1.*", "-o", "out"), 2, ("rnn.l1",)),
        (("prune", "clinets:bad", "-o", "out"), 2, ("NaN",)),
        (("prune", "clinets:build", "--epochs", "2", "-o", "out"), 2, ("--data",)),
        (("prune", "clinets:build", "--data", "digit", "-o", "out"), 2, ("did you mean 'digits'",)),
        (("prune", "clinets:wider", "--data", "mnist", "--recipe", "no.yaml", "-o", "out"), 2, ("no.yaml",)),
        (("prune", "clinets:build", "--schedule", "cubic", "-o", "out"), 2, ("--epochs",)),
        (("prune", "clinets:build", "--resume", "-o", "out"), 2, ("nothing to resume",)),
        (("export", "clinets:build", "--format", "onxx"), 2, ("onnx",)),
        (("export", "clinets:build", "--format", "onnx"), 2, ("-o",)),
        (("export", "clinets:build", "--format", "onnx", "-o", "net.nir"), 2, ("net.nir",)),
        (("report", "gone"), 2, ("gone",)),
        (("bench", "clinets:build", "--min-secs", "0"), 2, ("min-secs",)),
        (("inspect", "demo:gruu"), 2, ("did you mean demo:gru?",)),
    ],
)
def test_one_line_and_exit_code(
    cli: Cli, weights: Path, args: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    before = left(weights.parent)
    ran = cli(*args)
    assert ran.code == code, ran.err
    assert ran.out == ""
    for word in words:
        assert word in ran.line
    assert left(weights.parent) == before


@pytest.mark.parametrize("size", [0, 5, 100, -10])
def test_truncated_safetensors(cli: Cli, weights: Path, size: int) -> None:
    data = weights.read_bytes()
    weights.write_bytes(data[:size])
    ran = cli("inspect", weights, "--arch", "clinets:build")
    assert ran.code == 2
    assert "truncated" in ran.line


def test_truncated_graph(cli: Cli, gru_file: Path) -> None:
    gru_file.write_bytes(gru_file.read_bytes()[:-8])
    ran = cli("inspect", gru_file)
    assert ran.code == 2
    assert "truncated" in ran.line


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("touch hacked",))


@pytest.mark.parametrize("name", ["model.pkl", "model.pt"])
def test_a_pickle_is_refused_and_runs_nothing(cli: Cli, nets: Path, name: str) -> None:
    if name.endswith(".pt"):
        torch.save({"state_dict": Evil()}, nets / name)
    else:
        (nets / name).write_bytes(pickle.dumps(Evil()))
    ran = cli("inspect", nets / name, "--arch", "clinets:build")
    assert ran.code == 2
    assert "--allow-pickle" in ran.line
    assert not (nets / "hacked").exists()


def test_a_text_file_is_no_checkpoint(cli: Cli, nets: Path) -> None:
    (nets / "net.pt").write_text("hello")
    ran = cli("inspect", nets / "net.pt", "--arch", "clinets:build")
    assert ran.code == 2
    assert "net.pt" in ran.line
    truncated = nets / "cut.pt"
    torch.save(importlib.import_module("clinets").build().state_dict(), truncated)
    truncated.write_bytes(truncated.read_bytes()[:-300])
    ran = cli("inspect", truncated, "--arch", "clinets:build")
    assert ran.code == 2
    assert "cut.pt cannot be read" in ran.line


def test_nan_in_a_file(cli: Cli, weights: Path) -> None:
    arrays = load_file(weights)
    arrays["rnn.weight_hh_l0"] = np.full_like(arrays["rnn.weight_hh_l0"], np.nan)
    save_file(arrays, weights)
    ran = cli("prune", weights, "--arch", "clinets:build", "-o", "out")
    assert ran.code == 2
    assert "NaN" in ran.line
    assert not Path("out").exists()


def test_a_damaged_onnx_model(cli: Cli, nets: Path) -> None:
    (nets / "net.onnx").write_bytes(b"x")
    ran = cli("inspect", nets / "net.onnx")
    assert ran.code == 2
    assert "cannot be read as ONNX" in ran.line


def test_unknown_format_and_masks_alone(cli: Cli, nets: Path) -> None:
    (nets / "net.xyz").write_bytes(b"x")
    ran = cli("inspect", nets / "net.xyz")
    assert ran.code == 2
    assert "unknown format '.xyz'" in ran.line
    assert cli("prune", "clinets:build", "-o", "out").code == 0
    ran = cli("inspect", "out/masks.safetensors")
    assert ran.code == 2
    assert "masks without weights" in ran.line


def test_a_directory_that_is_not_ours(cli: Cli, nets: Path) -> None:
    (nets / "mine").mkdir()
    (nets / "mine" / "notes.txt").write_text("keep me")
    assert cli("inspect", "mine").code == 2
    ran = cli("prune", "clinets:build", "-o", "mine", "--force")
    assert ran.code == 2
    assert "--force does not replace it" in ran.line
    assert (nets / "mine" / "notes.txt").read_text() == "keep me"
    (nets / "mine" / "manifest.json").write_text('{"name": "a web app"}')
    assert cli("prune", "clinets:build", "-o", "mine", "--force").code == 2
    assert (nets / "mine" / "notes.txt").exists()


def test_existing_output_is_refused_then_replaced(cli: Cli, nets: Path) -> None:
    assert cli("prune", "clinets:build", "-o", "out").code == 0
    first = load_graph("out/graph.safetensors").density
    ran = cli("prune", "clinets:build", "-s", "0.5", "-o", "out")
    assert ran.code == 2
    assert "--force" in ran.line
    assert load_graph("out/graph.safetensors").density == first
    assert cli("prune", "clinets:build", "-s", "0.5", "-o", "out", "--force").code == 0
    assert load_graph("out/graph.safetensors").density > first
    assert left(nets) == {"clinets.py", "out"}


def test_output_under_a_file(cli: Cli, nets: Path) -> None:
    ran = cli("prune", "clinets:build", "-o", "clinets.py/out")
    assert ran.code == 2
    assert "not a directory" in ran.line


def test_missing_extra_is_7(cli: Cli, nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    ran = cli("export", "clinets:build", "--format", "onnx", "-o", "net.onnx")
    assert ran.code == 7
    assert "sparsecirc[onnx]" in ran.line
    assert left(nets) == {"clinets.py"}


def test_without_torch_a_checkpoint_is_7_and_a_graph_works(
    cli: Cli, gru_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli("inspect", gru_file).code == 0
    Path("net.pt").write_bytes(b"")
    ran = cli("inspect", "net.pt", "--arch", "clinets:build")
    assert ran.code == 7
    assert "sparsecirc[torch]" in ran.line


def test_failure_while_writing_leaves_nothing(cli: Cli, nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsecirc.cli import _pruning

    def full(*args: object, **facts: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_pruning, "write_manifest", full)
    ran = cli("prune", "clinets:build", "-o", "deep/er/out")
    assert ran.code == 1
    assert "No space left" in ran.line
    assert left(nets) == {"clinets.py"}


@pytest.mark.parametrize("epochs_done", [0, 1])
def test_ctrl_c_is_130_and_says_how_to_go_on(nets: Path, epochs_done: int) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    command = [sys.executable, "-m", "sparsecirc", "prune", "clinets:build", "--data", "digits", "--epochs", "500",
               "-o", "out"]  # fmt: skip
    started = subprocess.Popen(
        command, cwd=nets, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        # a shell without job control starts what it puts in the background with Ctrl-C ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert started.stderr is not None
    wanted = "accuracy" if epochs_done == 0 else "epoch 2/500"
    while wanted not in (line := started.stderr.readline()):
        assert line, "ended before it could be interrupted"
    time.sleep(0.01)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("sparsecirc: interrupted")
    assert not (nets / "out").exists()
    if epochs_done:
        assert "--resume" in last
        assert left(nets) == {"clinets.py", "out.partial"}
        assert left(nets / "out.partial") == {"checkpoint.pt"}
