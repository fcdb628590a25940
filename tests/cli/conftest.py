from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from cli_support import Cli, Ran, gru_graph, lif_graph

from sparsecirc._pattern import Pattern
from sparsecirc.cli import main
from sparsecirc.ir import save_graph


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks on two test workers: more threads than cores cost ten times the time."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs one command in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(*args: object) -> Ran:
        capsys.readouterr()
        code = main([str(a) for a in args])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def gru_file(tmp_path: Path) -> Path:
    save_graph(gru_graph(), tmp_path / "gru.safetensors")
    return tmp_path / "gru.safetensors"


@pytest.fixture
def lif_file(tmp_path: Path) -> Path:
    save_graph(lif_graph(), tmp_path / "lif.safetensors")
    return tmp_path / "lif.safetensors"


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A GRU whose recurrent weight is pruned by rows, so that one gate has nothing left."""
    graph = gru_graph()
    mask = np.zeros((48, 16), dtype=bool)
    mask[:32] = True
    save_graph(graph.with_patterns({"rnn.l0.hh": Pattern.from_mask(mask)}), tmp_path / "half.safetensors")
    return tmp_path / "half.safetensors"
