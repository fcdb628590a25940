from __future__ import annotations

import importlib
import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml
from cli_support import Cli
from safetensors.numpy import load_file

from sparsecirc.ir import load_graph
from sparsecirc.patterns import load_patterns

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

NETS = textwrap.dedent(
    """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, units=16):
            super().__init__()
            self.rnn = nn.GRU(8, units, batch_first=True)
            self.drop = nn.Dropout(0.3)
            self.fc = nn.Linear(units, 10)

        def forward(self, x):
            return self.fc(self.drop(self.rnn(x)[0][:, -1]))

    def build():
        torch.manual_seed(1)
        return Net()
    """
)


@pytest.fixture
def nets(tmp_path: Path, cli: Cli) -> Path:
    (tmp_path / "prunenets.py").write_text(NETS)
    sys.modules.pop("prunenets", None)
    importlib.invalidate_caches()
    return tmp_path


def test_everything_is_written_and_agrees(cli: Cli, nets: Path) -> None:
    ran = cli("prune", "prunenets:build", "-s", "0.75", "-o", "runs/a", "--json")
    assert ran.code == 0
    assert {p.name for p in Path("runs/a").iterdir()} == {
        "graph.safetensors", "manifest.json", "masks.safetensors", "model.safetensors", "recipe.yaml", "report.json"
    }  # fmt: skip
    report = json.loads(Path("runs/a/report.json").read_text())
    assert report == ran.json
    graph = load_graph("runs/a/graph.safetensors")
    masks = load_patterns("runs/a/masks.safetensors")
    assert set(masks) == {"rnn.l0.ih", "rnn.l0.hh"}
    assert masks["rnn.l0.hh"].nnz == 3 * 64
    state = load_file("runs/a/model.safetensors")
    assert np.count_nonzero(state["rnn.weight_hh_l0"]) == 192
    np.testing.assert_array_equal(state["rnn.weight_hh_l0"], graph.node("rnn.l0").weight("hh"))
    hh = next(w for w in report["weights"] if w["name"] == "rnn.l0.hh")
    assert hh["gates"] == {f"rnn.l0.hh.{g}": 0.25 for g in "rzn"}
    assert hh["nnz_before"] == 768
    assert yaml.safe_load(Path("runs/a/recipe.yaml").read_text())["sparsity"] == 0.75
    assert "next: sparsecirc compile runs/a" in ran.err


def test_recipe_repeats_the_run_and_options_win(cli: Cli, nets: Path) -> None:
    first = cli("prune", "prunenets:build", "--method", "random", "--seed", "5", "-o", "a", "--json").json
    again = cli("prune", "prunenets:build", "--recipe", "a/recipe.yaml", "-o", "b", "--json").json
    other = cli("prune", "prunenets:build", "--recipe", "a/recipe.yaml", "--seed", "6", "-o", "c", "--json").json
    assert again["mask_hash"] == first["mask_hash"]
    assert other["mask_hash"] != first["mask_hash"]
    Path("bad.yaml").write_text("sparsty: 0.5\n")
    ran = cli("prune", "prunenets:build", "--recipe", "bad.yaml", "-o", "d")
    assert ran.code == 2
    assert "did you mean 'sparsity'" in ran.line


@pytest.mark.parametrize(
    ("pattern", "origin"),
    [("block:4x1", "block 4x1"), ("2:4", "2:4"), ("fan-in:3", "fan-in 3"), ("unstructured", "unstructured")],
)
def test_patterns(cli: Cli, nets: Path, pattern: str, origin: str) -> None:
    report = cli("prune", "prunenets:build", "--pattern", pattern, "-o", "a", "--json").json
    assert {w["pattern"] for w in report["weights"]} == {origin, "dense"}
    shown = cli("inspect", "a", "--json").json
    hh = next(w for w in shown["weights"] if w["name"] == "rnn.l0.hh")
    assert hh["pattern"] == pattern


@pytest.mark.parametrize(
    ("options", "origin"),
    [
        ((), "lattice binary acyclic cover ranked"),
        (("--lattice-keep", "both"), "lattice binary acyclic both ranked"),
        (
            ("--lattice-adjacency=continuous", "--lattice-order=time", "--lattice-per-gate"),
            "lattice continuous time cover per_gate",
        ),
        (("--pattern", "block:4x1"), "block 4x1"),
    ],
)
def test_lattices(cli: Cli, nets: Path, options: tuple[str, ...], origin: str) -> None:
    args = ("prune", "prunenets:build", "-s", "0.75", "--method", "lattice", *options, "--json")
    first, again = (cli(*args, "-o", name).json for name in "ab")
    assert first["mask_hash"] == again["mask_hash"]
    assert {w["pattern"] for w in first["weights"]} == {origin, "dense"}
    assert next(w for w in first["weights"] if w["name"] == "rnn.l0.hh")["nnz"] == 192
    repeated = cli("prune", "prunenets:build", "--recipe", "a/recipe.yaml", "-o", "c", "--json").json
    assert repeated["mask_hash"] == first["mask_hash"]
    gates = 3 if "--lattice-per-gate" in options else 1
    expected = [] if "--pattern" in options else [f"why{'' if gates == 1 else f'-{k}'}.{e}" for k in range(gates)
                                                  for e in ("txt", "json", "svg")]  # fmt: skip
    assert first["explanations"] == expected
    assert set(expected) <= set(json.loads(Path("a/manifest.json").read_text())["files"])
    for name in expected:
        if name.endswith(".json"):
            assert len(json.loads(Path("a", name).read_text())["neurons"]) == 24


def test_a_lattice_is_explained_after_a_schedule_and_on_the_page(cli: Cli, nets: Path) -> None:
    args = ("--method", "lattice", "--schedule", "cubic", "--data", "digits", "--epochs", "1")
    report = cli("prune", "prunenets:build", "-s", "0.8", *args, "-o", "a", "--json").json
    why = json.loads(Path("a/why.json").read_text())
    hh = next(w for w in report["weights"] if w["name"] == "rnn.l0.hh")
    ih = next(w for w in report["weights"] if w["name"] == "rnn.l0.ih")
    assert sum(n["live_in"] for n in why["neurons"]) == hh["nnz"] + ih["nnz"]
    assert cli("report", "a", "-o", "a.html").code == 0
    page = Path("a.html").read_text()
    assert "Why these neurons" in page
    assert "data:image/svg+xml;base64," in page


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--lattice-keep", "both"), ("--lattice-keep needs --method lattice",)),
        (("--method", "lattice", "--lattice-keep", "each"), ("either", "both", "cover")),
        (
            ("--method", "lattice", "--lattice-unranked", "-s", "0.5"),
            ("asked for 0.5", "--lattice-keep", "--lattice-ranked"),
        ),
        (
            ("--method", "lattice", "--lattice-unranked", "--lattice-threshold", "0.5", "-s", "0.5"),
            ("threshold already decides", "--lattice-ranked"),
        ),
        (
            ("--method", "lattice", "--lattice-order=scc", "--lattice-threshold=0"),
            ("one component", "--lattice-order acyclic"),
        ),
    ],
)
def test_lattices_that_cannot_be(cli: Cli, nets: Path, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    ran = cli("prune", "prunenets:build", *options, "-o", "a")
    assert ran.code == 2
    for word in words:
        assert word in (ran.line if "each" not in options else ran.err)
    assert not Path("a").exists()


def test_include_and_exclude(cli: Cli, nets: Path) -> None:
    report = cli("prune", "prunenets:build", "--include", "*.hh,fc.*", "-o", "a", "--json").json
    assert {w["name"] for w in report["weights"] if w["density"] < 1} == {"rnn.l0.hh", "fc.weight"}
    report = cli("prune", "prunenets:build", "--exclude", "*.ih", "-o", "b", "--json").json
    assert {w["name"] for w in report["weights"] if w["density"] < 1} == {"rnn.l0.hh"}
    assert ["fc.weight", "not selected"] in report["skipped"]


def test_a_graph_file_is_pruned_without_torch(cli: Cli, gru_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli("prune", gru_file, "-s", "0.5", "-o", "a").code == 0
    assert not Path("a/model.safetensors").exists()
    assert cli("inspect", "a", "--json").json["totals"]["density"] < 0.6
    ran = cli("prune", "a", "-s", "0.75", "-o", "b", "--json")
    assert next(w for w in ran.json["weights"] if w["name"] == "rnn.l0.hh")["density"] == 0.25
    old, new = (load_patterns(f"{d}/masks.safetensors")["rnn.l0.hh"] for d in "ab")
    assert new.intersect(old).nnz == new.nnz


def test_training_improves_and_keeps_the_masks(cli: Cli, nets: Path) -> None:
    report = cli("prune", "prunenets:build", "-s", "0.5", "--data", "digits", "--epochs", "4",
                 "--learning-rate", "0.01", "-o", "a", "--json").json  # fmt: skip
    accuracy = report["accuracy"]
    assert accuracy["pruned"] > accuracy["dense"] + 0.3
    assert [h["epoch"] for h in accuracy["history"]] == [1, 2, 3, 4]
    state = load_file("a/model.safetensors")
    assert np.count_nonzero(state["rnn.weight_hh_l0"]) == 3 * 128
    assert not Path("a.partial").exists()


def test_cubic_grows_to_the_target(cli: Cli, nets: Path) -> None:
    report = cli("prune", "prunenets:build", "-s", "0.75", "--schedule", "cubic", "--data", "digits", "--epochs", "4",
                 "--batch-size", "128", "-o", "a", "--json").json  # fmt: skip
    densities = [h["density"] for h in report["accuracy"]["history"]]
    assert densities == sorted(densities, reverse=True)
    assert densities[0] > 0.3
    assert densities[-1] == pytest.approx(0.25)


def test_training_needs_a_torch_model(cli: Cli, gru_file: Path) -> None:
    ran = cli("prune", gru_file, "--data", "digits", "--epochs", "1", "-o", "a")
    assert ran.code == 2
    assert not Path("a").exists()


@pytest.mark.parametrize("schedule", ["one-shot", "cubic"])
def test_an_interrupted_run_goes_on_to_the_same_bits(
    cli: Cli, nets: Path, schedule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparsecirc.cli._training import Run

    args = ("prune", "prunenets:build", "-s", "0.75", "--schedule", schedule, "--data", "digits", "--epochs", "3",
            "--seed", "3")  # fmt: skip
    assert cli(*args, "-o", "whole").code == 0
    train_epoch = Run.train_epoch

    def stopped(self: Run, advance: object) -> None:
        if self.epoch == 2:
            raise KeyboardInterrupt
        train_epoch(self, advance)

    monkeypatch.setattr(Run, "train_epoch", stopped)
    ran = cli(*args, "-o", "parts")
    assert ran.code == 130
    assert "after epoch 2 of 3" in ran.err
    assert not Path("parts").exists()
    monkeypatch.setattr(Run, "train_epoch", train_epoch)
    ran = cli(*args, "-o", "parts")
    assert ran.code == 2
    assert "--resume" in ran.line
    ran = cli(*args, "--learning-rate", "0.1", "-o", "parts", "--resume")
    assert ran.code == 2
    assert "another recipe" in ran.line
    assert cli(*args, "-o", "parts", "--resume").code == 0
    whole, parts = (load_file(f"{d}/model.safetensors") for d in ("whole", "parts"))
    for key in whole:
        np.testing.assert_array_equal(whole[key], parts[key])
    reports = [json.loads(Path(d, "report.json").read_text()) for d in ("whole", "parts")]
    assert reports[0] == reports[1]
    assert not Path("parts.partial").exists()
